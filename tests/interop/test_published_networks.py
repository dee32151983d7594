"""Published networks: nothing is fetched unasked, and nothing is kept that is another network."""

import contextlib
import functools
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.errors import ExitCode, UsageError, WeightsError
from stylecli.interop import published_networks
from stylecli.interop.published_networks import PUBLISHED, fetch_network
from stylecli.networks.registry import list_presets
from tests.conftest import FIXTURES


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the official files."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Halving(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``, parts of them too; those in ``server.broken`` end in the middle."""

    def do_GET(self) -> None:  # the library's name
        server: Any = self.server
        server.asked.append(self.path)
        content = server.files[self.path]
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) // 2 if self.path in server.broken else len(content)
        self.wfile.write(content[start:stop])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(handler: Any) -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with serving(functools.partial(Quiet, directory=str(FIXTURES / "official"))) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_every_row_is_of_a_family_that_is_trained_here() -> None:
    for row in PUBLISHED.values():
        assert row.family in list_presets()
        assert row.address.startswith("https://") and row.licence and row.resolution >= 32


def test_an_address_that_was_not_checked_is_the_users_to_give() -> None:
    with pytest.raises(WeightsError, match=r"fetch afhqcat --url https://.*afhqcat\.pkl") as caught:
        fetch_network("afhqcat")
    assert caught.value.exit_code is ExitCode.UNUSABLE
    with pytest.raises(UsageError, match=r"'afhqkat'.*afhqcat"):
        fetch_network("afhqkat")


@pytest.fixture
def small(monkeypatch: Any) -> None:
    row = replace(PUBLISHED["stylegan3-r-ffhqu-256"], name="small", resolution=32)
    monkeypatch.setattr(published_networks, "PUBLISHED", {"small": row})


@pytest.mark.usefixtures("small")
def test_a_file_is_kept_where_it_holds_the_network(served: str) -> None:
    path = fetch_network("small", url=f"{served}/stylegan3_r_snapshot.pkl")
    assert path.read_bytes() == (FIXTURES / "official/stylegan3_r_snapshot.pkl").read_bytes()


@pytest.mark.parametrize(
    ("name", "file"),
    [("afhqcat", "stylegan2_labels_snapshot.pkl"), ("ffhq256", "stylegan3_r_snapshot.pkl"),
     ("ffhq256", "r3gan.json")],
)  # fmt: skip
def test_another_file_is_put_aside(name: str, file: str, served: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"pkl\.rejected is not used.*--url"):
        fetch_network(name, url=f"{served}/{file}")
    kept = [path.name for path in (tmp_path / "cache" / "networks").iterdir()]
    assert kept == [f"{name}.pkl.rejected"]


@pytest.mark.usefixtures("small")
def test_what_another_address_began_is_not_continued(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("stylecli.weights.time.sleep", lambda seconds: None)
    one = (FIXTURES / "official/stylegan3_r_snapshot.pkl").read_bytes()
    changed = bytearray(one)
    changed[len(one) // 3] ^= 1  # of a weight: a network of the same shapes
    other = bytes(changed)
    with serving(Halving) as server:
        server.files, server.broken, server.asked = {"/one": one, "/other": other}, {"/one"}, []
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(WeightsError, match="run the same command to continue"):
            fetch_network("small", url=f"{address}/one")
        path = fetch_network("small", url=f"{address}/other")
        assert path.name == "small.pkl" and path.read_bytes() == other

        server.broken, server.asked = set(), []
        assert fetch_network("small", url=f"{address}/one").read_bytes() == one  # its own half
        assert fetch_network("small", url=f"{address}/one") == path
        assert server.asked == ["/one"]  # what is here is not fetched again
        path.write_bytes(other)
        assert fetch_network("small", url=f"{address}/one").read_bytes() == one
    assert sorted(file.name for file in path.parent.iterdir()) == ["small.json", "small.pkl"]


@pytest.mark.usefixtures("small")
def test_a_file_has_its_name_only_once_it_was_checked(served: str, tmp_path: Path) -> None:
    path = fetch_network("small", url=f"{served}/stylegan3_r_snapshot.pkl")
    kept = path.read_bytes()
    with pytest.raises(WeightsError, match=r"small\.pkl\.rejected"):
        fetch_network("small", url=f"{served}/r3gan.json")
    assert path.read_bytes() == kept
