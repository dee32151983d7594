"""Which layers the words coarse, middle and fine mean."""

import pytest

from stylecli.errors import UsageError
from stylecli.styles import style_bands, style_layers


def test_bands_are_those_of_the_paper() -> None:
    bands = {name: (layers[0], layers[-1]) for name, layers in style_bands(1024).items()}

    assert bands == {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 17)}


def test_small_networks_call_their_last_resolution_fine() -> None:
    assert style_bands(32) == {"coarse": [0, 1, 2, 3], "middle": [4, 5], "fine": [6, 7]}
    assert style_bands(16) == {"coarse": [0, 1, 2, 3], "fine": [4, 5]}


@pytest.mark.parametrize("resolution", [4, 8, 16, 64, 128, 512])
def test_bands_cover_every_layer_once(resolution: int) -> None:
    layers = [layer for band in style_bands(resolution).values() for layer in band]

    assert layers == list(range(2 * (resolution.bit_length() - 1) - 2))


def test_words_and_ranges_mix() -> None:
    assert style_layers("Fine, 0-1,1", 32) == [0, 1, 6, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bold", "expected coarse, middle, fine or layers such as 0-3"),
        ("", "are not readable at ''"),
        ("2-6", "a 16 px network has layers 0-5"),
        ("middle", "a 16 px network has no middle styles"),
    ],
)
def test_other_styles_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        style_layers(text, 16)
