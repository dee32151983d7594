"""Downloads from a server on this machine: whole, broken off, resumed, wrong, missing."""

import hashlib
import http.server
import re
import threading

import pytest

from stylecli.downloading import download
from stylecli.errors import WeightsError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; ``server.breaks`` answers end after 100,000 bytes."""

    def do_GET(self):  # the library's name
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if self.server.ignores_ranges:
            start = 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT)
        if self.server.breaks:
            self.server.breaks -= 1
            stop = start + 100_000
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.breaks, server.ranges, server.ignores_ranges = 0, [], False
        server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("stylecli.downloading.time.sleep", lambda seconds: None)


def test_a_file_arrives_whole_with_progress_in_megabytes(server, tmp_path):
    told = []
    path = download(
        server.url, tmp_path / "w", sha256=SHA256, progress=lambda *args: told.append(args)
    )
    assert path.read_bytes() == CONTENT and [p.name for p in tmp_path.iterdir()] == ["w"]
    assert told[-1] == (len(CONTENT) / 1e6, len(CONTENT) / 1e6)
    download(server.url, path, sha256=SHA256)
    assert len(server.ranges) == 1  # what is here already is not fetched again


def test_a_broken_connection_is_resumed_where_it_ended(server, tmp_path):
    server.breaks = 2
    assert download(server.url, tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_what_came_is_kept_for_the_next_call(server, tmp_path):
    server.breaks = 1
    with pytest.raises(WeightsError, match=r"100,000 bytes are kept .*: run the same command"):
        download(server.url, tmp_path / "w", sha256=SHA256, attempts=1)
    assert not (tmp_path / "w").exists()
    assert download(server.url, tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


def test_a_server_without_ranges_sends_everything_again(server, tmp_path):
    server.ignores_ranges = True
    (tmp_path / "w.part").write_bytes(b"other bytes")
    assert download(server.url, tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "w.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT


def test_another_file_is_refused_and_set_aside(server, tmp_path):
    with pytest.raises(WeightsError, match=r"expected 0000.*it is not used and kept as"):
        download(server.url, tmp_path / "w", sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == ["w.rejected"]
    assert download(server.url, tmp_path / "w", sha256=SHA256).is_file()


@pytest.mark.parametrize("address", ["missing", None, "file:///etc/hostname"])
def test_no_file_is_one_sentence(server, tmp_path, address):
    url = server.url.replace("weights.pth", "missing") if address == "missing" else address
    with pytest.raises(WeightsError, match=r"HTTP 404|could not be fetched|no address"):
        download(url or "http://127.0.0.1:9/w", tmp_path / "w", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []
