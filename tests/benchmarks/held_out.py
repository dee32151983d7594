"""What scripts that train on demo faces share: held-out faces, pauses, curves.

Not run by itself: ``demo_settings.py``, ``few_pictures.py`` and ``peers_quality.py`` use it.
"""

import contextlib
import html
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from stylecli.data.demo_faces import FaceArtist
from stylecli.features.efficientnet import EfficientNetLite0
from stylecli.features.extractors import PYRAMID, View, open_extractors
from stylecli.files import read_json, replacing, write_json, write_text
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import kernel_distance
from stylecli.metrics.swd import SWD, Patches
from stylecli.report.charts import HEIGHT, WIDTH, draw_chart
from stylecli.report.content import Chart, Line

BATCH = 50
COLOURS = ("#1f62c4", "#c8501c", "#14806a", "#a03490", "#7a6a00", "#5b57c9")
STYLE = (
    "text{fill:#555;font:12px sans-serif}.y,.end{text-anchor:end}.x{text-anchor:middle}"
    "path{fill:none}.grid{stroke:#ddd}.zero,.base{stroke:#999}.line{stroke-width:2}"
    ".best{fill:none;stroke-width:2}"
    + "".join(f"path.c{i},.best.c{i}{{stroke:{c}}}circle.c{i}{{fill:{c}}}text.c{i}{{fill:{c}}}"
              f".best.c{i}{{fill:none}}" for i, c in enumerate(COLOURS))
)  # fmt: skip
POLL_SECONDS = 1.0


class Results(dict):
    """What was measured so far, in a JSON file; of other settings than these it is refused."""

    def __init__(self, path, settings):
        super().__init__(read_json(path) if path.exists() else {"settings": settings})
        self.path = path
        if self["settings"] != settings:
            raise SystemExit(f"{path} was measured with {self['settings']}: give another folder")

    def keep(self):
        """Write all there is."""
        write_json(self.path, dict(self))


class HeldOut:
    """Demo faces that no network was trained on, and distances to them."""

    def __init__(self, folder, first, count, resolution=32, *, all_styles=True):
        self.first = first
        path = folder / f"held-out-{first}-{count}.npz"
        self.faces = draw_faces(path, first, count, resolution, all_styles=all_styles)
        arrays, _ = obtain("efficientnet-lite0")
        self._network = EfficientNetLite0.from_state_dict(arrays)
        self._pyramid = open_extractors([View(PYRAMID)], torch.device("cpu"))[PYRAMID]
        path = folder / f"held-out-{first}-{count}-features.npy"
        if not path.exists():
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, self.features(self.faces))
        self.known = np.load(path)

    def features(self, pictures):
        """Return EfficientNet's features [N, 1280] of uint8 [N, 3, R, R]."""
        parts = [self._network.features(pictures[start : start + BATCH]).numpy()
                 for start in range(0, len(pictures), BATCH)]  # fmt: skip
        return np.concatenate(parts)

    def kid(self, features):
        """Return the kernel distance x 1000 to all of them."""
        size = min(1000, len(features), len(self.known))
        rng = np.random.RandomState(0)
        mean, _ = kernel_distance(self.known, features, subset_size=size, rng=rng)
        return 1000 * mean

    def swd(self, pictures):
        """Return the sliced Wasserstein distance of as many of them."""
        count = min(len(pictures), len(self.faces))
        (value, _), *_ = SWD.score(None, *(self._patches(side[:count])
                                           for side in (self.faces, pictures)), 0)[0]  # fmt: skip
        return value

    def _patches(self, pictures):
        kept = Patches(len(pictures))
        for start in range(0, len(pictures), BATCH):
            kept.update(self._pyramid.extract(pictures[start : start + BATCH]), start)
        return kept.compute()


def draw_faces(path, first, count, resolution, *, all_styles=True):
    """Return faces uint8 [count, 3, R, R] of seeds ``first`` on, kept at ``path``."""
    if not path.exists():
        artist = FaceArtist(resolution, all_styles=all_styles)
        faces = np.stack([artist(first + number)[0] for number in range(count)])
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, faces=faces)
    with np.load(path) as stored:
        return stored["faces"]


def cpu_seconds(process):
    """Return the CPU time of a living process and of its children that ended (Linux only)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def run_until(words, deadline, *, most_cpu=None, look=lambda seconds: None, **how):
    """Run a command that saves and exits 130 on SIGINT; return whether it came to its end.

    It is interrupted at ``deadline`` (of time.monotonic) or after ``most_cpu`` CPU seconds.
    ``look`` is called with its CPU seconds now and then. Another exit code ends the script.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen([str(word) for word in words], env=environment,
                               start_new_session=True, **how)  # fmt: skip
    asked = False
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                used = cpu_seconds(process)
                look(used)
                if not asked and (time.monotonic() > deadline or used > (most_cpu or used)):
                    process.send_signal(signal.SIGINT)
                    asked = True
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise SystemExit(130) from None
    if process.returncode not in (0, 130, -signal.SIGINT):  # the last: it had hardly begun
        raise SystemExit(f"{' '.join(map(str, words))} ended with {process.returncode}")
    return process.returncode == 0


def stylecli_command(*words):
    """Return the command line of this project, as this Python runs it."""
    return [sys.executable, "-m", "stylecli", *words]


def write_curves(path, title, curves, x_label):
    """Write an SVG of curves: "NAME-SEED" -> ([x], [y]); all seeds of a name have its colour."""
    names = list(dict.fromkeys(name.rpartition("-")[0] for name in curves))
    lines = [Line(name, x, y, dots=True, colour=names.index(name.rpartition("-")[0]))
             for name, (x, y) in curves.items() if x]  # fmt: skip
    svg = draw_chart(Chart(title, lines, x_label))
    keys = "".join(
        f'<text class="c{place % len(COLOURS)}" x="{WIDTH - 200}" y="{44 + 16 * place}">'
        f"{html.escape(name)}</text>" for place, name in enumerate(names)
    )  # fmt: skip
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
    svg = svg.replace("<svg", head, 1).replace("\n", f"\n<style>{STYLE}</style>\n{keys}\n", 1)
    write_text(path, svg + "\n")
