"""What is remembered of a generator that does not change, and its smaller pictures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli import rendering
from stylecli.errors import UsageError
from stylecli.rendering import Drawing, hold_still, render, seed_noise
from stylecli.sampling import check_drawing, draw_seeds, seed_ws

HOW = Drawing(psi=0.5, noise_mode="random", noise_seed=3)


def test_a_generator_that_holds_still_draws_the_same_and_is_prepared_once(
    tiny_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = (picture for _, picture in draw_seeds(tiny_network, [5], HOW))
    prepared = []
    freeze = rendering.freeze_synthesis
    monkeypatch.setattr(
        rendering, "freeze_synthesis", lambda *how: (prepared.append(how), freeze(*how))[1]
    )

    hold_still(tiny_network.generator)
    for _ in range(3):
        (picture,) = (picture for _, picture in draw_seeds(tiny_network, [5], HOW))
        assert np.array_equal(picture, expected)
    assert len(prepared) == 1

    with torch.no_grad():
        tiny_network.generator.synthesis.to_rgb[-1].bias.add_(0.5)
    hold_still(tiny_network.generator)
    (changed,) = (picture for _, picture in draw_seeds(tiny_network, [5], HOW))
    assert not np.array_equal(changed, expected) and len(prepared) == 2


def test_what_is_remembered_has_an_end_and_is_not_handed_out_changed(tiny_network: Any) -> None:
    G = tiny_network.generator
    plain = [next(seed_ws(G, [seed], psi=0.3)) for seed in range(200)]
    hold_still(G)
    held = [next(seed_ws(G, [seed], psi=0.3)) for seed in (*range(200), *range(200))]
    noises = [seed_noise(G, seed) for seed in range(20)]

    assert all(torch.equal(a, b) for a, b in zip([*plain, *plain], held, strict=True))
    kept = rendering._held[G]
    assert len(kept.styles) == 64 and len(kept.noise) == 4
    assert torch.equal(noises[7][0], seed_noise(G, 7)[0])


SMALL = {"resolution": 64, "fmap_base": 256, "fmap_max": 8, "z_dim": 8, "w_dim": 8}


def test_a_preview_is_the_picture_without_its_details() -> None:
    """The colours of the two highest resolutions are all that it lacks."""
    net = stylecli.new_network("stylegan2", seed=1, **SMALL)
    G = net.generator
    ws = list(seed_ws(G, [5]))
    (preview,) = render(G, ws, Drawing(preview=True))
    plain = G.synthesis(torch.stack(ws), halvings=2)

    with torch.no_grad():
        for block in G.synthesis.blocks[-2:]:
            block.torgb.weight.zero_()
            block.torgb.bias.zero_()
        coarse = G.synthesis(torch.stack(ws))[0]
    low = torch.nn.functional.avg_pool2d(coarse, 4).clamp(-1, 1)
    shown = torch.from_numpy(preview).permute(2, 0, 1) / 127.5 - 1

    assert preview.shape == (16, 16, 3) and plain.shape == (1, 3, 16, 16)
    inside = (slice(None), slice(1, -1), slice(1, -1))  # filters see nothing beyond the edge
    assert (low - shown)[inside].abs().mean() < 0.1 * shown.std()


def test_a_network_without_a_true_preview_refuses(tiny_network: Any) -> None:
    drawing = replace(HOW, preview=True)

    with pytest.raises(UsageError, match="smaller picture"):
        check_drawing(tiny_network.config, drawing)
