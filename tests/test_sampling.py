"""Seeds to pictures: what a seed means, and that nothing but it decides, no batch size either."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli import rendering
from stylecli.errors import UsageError
from stylecli.rendering import Drawing, chunk_size, render, seed_noise
from stylecli.sampling import check_drawing, find_centre, map_seeds, mix_ws, one_hot, seed_latents
from stylecli.saved_ws import save_ws


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

    with pytest.raises(UsageError, match="unknown precision 'half'"):
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


@pytest.fixture
def labelled_network(tiny_config_fields: dict[str, Any]) -> Any:
    return stylecli.new_network("f", label_dim=3, **tiny_config_fields)


def test_a_seed_is_the_latent_of_the_official_tools() -> None:
    expected = np.random.RandomState(7).randn(1, 8).astype(np.float32)

    np.testing.assert_array_equal(seed_latents([3, 7], 8)[1:].numpy(), expected)


def test_pictures_are_those_of_the_generator(tiny_network: Any) -> None:
    G, z = tiny_network.G_ema, seed_latents([0, 1], 8)
    with torch.no_grad():
        images = G(z, truncation_psi=0.5, truncation_cutoff=2)

    pictures = _draw(tiny_network, [0, 1], psi=0.5, psi_cutoff=2)

    np.testing.assert_array_equal(pictures, stylecli.images.to_uint8(images))


def test_noise_seed_decides_the_noise_and_the_seed_the_rest(tiny_network: Any) -> None:
    own = _draw(tiny_network, [1], noise_mode="random")
    same = _draw(tiny_network, [1], noise_mode="random", noise_seed=1)
    other = _draw(tiny_network, [1], noise_mode="random", noise_seed=2)

    np.testing.assert_array_equal(own, same)
    assert (own != other).any()


def test_psi_zero_is_the_average_for_every_seed(tiny_network: Any) -> None:
    tiny_network.G_ema.mapping.w_avg.fill_(0.3)

    ws = map_seeds(tiny_network.G_ema, [1, 2], psi=0.0)

    torch.testing.assert_close(ws, torch.full_like(ws, 0.3))


def test_labelled_networks_show_their_classes_in_turn(labelled_network: Any) -> None:
    in_turn = map_seeds(labelled_network.G_ema, [3, 4])
    second = map_seeds(labelled_network.G_ema, [3, 4], label=1)

    assert not torch.equal(in_turn[0], second[0])  # seed 3 is of class 0
    assert torch.equal(in_turn[1], second[1])  # seed 4 is of class 1


def test_labels_that_do_not_exist_are_refused(tiny_network: Any, labelled_network: Any) -> None:
    assert one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(UsageError, match="label 3 does not exist: this network has classes 0 to 2"):
        stylecli.generate(labelled_network, [0], label=3)
    with pytest.raises(UsageError, match="without labels"):
        stylecli.generate(tiny_network, [0], label=0)


def test_truncation_without_w_is_refused_at_once(tiny_config_fields: dict[str, Any]) -> None:
    traditional = stylecli.new_network("b", **tiny_config_fields)

    assert _draw(traditional, [0]).shape == (1, 16, 16, 3)
    with pytest.raises(UsageError, match=r"psi 0\.7 needs an intermediate latent space"):
        stylecli.generate(traditional, [0], psi=0.7)


def test_mixed_styles_come_from_both(tiny_network: Any) -> None:
    rows, columns = map_seeds(tiny_network.G_ema, [1, 2]).split(1)

    mixed = mix_ws(rows, columns, [0, 1])

    assert torch.equal(mixed[:, :2], columns[:, :2])
    assert torch.equal(mixed[:, 2:], rows[:, 2:])


def test_several_psi_are_one_per_layer(tiny_network: Any) -> None:
    G = tiny_network.G_ema
    G.mapping.w_avg.fill_(0.3)
    full, half = map_seeds(G, [1], psi=1.0), map_seeds(G, [1], psi=0.5)

    ws = map_seeds(G, [1], psi=[0.5, 1, 0.5, 1, 0, 0])

    torch.testing.assert_close(ws[:, [0, 2]], half[:, [0, 2]])
    torch.testing.assert_close(ws[:, [1, 3]], full[:, [1, 3]])
    torch.testing.assert_close(ws[:, 4:], torch.full_like(ws[:, 4:], 0.3))
    with pytest.raises(UsageError, match="2 psi are given: this network has 6 layers"):
        map_seeds(G, [1], psi=[0.5, 0.7])


def test_psi_zero_towards_a_seed_is_that_seed(tiny_network: Any) -> None:
    centre = find_centre(tiny_network, "42")

    ws = map_seeds(tiny_network.G_ema, [1, 2], psi=0.0, centre=centre)

    torch.testing.assert_close(ws, map_seeds(tiny_network.G_ema, [42, 42]))
    assert centre.shape == (1, 8)


def test_pictures_like_a_seed_have_its_class(labelled_network: Any) -> None:
    own = list(stylecli.generate(labelled_network, [4, 5], label=1, like=4, vary=0.5))
    likened = list(
        stylecli.generate(labelled_network, [4, 5], like=4, vary=0.5)
    )  # 4 is of class 1 of 3

    assert all((a == b).all() for (_, a), (_, b) in zip(own, likened, strict=True))
    with pytest.raises(UsageError, match="vary -1 is out of range"):
        stylecli.generate(labelled_network, [4], like=4, vary=-1)


def test_likeness_needs_w(tiny_config_fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs an intermediate latent space"):
        stylecli.generate(stylecli.new_network("b", **tiny_config_fields), [4], like=4)


def test_a_file_is_a_centre_layer_by_layer(tiny_network: Any, tmp_path: Path) -> None:
    a, b = map_seeds(tiny_network.G_ema, [1, 2]).split(1)
    mixed = mix_ws(a, b, [0, 1])
    save_ws(tmp_path / "mixed.npz", mixed)
    save_ws(tmp_path / "both.npz", torch.cat([a, b]))

    assert torch.equal(find_centre(tiny_network, str(tmp_path / "mixed.npz")), mixed)
    middle = find_centre(tiny_network, str(tmp_path / "both.npz"))
    torch.testing.assert_close(middle, (a[:, 0] + b[:, 0]) / 2)
    ws = map_seeds(tiny_network.G_ema, [5], psi=0.0, centre=mixed)
    torch.testing.assert_close(ws, mixed)


def test_the_centre_of_a_class_is_its_mean(labelled_network: Any) -> None:
    G = labelled_network.G_ema
    many = map_seeds(G, range(400), label=1)[:, 0]

    centre = find_centre(labelled_network, "class:1")

    spread = many.std(dim=0) / 400**0.5
    assert bool(((centre[0] - many.mean(dim=0)).abs() < 6 * spread).all())


def test_every_class_is_truncated_towards_its_own_centre(labelled_network: Any) -> None:
    centres = find_centre(labelled_network, "class")

    ws = map_seeds(labelled_network.G_ema, [3, 4], psi=0.0, centre=centres)

    assert centres.shape == (3, 8)
    torch.testing.assert_close(ws[:, 0], centres[:2])  # seeds 3 and 4 are of classes 0 and 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("class", "without labels"), ("class:x", "class:x"), ("99999999999", "out of range")],
)
def test_centres_that_do_not_exist_are_refused(tiny_network: Any, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_centre(tiny_network, text)


def test_a_centre_needs_w(tiny_config_fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'b' has none: leave out --center"):
        find_centre(stylecli.new_network("b", **tiny_config_fields), "1")


WIDE = {"resolution": 16, "fmap_base": 8192, "fmap_max": 512, "z_dim": 512, "w_dim": 512,
        "mapping_layers": 8, "mapping_fmaps": 512}  # fmt: skip


@pytest.mark.parametrize("case", ["labels", pytest.param("wide", marks=pytest.mark.slow)])
def test_neither_with_labels_nor_in_wide_layers(
    tiny_config_fields: dict[str, Any], case: str
) -> None:
    if case == "wide":  # the widths of a 1024 px network, and its mapping
        net = stylecli.new_network("f", **WIDE)
    else:
        net = stylecli.new_network("f", label_dim=3, **tiny_config_fields)
    with torch.no_grad():
        for layer in net.G_ema.synthesis.layers:
            layer.noise_strength.fill_(0.1)
    options: dict[str, Any] = {"psi": 0.7, "noise_mode": "random"}

    alone = np.concatenate([_draw(net, [seed], **options) for seed in range(5)])

    for batch in (3, 8):
        np.testing.assert_array_equal(_draw(net, list(range(5)), batch=batch, **options), alone)


@pytest.mark.parametrize(
    ("field", "value"), [("psi_cutoff", -1), ("label", 3), ("lod", 9), ("psi", [0.5, 0.5])]
)
def test_a_drawing_that_the_network_cannot_follow_is_refused(
    tiny_network: Any, field: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=str(value if field != "psi" else len(value))):
        check_drawing(tiny_network.config, Drawing(**{field: value}))


def test_what_preparing_took_is_given_back(tiny_network: Any, monkeypatch: Any) -> None:
    order: list[str] = []
    monkeypatch.setattr(rendering, "give_back", lambda: order.append("given back"))
    freeze = rendering.freeze_synthesis
    monkeypatch.setattr(
        rendering, "freeze_synthesis", lambda *how: (order.append("prepared"), freeze(*how))[1]
    )
    rendering.prepare_synthesis(tiny_network.generator)
    assert order == ["prepared", "given back"]
