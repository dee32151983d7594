"""Published networks: nothing is fetched unasked, and nothing is kept that is another network."""

import functools
import http.server
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


@pytest.fixture
def served(tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    handler = functools.partial(Quiet, directory=str(FIXTURES / "official"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


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


def test_a_file_is_kept_where_it_holds_the_network(served: str, monkeypatch: Any) -> None:
    small = replace(PUBLISHED["stylegan3-r-ffhqu-256"], name="small", resolution=32)
    monkeypatch.setattr(published_networks, "PUBLISHED", {"small": small})
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
