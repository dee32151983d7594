"""Networks whose pictures are not square: every family, in and out of files; squares as before."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import stylecli
from stylecli.errors import NetworkError, UsageError
from stylecli.networks.headers import read_header
from stylecli.networks.model import Bundle
from stylecli.networks.registry import config_from_dict, freeze_synthesis

SMALL: dict[str, dict[str, Any]] = {
    "f": {"w_dim": 8, "fmap_base": 64, "fmap_max": 8, "mapping_fmaps": 8},
    "b": {"w_dim": 8, "fmap_base": 64, "fmap_max": 8},
    "stylegan2": {"w_dim": 8, "fmap_base": 128, "fmap_max": 8},
    "stylegan3-t": {"w_dim": 8, "fmap_base": 256, "fmap_max": 8, "num_layers": 6},
    "r3gan": {"fmap_base": 128, "fmap_max": 8, "embed_dim": 4},
}
# SHA-256 of all tensors of the networks that seed 3 made when every network was square.
SQUARE = {
    "f": "18961bf79467a304", "b": "47b4c2e2f97bcde5", "stylegan2": "d4461b8d961d0a3f",
    "stylegan3-t": "0338d89f71f85c6d", "r3gan": "8189b12748a0cc7b",
}  # fmt: skip


def small(preset: str, **fields: Any) -> Bundle:
    return stylecli.new_network(preset, z_dim=8, seed=3, **SMALL[preset], **fields)


@pytest.mark.parametrize("preset", SMALL)
@pytest.mark.parametrize(("shape", "size"), [("4:3", (24, 32)), ("3:5", (40, 24))])
def test_every_family_draws_scores_and_learns(
    preset: str, shape: str, size: tuple[int, int]
) -> None:
    net = small(preset, shape=shape, resolution=24)
    assert net.G is not None
    assert net.D is not None

    images = net.G(torch.randn(2, 8))
    logits = net.D(images)
    logits.sum().backward()

    assert (net.config.height, net.config.width) == size
    assert images.shape == (2, 3, *size)
    assert logits.shape == (2, 1)
    assert all(shape[2:] == net.config.layer_size(layer)
               for layer, shape in enumerate(net.config.noise_shapes()))  # fmt: skip
    for network in (net.G, net.D):
        named = "D" if network is net.D else "G"
        weights = sum(each.numel() for each in network.parameters())
        assert 0.7 * weights < net.config.count_weights(named) <= weights
    with pytest.raises(UsageError, match=f"{size[0]}, {size[1]}"):
        net.D(images.transpose(2, 3))


@pytest.mark.parametrize("preset", SMALL)
def test_a_wide_network_survives_its_file_and_its_quick_copy(preset: str, tmp_path: Path) -> None:
    net = small(preset, shape="4:3", resolution=24)
    z = torch.randn(2, 8)
    stylecli.save_network(tmp_path / "wide.safetensors", net)

    again = stylecli.load_network(tmp_path / "wide.safetensors")

    assert net.G_ema is not None
    assert again.config == net.config
    assert again.config.base == (3, 4)
    with torch.inference_mode():
        images = net.G_ema(z)
        assert torch.equal(again.generator(z), images)
        quick = freeze_synthesis(net.G_ema, torch.float32)(net.G_ema.mapping(z))
    assert quick.shape == images.shape
    assert float((quick - images).abs().max()) < 1e-3


@pytest.mark.parametrize("preset", SMALL)
def test_square_networks_are_what_they_were(preset: str, tmp_path: Path) -> None:
    net = small(preset, resolution=32)
    seen = hashlib.sha256()
    for network in (net.G, net.D):
        assert network is not None
        for name, tensor in sorted(network.state_dict().items()):
            seen.update(name.encode() + tensor.numpy().tobytes())

    assert seen.hexdigest()[:16] == SQUARE[preset]
    stylecli.save_network(tmp_path / "square.safetensors", net)
    assert "base" not in read_header(tmp_path / "square.safetensors")["config"]
    same = small(preset, resolution=32, shape="1:1")
    assert same.config == net.config


def test_growing_stops_at_every_level() -> None:
    net = small("f", shape="4:3", resolution=24)
    assert net.G is not None
    assert net.D is not None
    ws = net.G.mapping(torch.randn(2, 8))

    for lod, size in ((3.0, (3, 4)), (1.5, (12, 16)), (0.0, (24, 32))):
        native = net.G.synthesis(ws, lod=lod, native=True)
        assert native.shape[2:] == size
        assert net.G.synthesis(ws, lod=lod).shape[2:] == (24, 32)
        assert net.D(native, lod=lod).shape == (2, 1)


@pytest.mark.parametrize(
    ("preset", "fields", "named"),
    [
        ("stylegan3-r", {"shape": "4:3", "resolution": 192}, "stylegan3-t"),
        ("lucidrains", {"shape": "4:3", "resolution": 96}, "square"),
        ("f", {"shape": "4:3", "resolution": 200}, "192"),
        ("f", {"shape": "17:13", "resolution": 192}, "4:3"),
        ("f", {"base": (3, 40)}, "base"),
    ],
)
def test_what_no_network_can_be_is_one_sentence(
    preset: str, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        stylecli.new_network(preset, **fields)

    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_with_a_bad_base_is_refused() -> None:
    values = json.loads(json.dumps(small("f", shape="4:3", resolution=24).config.to_dict()))
    assert config_from_dict(values).base == (3, 4)

    for base in ([3], "4:3", [0, 4], [3, 4.5], 7):
        with pytest.raises((UsageError, NetworkError), match="base"):
            config_from_dict({**values, "base": base})


def test_stylegan3_moves_by_widths_and_heights() -> None:
    net = small("stylegan3-t", shape="4:3", resolution=24)
    assert net.G is not None
    net.G.move_pictures((0.5, 0.5))

    transform = net.G.synthesis.get_submodule("input").transform

    # Of a plane whose unit is the side of the square picture, 32 px here.
    assert transform[:2, 2].tolist() == [-0.5, -0.375]
