"""A server whose pictures are words, for tests of who may ask and of what is drawn."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra is not installed: pip install '.[explore]'")
pytest.importorskip("httpx", reason="the development extra is not installed: pip install '.[dev]'")

from starlette.testclient import TestClient

from stylecli.explorer.server import Explorer
from stylecli.explorer.workplace import Workplace

HERE = "http://127.0.0.1:8765"
ROOT = Path(__file__).parents[2]


def start_plain() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.explorer.plain_worker"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture
def explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    monkeypatch.chdir(tmp_path)
    Path("net.safetensors").write_bytes(b"a network that nobody opens here")
    return Explorer(start_plain, Workplace(Path("net.safetensors")))


@pytest.fixture
def client(explorer: Explorer) -> Iterator[TestClient]:
    headers = {"X-Stylecli-Token": explorer.token}
    with TestClient(explorer.make_app(), HERE, headers=headers) as client:
        yield client
