"""Styles to pictures: in chunks that no batch size changes, at a precision that is asked for."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli import rendering
from stylecli.errors import UsageError
from stylecli.rendering import Drawing, chunk_size, render, seed_noise
from stylecli.sampling import map_seeds


def _draw(network: Any, seeds: list[int], **options: Any) -> np.ndarray:
    return np.stack([picture for _, picture in stylecli.generate(network, seeds, **options)])


def test_noise_has_one_map_per_layer_and_leaves_the_global_state_alone(tiny_network: Any) -> None:
    before = torch.get_rng_state()

    first, second = seed_noise(tiny_network.G_ema, 4), seed_noise(tiny_network.G_ema, 4)

    assert [tuple(m.shape[2:]) for m in first] == [(4, 4)] * 2 + [(8, 8)] * 2 + [(16, 16)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_a_picture_does_not_depend_on_its_company(tiny_network: Any, noise_mode: Any) -> None:
    seeds = list(range(9))
    together = _draw(tiny_network, seeds, psi=0.7, noise_mode=noise_mode)

    for batch in (1, 3, 8):
        others = _draw(tiny_network, seeds, psi=0.7, noise_mode=noise_mode, batch=batch)
        np.testing.assert_array_equal(others, together)
    for seed in (4, 5):  # each place in a pair
        alone = _draw(tiny_network, [seed], psi=0.7, noise_mode=noise_mode)
        np.testing.assert_array_equal(alone[0], together[seed])


def test_rendering_reads_styles_as_pictures_are_taken(tiny_network: Any) -> None:
    ws = map_seeds(tiny_network.G_ema, [0])[0]
    read = []

    def endless() -> Any:
        while True:
            read.append(1)
            yield ws

    next(render(tiny_network.G_ema, endless(), drawing=Drawing(batch=1)))

    assert len(read) == chunk_size(tiny_network.G_ema)


@pytest.mark.parametrize("values", [1, 1 << 12])
def test_batches_change_no_picture_whatever_the_chunk(
    tiny_network: Any, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr(rendering, "_CHUNK_VALUES", values)
    size = chunk_size(tiny_network.G_ema)

    one, three = (_draw(tiny_network, list(range(5)), batch=batch) for batch in (1, 3))

    assert size == (1 if values == 1 else 2)
    np.testing.assert_array_equal(one, three)


def test_a_network_drawn_from_while_it_trains_shows_its_new_weights(tiny_network: Any) -> None:
    before = _draw(tiny_network, [0])
    with torch.no_grad():
        tiny_network.G_ema.synthesis.layers[0].bias.add_(torch.linspace(-1, 1, 8))

    assert (_draw(tiny_network, [0]) != before).any()


def test_bfloat16_draws_nearly_the_same_picture(tiny_network: Any) -> None:
    exact, quick = (
        _draw(tiny_network, [0, 1], precision=precision).astype(float)
        for precision in ("float32", "bf16")
    )

    assert 0 < np.abs(exact - quick).mean() < 2  # grey levels


def test_an_unknown_precision_is_refused_at_once(tiny_network: Any) -> None:
    ws = map_seeds(tiny_network.G_ema, [0])

    with pytest.raises(UsageError, match="precision 'half' is unknown: expected float32 or bf16"):
        render(tiny_network.G_ema, ws, drawing=Drawing(precision="half"))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [{"noise_mode": "often"}, {"precision": "int8"}])
def test_a_drawing_of_unknown_kind_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(field.values()))):
        Drawing(**field)


def test_a_noise_seed_of_the_drawing_serves_all_pictures(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    ws = G.mapping(torch.zeros(2, 8)).detach()  # the same face twice

    own = list(render(G, ws, Drawing(noise_mode="random"), noise_seeds=[3, 4]))
    same = list(render(G, ws, Drawing(noise_mode="random", noise_seed=4), noise_seeds=[3, 4]))

    assert (own[0] != own[1]).any() and (same[0] == same[1]).all()
    assert (same[0] == own[1]).all()
