"""Read videos back as a player would."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from stylecli.images import Pictures


def play(path: Path | str) -> tuple[str, Pictures]:
    """Return what ffmpeg says of a video, and its frames [N, H, W, 3]."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
    shown = subprocess.run([program, "-i", path, *raw], capture_output=True, check=True)
    facts = shown.stderr.decode()
    width, height = map(int, re.findall(r", (\d+)x(\d+)", facts)[0])
    return facts, np.frombuffer(shown.stdout, np.uint8).reshape(-1, height, width, 3)
