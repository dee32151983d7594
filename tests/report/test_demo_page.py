"""The demo's page: your network beside the shipped one, durations in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylecli import shipped
from stylecli.images import save_png
from stylecli.networks.model import Bundle, new_network
from stylecli.report.content import Picture, Table
from stylecli.report.demo_page import WaitingPage, compare_with_shipped, draw_side_by_side

SMALL = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "fmap_base": 64, "fmap_max": 8}


@pytest.fixture
def net() -> Bundle:
    return new_network("f", resolution=16, mapping_fmaps=8, **SMALL)


def test_both_networks_are_drawn_and_told(net: Bundle) -> None:
    results = [{"name": "kid@efficientnet-lite0", "value": 0.25, "std": 0.0}]
    (section,) = compare_with_shipped(net, 64.7, 300.0, results)
    picture, table = section.blocks[0], section.blocks[1]
    assert isinstance(picture, Picture)
    assert isinstance(table, Table)
    assert picture.provenance is not None
    assert picture.provenance["network"]["file"] == "shipped"
    sheet = picture.source
    assert isinstance(sheet, np.ndarray)
    assert np.any(sheet[-64:, -64:] != 255)  # the shipped network's faces fill their half
    yours, theirs = table.rows
    assert yours[:4] == ("yours", "64,700", "5 minutes", "0.25")
    assert theirs[1] == f"{shipped.read_record()['kimg'] * 1000:,.0f}"
    assert "Johan Melin" in " ".join(section.paragraphs)


def test_sheets_of_different_resolutions_have_one_height(net: Bundle) -> None:
    larger = new_network("f", resolution=128, mapping_fmaps=8, **SMALL)
    sheet = draw_side_by_side(net, larger)
    assert sheet.shape == (768, 768 + 24 + 768, 3)
    assert np.all(sheet[:, 768:792] == 255)
    assert sheet[:, 792:].std() > 1


def test_a_copy_without_a_shipped_network_has_no_such_section(
    net: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "shipped_network", lambda: None)
    assert compare_with_shipped(net, 1.0, 1.0, []) == []


def test_faces_can_be_looked_at_before_there_are_own_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = WaitingPage(tmp_path)
    waiting.write("This computer draws faces.")
    page = waiting.path.read_text()
    assert '<meta http-equiv="refresh"' in page
    assert "This computer draws faces." in page
    assert "Your network so far" not in page
    faces = waiting.first_faces(2)
    assert faces.shape[1] == 2 * faces.shape[0]
    assert faces[:, : faces.shape[0]].std() > 1

    seen: list[Any] = []
    report = waiting.follow(lambda *values: seen.append(values))
    report(1, 4, "8 px")
    assert seen == [(1, 4, "8 px")]
    assert waiting.path.read_text() == page  # nothing new: not written again
    (tmp_path / "run").mkdir()
    for nimg in ("000002000", "000001000"):
        save_png(tmp_path / "run" / f"fakes{nimg}.png", faces)
    monkeypatch.setattr("stylecli.report.demo_page.LOOK_SECONDS", 0.0)
    waiting.follow(lambda *values: None)(2, 4)
    assert waiting.path.read_text() == page  # it looks only now and then
    waiting._next_look = 0.0
    report(3, 4)
    written = waiting.path.read_text()
    assert written.index("1.0 kimg") < written.index("2.0 kimg")  # the slider shows the last
