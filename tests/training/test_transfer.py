"""Transferred networks draw and see what their source did, wherever they can."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylecli.checkpoint import load_network
from stylecli.errors import UsageError
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.registry import make_config
from stylecli.training.config import TrainingConfig
from stylecli.training.optimizer import describe_frozen, frozen_layers
from stylecli.training.schedule import stage_at
from stylecli.training.step import TrainingStep
from stylecli.training.transfer import grown_resolution, transfer_networks
from stylecli.training.transfer_table import describe_transfer

PICKLES = Path(__file__).parent.parent / "fixtures" / "official"
CONFIGS = ("f", "mapping-0", "a")


def trained(preset: str, fields: dict[str, Any], **changes: Any) -> Bundle:
    """Return networks with random weights everywhere, so that nothing is zero or one by chance."""
    fields = {**fields, **changes}
    if preset != "f":
        del fields["mapping_layers"]
    net = new_network(preset, **fields)
    generator = torch.Generator().manual_seed(1)
    for network in (net.G, net.G_ema, net.D):
        for tensor in network.state_dict().values():  # type: ignore[union-attr]
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return net


def draw(net: Bundle, label: int = 0, **options: Any) -> Tensor:
    z = torch.randn(4, net.config.z_dim, generator=torch.Generator().manual_seed(2))
    c = torch.eye(net.config.label_dim)[[label] * 4] if net.config.label_dim else None
    with torch.no_grad():
        return net.generator(z, c, **options)


def see(net: Bundle, pictures: Tensor, label: int = 0) -> Tensor:
    c = torch.eye(net.config.label_dim)[[label] * 4] if net.config.label_dim else None
    with torch.no_grad():
        return net.D(pictures, c)  # type: ignore[misc,no-any-return]


def pictures_of(channels: int) -> Tensor:
    return torch.randn(4, channels, 16, 16, generator=torch.Generator().manual_seed(3))


def moved(source: Bundle, **changes: Any) -> Bundle:
    return transfer_networks(source, replace(source.config, **changes), seed=0).bundle


@pytest.mark.parametrize("preset", CONFIGS)
def test_a_larger_network_draws_the_same_upscaled(
    preset: str, tiny_config_fields: dict[str, Any]
) -> None:
    source = trained(preset, tiny_config_fields)
    larger = moved(source, resolution=64)
    assert (larger.generator.lod, larger.D.lod) == (2.0, 2.0)  # type: ignore[union-attr]
    upscaled = draw(source).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(draw(larger), upscaled)
    assert torch.equal(see(larger, pictures_of(3)), see(source, pictures_of(3)))


def test_a_smaller_network_draws_what_the_source_does_at_that_size(
    tiny_config_fields: dict[str, Any],
) -> None:
    source = trained("f", tiny_config_fields)
    smaller = moved(source, resolution=8)
    assert smaller.generator.lod == 0
    assert torch.equal(draw(smaller), draw(source, lod=1.0)[:, :, ::2, ::2])


def test_a_half_grown_source_goes_on_where_it_was_grown(
    tiny_config_fields: dict[str, Any],
) -> None:
    source = trained("f", tiny_config_fields)
    for network in (source.G, source.G_ema, source.D):
        network.lod = 0.5  # type: ignore[union-attr]
    assert grown_resolution(source) == 8
    assert moved(source, resolution=32).generator.lod == 2.0


@pytest.mark.parametrize("preset", CONFIGS)
def test_added_classes_draw_and_judge_alike_at_first(
    preset: str, tiny_config_fields: dict[str, Any]
) -> None:
    source = trained(preset, tiny_config_fields)
    labelled = moved(source, label_dim=3)
    first = draw(labelled)
    assert all(torch.equal(draw(labelled, label), first) for label in (1, 2))
    # One-hot labels (a) change the length that latents are normalised to, a little.
    tolerance = 0.1 if preset == "a" else 1e-4
    assert torch.allclose(first, draw(source), atol=tolerance)
    for label in range(3):
        assert torch.allclose(
            see(labelled, pictures_of(3), label), see(source, pictures_of(3)), atol=1e-4
        )


def test_added_classes_can_be_told_apart_by_training(tiny_config_fields: dict[str, Any]) -> None:
    labelled = moved(trained("f", tiny_config_fields), label_dim=3)
    assert labelled.G is not None
    z = torch.randn(4, labelled.config.z_dim)
    labelled.G(z, torch.eye(3)[[0, 1, 2, 0]]).square().sum().backward()
    gradient = labelled.G.mapping.label_embedding.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("preset", ["f", "mapping-0"])
def test_dropped_classes_leave_their_mean_behind(
    preset: str, tiny_config_fields: dict[str, Any]
) -> None:
    """Where all classes drew the same, it is drawn without them, too."""
    source = trained(preset, tiny_config_fields, label_dim=3)
    with torch.no_grad():
        for network in (source.G, source.G_ema):
            network.mapping.label_embedding.copy_(  # type: ignore[union-attr]
                torch.ones(3, 1) * network.mapping.label_embedding[:1]  # type: ignore[union-attr]
            )
        source.D.head.dense1.weight[1:] = source.D.head.dense1.weight[:1]  # type: ignore[union-attr]
        source.D.head.dense1.bias[:] = 0.5  # type: ignore[union-attr]
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    z = z / z.square().mean(dim=1, keepdim=True).sqrt()  # its length decides with labels only
    bare = moved(source, label_dim=0)
    with torch.no_grad():
        wanted = source.generator(z, torch.eye(3)[[0, 1, 2, 0]])
        assert torch.allclose(bare.generator(z), wanted, atol=1e-4)
    assert torch.allclose(see(bare, pictures_of(3)), see(source, pictures_of(3)), atol=1e-4)


def test_further_classes_begin_as_the_mean(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields, label_dim=2)
    more = moved(source, label_dim=3)
    assert torch.equal(draw(more, 1), draw(source, 1))
    rows = more.G.mapping.label_embedding  # type: ignore[union-attr]
    assert torch.allclose(rows[2], rows[:2].mean(dim=0))


def test_grey_becomes_rgb_of_equal_channels(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields, channels=1)
    colour = moved(source, channels=3)
    assert torch.allclose(draw(colour), draw(source).expand(-1, 3, -1, -1), atol=1e-6)
    grey = pictures_of(1)
    assert torch.allclose(
        see(colour, grey.expand(-1, 3, -1, -1)), see(source, grey), rtol=1e-4, atol=1e-4
    )


def test_rgb_becomes_grey_by_luma(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields)
    grey = moved(source, channels=1)
    luma = (draw(source) * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(draw(grey), luma, atol=1e-5)
    seen = pictures_of(1)
    assert torch.allclose(
        see(grey, seen), see(source, seen.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )


def test_alpha_is_opaque_where_it_is_new_or_goes(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields)
    rgba = moved(source, channels=4)
    assert torch.equal(draw(rgba)[:, 3], torch.ones(4, 16, 16))
    assert torch.allclose(draw(rgba)[:, :3], draw(source), atol=1e-6)
    again = moved(rgba, channels=3)
    assert torch.allclose(
        see(again, pictures_of(3)), see(source, pictures_of(3)), rtol=1e-4, atol=1e-4
    )


def test_other_widths_keep_what_overlaps(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields)
    wider = moved(source, w_dim=12, fmap_max=16)
    style, old = (net.G.synthesis.layers[1].style for net in (wider, source))  # type: ignore[union-attr]
    half, old_half = len(style.weight) // 2, len(old.weight) // 2
    # Scales and shifts stay apart, and weights act as they did: they are scaled by 1/√fan_in.
    for start, old_start in ((0, 0), (half, old_half)):
        found = style.weight[start : start + old_half, :8] * style.scale
        assert torch.allclose(found, old.weight[old_start : old_start + old_half] * old.scale)


def test_a_missing_network_is_initialised(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields)
    source.D = source.G = None
    transfer = transfer_networks(source, source.config, seed=0)
    assert set(transfer.outcomes["D"].values()) == {"initialised"}
    assert torch.equal(draw(transfer.bundle), draw(source))
    row = describe_transfer(transfer.outcomes, source.config, source.config)[-1]
    assert (row.networks, row.outcome, row.why) == ("D", "initialised", "the source has none")


def test_the_table_names_every_part(tiny_config_fields: dict[str, Any]) -> None:
    source = trained("f", tiny_config_fields, channels=1)
    config = replace(source.config, resolution=32, channels=3, label_dim=2)
    outcomes = transfer_networks(source, config, seed=0).outcomes
    rows = [row.cells() for row in describe_transfer(outcomes, source.config, config)]
    new = "new: the source ends at 16 px"
    assert rows == [
        ("G, G_ema", "mapping", "resized", "classes 0 to 2"),
        ("G, G_ema", "blocks 4-16 px", "taken over", ""),
        ("G, G_ema", "block 32 px", "initialised", new),
        ("G, G_ema", "ToRGB 4-16 px", "resized", "channels 1 to 3"),
        ("G, G_ema", "ToRGB 32 px", "initialised", new),
        ("D", "blocks 8-16 px", "taken over", ""),
        ("D", "block 32 px", "initialised", new),
        ("D", "FromRGB 4-16 px", "resized", "channels 1 to 3"),
        ("D", "FromRGB 32 px", "initialised", new),
        ("D", "head", "resized", "classes 0 to 2"),
    ]


@pytest.mark.parametrize(
    "name", ["stylegan1_labels_G_D_Gs", "stylegan1_auto128_G_D_Gs", "progan_stylegan_repo_G_D_Gs"]
)
def test_official_files_are_sources(name: str) -> None:
    source = load_network(PICKLES / f"{name}.pkl")
    side = 2 * source.config.resolution
    larger = moved(source, resolution=side)
    upscaled = draw(source).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(draw(larger), upscaled)


# Same shapes are copied in every family; the rest is initialised, and the table says why.
OTHERS: dict[str, dict[str, Any]] = {
    "stylegan2": {"w_dim": 8, "mapping_layers": 2},
    "stylegan3-t": {"w_dim": 8, "mapping_layers": 2, "num_layers": 4},
    "r3gan": {"group_fmaps": 4, "embed_dim": 4},
}


def other(config: str, **changes: Any) -> Bundle:
    fields = {"resolution": 16, "z_dim": 8, "fmap_base": 128, "fmap_max": 8, **OTHERS[config]}
    return new_network(config, seed=1, **{**fields, **changes})


@pytest.mark.parametrize("config", OTHERS)
def test_equal_shapes_of_any_family_are_copied(config: str) -> None:
    source, wanted = other(config), other(config, resolution=32, label_dim=3).config
    transfer = transfer_networks(source, wanted, seed=0)
    rows = {row.cells()[:2]: row.cells()[2:] for row in
            describe_transfer(transfer.outcomes, source.config, wanted)}  # fmt: skip
    for network in ("G", "D", "G_ema"):
        state = getattr(transfer.bundle, network).state_dict()
        given = getattr(source, network).state_dict()
        for name, tensor in state.items():
            same = name in given and given[name].shape == tensor.shape
            if same:
                assert torch.equal(tensor, given[name]), name
    assert rows["D", "block 32 px"] == ("initialised", "new: the source ends at 16 px")
    assert rows["D", "head"] == ("in part", "classes 0 to 3")
    assert all(why or outcome == "taken over" for outcome, why in rows.values())
    parts = {part for network, part in rows if network != "D"}
    assert ("layers 0-1" if config == "stylegan3-t" else "blocks 4-16 px") in parts


def test_numbered_layers_keep_their_number_at_another_size() -> None:
    """StyleGAN3's names hold sizes that follow from the resolution."""
    source, wanted = other("stylegan3-t"), other("stylegan3-t", resolution=32).config
    moved = transfer_networks(source, wanted, seed=0).bundle
    names = [next(name for name in net.G.synthesis.names if name.startswith("L0_"))
             for net in (source, moved)]  # fmt: skip
    weights = [net.G.get_submodule(f"synthesis.{name}").weight
               for net, name in zip((source, moved), names, strict=True)]  # fmt: skip
    assert torch.equal(*weights)


@pytest.mark.parametrize("config", OTHERS)
def test_frozen_layers_of_any_family_stay(config: str) -> None:
    net = other(config)
    layers = frozen_layers(net.config, 3, 16)
    step = TrainingStep(net, TrainingConfig(batch={}, batch_base=4, lr={}, initial_resolution=16))
    step.freeze_D(layers)
    before = step.flat_D.named(step.flat_D.data.clone())
    reals = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    for number in range(2):  # R3GAN's blocks begin as the identity
        step(reals, None, stage_at(step.config, 16, 0), number)
    after = step.flat_D.named(step.flat_D.data)
    kept = {name for name in after if torch.equal(before[name], after[name])}
    frozen = {name for name in after if name.startswith(tuple(f"{layer}." for layer in layers))}
    assert frozen and frozen <= kept and len(kept) < len(after) / 2
    assert describe_frozen(layers).startswith("FromRGB") and "16 px" in describe_frozen(layers)


@pytest.mark.parametrize("config", OTHERS)
def test_a_family_is_no_source_for_another(config: str) -> None:
    with pytest.raises(UsageError, match="same family"):
        transfer_networks(other(config), make_config("f", resolution=16), seed=0)
