"""``stylecli explore``: what the page shows is, byte for byte, what the printed commands write."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from stylecli.cli.app import app

pytest.importorskip("starlette", reason="the extra is not installed: pip install '.[explore]'")


class Asker:
    """A client of a running server, as curl is one."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token

    def __call__(
        self, path: str, body: bytes | None = None, method: str = "", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an address."""
        request = urllib.request.Request(
            self.address + path, body, {"X-Stylecli-Token": self.token, **headers},
            method=method or ("GET" if body is None else "POST"),
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def json(self, path: str, body: Any = None) -> Any:
        """Return the JSON of an address, which must answer with success."""
        status, _, content = self(path, None if body is None else json.dumps(body).encode())
        assert status in (200, 201, 202), content
        return json.loads(content)


SNAPSHOT = "runs/00000-two/network-snapshot-000001000.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one run of one network."""
    import numpy as np

    from stylecli.checkpoint import save_network
    from stylecli.latents.directions import FILE, Direction, Directions, space_of, write_directions
    from stylecli.networks.headers import network_digest
    from stylecli.networks.model import new_network

    root = tmp_path_factory.mktemp("explore")
    (root / SNAPSHOT).parent.mkdir(parents=True)
    net = new_network("f", seed=0, resolution=16, fmap_base=64, fmap_max=8, z_dim=8, w_dim=8,
                      mapping_layers=2, mapping_fmaps=8)  # fmt: skip
    save_network(root / "net.safetensors", net)
    other = new_network("stylegan2", seed=1, resolution=64, fmap_base=256, fmap_max=8, z_dim=8,
                        w_dim=8, label_dim=3)  # fmt: skip
    save_network(root / SNAPSHOT, other)
    space = space_of(net.config, "net.safetensors", network_digest(root / "net.safetensors"))
    smile = Direction("smile", "sefa", np.eye(8, dtype=np.float32)[0], 0.5, (0, 1, 2, 3, 4, 5))
    (root / "out/net").mkdir(parents=True)
    write_directions(root / "out/net" / FILE, Directions(space, {"smile": smile}))
    return root


@pytest.fixture(scope="module")
def ask(folder: Path) -> Iterator[Asker]:
    """The program as a user starts it, over its own printed address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "stylecli", "explore", "--network", "net.safetensors", "--no-open",
         "--json", "--device", "cpu"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    with server:
        text = ""
        while not text.endswith("}\n"):
            text += server.stdout.readline()
        said = json.loads(text)
        yield Asker(f"http://127.0.0.1:{said['port']}", said["token"])
        server.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert server.wait(20) == 0
        assert time.monotonic() - began < 10  # a second on a quiet machine


PICTURES = (
    ("picture", "seed=5"),
    ("picture", "seed=5&psi=0.5&psi_cutoff=2&noise_mode=none"),
    ("picture", "seed=5&psi_layers=coarse:1,4-5:-0.5&noise_seed=3&scale=2"),
    ("picture", "seed=6&like=1&vary=0.25&center=4&lod=1"),
    ("picture", "seed=5&mix=coarse:7&mix=4-5:9&noise_scale=0.5"),
    ("picture", "seed=5&size=40x30&crop=yes"),
    ("picture", f"network={SNAPSHOT}&seed=5&class=2&psi_layers=fine:0.2"),
    ("picture", "seed=5&edit=smile:1.5&edit=smile@coarse:-1"),
    ("picture", "network=shipped&seed=5"),
    ("sheet", "seeds=0-3,9&columns=2&labels=no"),
    ("sheet", "seeds=0-3&size=60x40&crop=yes"),
    ("mix", "rows=2&cols=3,4&styles=fine&psi=1"),
    ("mix", "row=1&row=5&cols=2&bands=coarse:1,fine:1&labels=no"),
    ("mix", "row=1&cols=3,4&styles=coarse"),
)


@pytest.mark.parametrize(("kind", "state"), PICTURES)
def test_a_picture_is_the_file_that_the_printed_command_writes(
    kind: str, state: str, ask: Asker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    status, headers, shown = ask(f"/api/{kind}?{state}")
    printed = ask.json(f"/api/command?{state}&kind={kind}")
    Path(printed["file"]).unlink(missing_ok=True)
    done = CliRunner().invoke(app, shlex.split(printed["command"])[1:])

    assert (status, headers["content-type"], done.exit_code) == (200, "image/png", 0), done.stderr
    assert Path(printed["file"]).read_bytes() == shown
    assert ask(f"/api/{kind}?{state}", **{"If-None-Match": headers["etag"]})[0] == 304


REFUSED = (
    ("/api/picture?psi=1", 400, "seed=5"), ("/api/picture?seed=x", 400, "'x'"),
    ("/api/picture?sed=1", 400, "'seed'"),
    ("/api/picture?seed=1&psi=abc", 400, "--psi abc"), ("/api/picture?seed=1&seed=2", 400, "seed"),
    ("/api/picture?seed=1&lod=9", 400, "lod 9"), ("/api/picture?face=/etc/passwd", 404, "passwd"),
    ("/api/picture?seed=1&center=net.safetensors", 400, "center"),
    ("/api/picture?seed=1&network=../net.safetensors", 404, "network"),
    ("/api/picture?seed=1&size=99999x99999", 400, "too large"),
    ("/api/picture?seed=1&out=x.png", 400, "out"), ("/api/sheet?seeds=0-9999999", 400, "seeds"),
    ("/api/mix?row=a.npz&cols=2", 404, "a.npz"), ("/api/mix?rows=5000&cols=2", 400, "rows 5000"),
    ("/api/walk/frame?through=1&frame=x", 400, "frame"), ("/api/preview?seed=1", 404, "small"),
    ("/api/run?run=..", 404, "run"), ("/api/jobs/7", 404, "job"), ("/nothing", 404, "nothing"),
    ("/page/..%2fserver.py", 404, "server.py"), ("/page/server.py", 404, "server.py"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "status", "named"), REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(
    path: str, status: int, named: str, ask: Asker
) -> None:
    answered, _, content = ask(path)

    assert answered == status, content
    assert named in json.loads(content)["error"]


@pytest.mark.slow
def test_a_walk_has_frames_and_is_exported_as_its_command_does(
    ask: Asker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylecli.video import read_video_provenance

    monkeypatch.chdir(folder)
    state = {"through": ["1", "5"], "key_seconds": 0.1, "fps": 10, "method": "lerp"}
    measured = ask.json("/api/walk?through=1&through=5&key_seconds=0.1&fps=10&method=lerp")
    frame = ask("/api/walk/frame?through=1&through=5&key_seconds=0.1&fps=10&frame=1")
    begun = ask.json("/api/walk/export", {"state": state, "format": "gif"})
    job = wait_for(ask, begun["job"])
    status, headers, clip = ask(f"/api/jobs/{begun['job']}/files/0")

    assert (measured["frames"], measured["keys"], frame[0]) == (2, 2, 200)
    assert (job["state"], job["done"], status) == ("done", job["total"], 200), job
    assert "attachment" in headers["content-disposition"] and clip.startswith(b"GIF")
    path = Path(job["result"]["path"])
    done = CliRunner().invoke(app, shlex.split(begun["command"])[1:])
    assert done.exit_code == 0 and "already exists" in done.stderr  # it was made with the same
    assert read_video_provenance(path) is not None


def test_directions_are_listed_and_found(ask: Asker) -> None:
    (smile,) = ask.json("/api/directions")["directions"]
    none = ask.json(f"/api/directions?network={SNAPSHOT}")
    found = ask.json(f"/api/directions?network={SNAPSHOT}", {})

    shown = smile["name"], smile["title"], smile["least"], smile["most"]
    assert shown == ("smile", "smile", -3, 3)
    assert none["directions"] == [] and "stylecli directions find" in none["why"]
    titles = {row["name"]: row["title"] for row in found["directions"]}
    assert titles["sefa.1"] == "component 1" and titles["sefa-coarse.2"] == "coarse component 2"
    assert ask.json(f"/api/directions?network={SNAPSHOT}") == found
    assert ask(f"/api/picture?network={SNAPSHOT}&seed=5&edit=sefa-coarse.2:1")[0] == 200


def test_a_network_with_a_true_preview_shows_it(ask: Asker) -> None:
    facts = ask.json(f"/api/network?network={SNAPSHOT}")
    status, _, preview = ask(f"/api/preview?network={SNAPSHOT}&seed=5")

    assert (facts["has_preview"], facts["classes"], facts["width"]) == (True, 3, 64)
    assert status == 200 and Image.open(io.BytesIO(preview)).size == (16, 16)
    names = [row["name"] for row in ask.json("/api/networks")["networks"]]
    assert names == ["net.safetensors", SNAPSHOT, "shipped"]


@pytest.mark.slow
def test_a_photograph_becomes_a_face(ask: Asker, folder: Path) -> None:
    picture = io.BytesIO()
    Image.effect_mandelbrot((40, 40), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(picture, "PNG")
    status, _, content = ask("/api/photographs?name=a%3Cb.png&align=no", picture.getvalue())
    job = wait_for(ask, json.loads(content)["job"])

    assert (status, job["state"]) == (202, "done"), job
    assert job["pictures"] >= 1 and ask(f"/api/jobs/{job['id']}/picture")[0] == 200
    assert job["result"]["results"]["psnr_db"] > 0
    assert ask(f"/api/picture?face={job['result']['face']}")[0] == 200
    rows = ask.json("/api/faces")["faces"]
    assert [row["projected"] for row in rows if row["name"] == job["result"]["face"]] == [True]
    broken = ask("/api/photographs?name=a.png", b"this is no photograph")
    assert wait_for(ask, json.loads(broken[2])["job"])["state"] == "failed"


def test_a_face_is_kept_and_shown_again(ask: Asker) -> None:
    kept = ask.json("/api/faces", {"state": {"seed": 5, "psi": 0.5}, "name": "Anna"})
    listed = [row for row in ask.json("/api/faces")["faces"] if not row["projected"]]

    assert listed == [{"name": kept["face"], "title": "Anna", "projected": False}]
    assert ask(f"/api/picture?face={kept['face']}")[0] == 200
    refused = ask("/api/faces", b'{"state": {"seed": 5}, "name": "../x"}')
    assert refused[0] == 404 and b"../x" in refused[2]
    again = ask("/api/faces", b'{"state": {"seed": 6}, "name": "Anna"}')
    assert again[0] == 400 and b"Anna" in again[2]  # what refers to it shows whom it showed


def test_where_no_face_is_found_the_page_says_what_to_untick(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylecli.cli import explore
    from stylecli.data.alignment.portrait import NoFaceError
    from stylecli.errors import DataError

    def find_none(source: Any, path: Path, **how: Any) -> None:
        raise NoFaceError(path)

    monkeypatch.setattr(explore, "project_once", find_none)
    asked = {"network": str(folder / "net.safetensors"), "device": "cpu", "align": True,
             "photo": "out/net/photographs/me-0123.jpg", "name": "me.jpg"}  # fmt: skip
    with pytest.raises(DataError) as refused:
        explore.Studio().project(asked, lambda event, content=b"", **facts: None)

    assert "me.jpg" in str(refused.value) and explore.FIND_THE_FACE in str(refused.value)
    page = Path(explore.__file__).parents[1] / "explorer" / "page" / "faces.js"
    assert f'"{explore.FIND_THE_FACE}"' in page.read_text("utf-8")


def test_progress_is_counted_in_words() -> None:
    from stylecli.cli.explore import _Reporting

    said: list[Any] = []
    reporting = _Reporting(lambda event, content=b"", **facts: said.append(facts["note"]))
    with reporting.progress("project me.jpg", "steps") as progress:
        progress(3, 270, "distance 0.250")
        progress(4, 270)

    assert said == ["3 of 270 steps, distance 0.250", "4 of 270 steps"]


def wait_for(ask: Asker, job: str) -> Any:
    """Return a job when it has ended."""
    while True:
        found = ask.json(f"/api/jobs/{job}")
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.1)


def test_an_empty_host_is_not_every_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable of the shell that is not set would have it."""
    monkeypatch.chdir(folder)
    refused = CliRunner().invoke(app, ["explore", "--no-open", "--host", ""])
    assert refused.exit_code == 2 and "--host is empty" in refused.stderr


def test_without_the_token_nothing_is_said(ask: Asker) -> None:
    stranger = Asker(ask.address, "guess")

    assert stranger("/api/networks")[0] == 401
    assert b"net.safetensors" not in stranger("/api/networks")[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ssh sessions are told by their variables")
def test_over_ssh_the_forwarding_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from stylecli.cli.explore import forwarding

    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.2 50000 10.0.0.1 22")
    monkeypatch.setenv("USER", "ann")

    assert forwarding(8765) == "ssh -L 8765:127.0.0.1:8765 ann@10.0.0.1"
