"""Which layers the words coarse, middle and fine mean."""

import pytest

from stylecli.errors import UsageError
from stylecli.networks.registry import make_config
from stylecli.styles import band_rows, name_layers, style_bands, style_layers


def sides_of(resolution: int) -> list[int]:
    """Sides of the layers of a StyleGAN of this size."""
    return make_config("f", resolution=resolution).layer_sides


def test_bands_are_those_of_the_paper() -> None:
    bands = {name: (layers[0], layers[-1]) for name, layers in style_bands(sides_of(1024)).items()}

    assert bands == {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 17)}


def test_small_networks_call_their_last_resolution_fine() -> None:
    assert style_bands(sides_of(32)) == {"coarse": [0, 1, 2, 3], "middle": [4, 5], "fine": [6, 7]}
    assert style_bands(sides_of(16)) == {"coarse": [0, 1, 2, 3], "fine": [4, 5]}


@pytest.mark.parametrize("resolution", [4, 8, 16, 64, 128, 512])
def test_bands_cover_every_layer_once(resolution: int) -> None:
    layers = [layer for band in style_bands(sides_of(resolution)).values() for layer in band]

    assert layers == list(range(2 * (resolution.bit_length() - 1) - 2))


def test_words_and_ranges_mix() -> None:
    assert style_layers("Fine, 0-1,1", sides_of(32)) == [0, 1, 6, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bold", "expected coarse, middle, fine or layers such as 0-3"),
        ("", "cannot read ''"),
        ("2-6", "this network has layers 0-5"),
        ("middle", "this network has no middle styles"),
    ],
)
def test_other_styles_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        style_layers(text, sides_of(16))


def test_layers_beyond_the_network_are_left_out_where_told() -> None:
    told: list[str] = []

    assert style_layers("coarse,6-17", sides_of(32), clamp=told.append) == [0, 1, 2, 3, 6, 7]
    assert told == [
        "styles 'coarse,6-17' name layer 17: this network has layers 0-7: using 0-3,6-7"
    ]
    with pytest.raises(UsageError, match="name layer 9"):
        style_layers("8-9", sides_of(32), clamp=told.append)


def test_layers_have_the_name_of_their_band() -> None:
    assert name_layers([6, 7], sides_of(32)) == "fine"
    assert (
        name_layers([7, 0, 1], sides_of(32)) == "0-1,7" and name_layers([], sides_of(32)) == "none"
    )


def test_bands_of_rows_are_those_of_figure_3() -> None:
    coarse, middle, fine = [0, 1, 2, 3], [4, 5, 6, 7], list(range(8, 18))

    rows = [coarse] * 3 + [middle] * 2 + [fine]
    assert band_rows("coarse:3,middle:2,fine:1", sides_of(1024)) == rows
    assert band_rows("0-3:3,4,5,6-7:2,fine:1", sides_of(1024), 6) == rows


def test_bands_without_numbers_share_the_rows() -> None:
    counts = [len(layers) for layers in band_rows("coarse,middle,fine", sides_of(32), 5)]

    assert counts == [4, 4, 2, 2, 2]
    assert len(band_rows("coarse,middle,fine", sides_of(32))) == 3


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("coarse:3,fine:1", 5, "have 4 rows, but 5 are asked for"),
        ("coarse:0", None, "'coarse' in 'coarse:0' gets 0 rows"),
        ("coarse:1.5", None, "gets 1.5 rows"),
        ("coarse,middle,fine", 2, "'fine' in 'coarse,middle,fine' gets 0 rows"),
        ("coarse:1,fine", None, "'fine' in 'coarse:1,fine' has no number"),
    ],
)
def test_bands_that_make_no_sheet_are_refused(text: str, rows: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        band_rows(text, sides_of(32), rows)
