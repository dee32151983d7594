"""The demo's page: your network beside the shipped one, durations in words."""

import numpy as np
import pytest

from stylecli import shipped
from stylecli.networks.model import Bundle, new_network
from stylecli.report.content import Picture, Table
from stylecli.report.demo_page import compare_with_shipped, draw_side_by_side

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
    yours, theirs = table.rows
    assert yours[:4] == ("yours", "64,700", "5 minutes", "0.25")
    assert theirs[1] == f"{shipped.read_record()['kimg'] * 1000:,.0f}"
    assert "Johan Melin" in " ".join(section.paragraphs)


def test_sheets_of_different_resolutions_have_one_height(net: Bundle) -> None:
    larger = new_network("f", resolution=128, mapping_fmaps=8, **SMALL)
    sheet = draw_side_by_side(net, larger)
    assert sheet.shape == (576, 576 + 24 + 576, 3)
    assert np.all(sheet[:, 576:600] == 255)
    assert sheet[:, 600:].std() > 1


def test_a_copy_without_a_shipped_network_has_no_such_section(
    net: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "shipped_network", lambda: None)
    assert compare_with_shipped(net, 1.0, 1.0, []) == []
