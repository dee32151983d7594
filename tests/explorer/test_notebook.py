"""``stylecli.explore`` in a notebook: a frame with the page, and a server that ends with it."""

import urllib.request
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import stylecli
from stylecli.errors import StyleCLIError


def test_a_notebook_shows_the_page_of_a_loaded_network(
    tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with stylecli.explore(tiny_network, device="cpu", height=500) as page:
        shown, server = page._repr_html_(), page._server
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(page.address.replace("#", "x#"), timeout=30)
        missing.value.close()

    assert 'height="500"' in shown and f'src="{page.address}"' in unescape(shown)
    assert "frame-ancestors http://localhost:*" in missing.value.headers["content-security-policy"]
    assert server.returncode == 0
    assert not list(tmp_path.iterdir())


def test_what_the_command_refuses_is_raised(tmp_path: Path) -> None:
    with pytest.raises(StyleCLIError, match="nope"):
        stylecli.explore(tmp_path / "nope.safetensors")
