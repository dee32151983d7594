"""Checkpoints of rosinality's StyleGAN2: read as they draw there, written as they are read."""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import NetworkError
from stylecli.interop.families import describe_foreign
from stylecli.interop.trees import read_foreign_tree
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
CHECKPOINT = OFFICIAL / "rosinality_stylegan2.pt"


def arrays() -> dict[str, Any]:
    """Return the checkpoint's three networks."""
    tree = read_foreign_tree(CHECKPOINT)
    return {name: dict(tree[name]) for name in ("g_ema", "g", "d")}


def load(tmp_path: Path, tree: Any, **arguments: Any) -> Any:
    """Load what torch.save writes of nested dicts of arrays, beside arguments of a training."""

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(item) for key, item in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    if arguments:
        tree = {**tree, "args": argparse.Namespace(**arguments)}
    buffer = io.BytesIO()
    torch.save(tensors(tree), buffer)
    path = tmp_path / "ros.pt"
    path.write_bytes(buffer.getvalue())
    return stylecli.load_network(path)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-5 * (wanted.max() - wanted.min())


def test_a_checkpoint_draws_and_judges_as_there() -> None:
    net = stylecli.load_network(CHECKPOINT)
    with np.load(OFFICIAL / "rosinality_stylegan2_io.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    G, D, z = net.G_ema, net.D, values["z"]
    assert G is not None and D is not None and net.G is not None
    config: Any = net.config
    assert (config.resolution, config.conv_clamp, config.mapping_layers) == (16, None, 3)
    assert [config.fmaps(side) for side in (4, 8, 16)] == [8, 8, 6]
    assert net.info["augment_p"] == 0.25 and net.info["w_avg"].startswith("estimated")
    with torch.no_grad():
        ws = G.mapping(z)
        assert_close(ws[:, 0], values["w"])
        assert_close(G.synthesis(ws), values["img"])
        mixed = torch.cat([ws[:, :3], G.mapping(z.flip(0))[:, 3:]], dim=1)
        assert_close(G.synthesis(mixed), values["img_mix"])
        halfway = values["latent_avg"].lerp(values["w"], 0.5)
        assert_close(G.synthesis(halfway[:, None].expand_as(ws)), values["img_trunc"])
        assert_close(D(values["d_images"]), values["d_logits"])
        # Two estimates of one mean, by 10,000 and 20,000 latents.
        spread = ws[:, 0].std()
        assert (G.mapping.w_avg - values["latent_avg"][0]).abs().max() < 0.1 * spread
    facts = describe_foreign(CHECKPOINT)
    assert facts["family"] == "StyleGAN2 (rosinality/stylegan2-pytorch)"
    assert facts["settings"]["batch"] == 16


@pytest.mark.parametrize("where", ["beside", "among", "as a row"])
def test_a_stored_average_of_w_is_taken(where: str, tmp_path: Path) -> None:
    average = np.arange(12, dtype=np.float32)
    g_ema = arrays()["g_ema"]
    beside = {"latent_avg": average[None] if where == "as a row" else average}
    tree = g_ema | beside if where == "among" else {"g_ema": g_ema, **beside}
    net = load(tmp_path, tree)
    assert net.G_ema is not None and "w_avg" not in net.info
    assert np.array_equal(net.G_ema.mapping.w_avg, average)


def test_old_files_without_noise_maps_or_filters_load(tmp_path: Path) -> None:
    g_ema = {
        name: array
        for name, array in arrays()["g_ema"].items()
        if not name.startswith("noises.") and not name.endswith(".kernel")
    }
    first, again = (load(tmp_path, {"g_ema": g_ema}) for _ in range(2))
    maps = [net.G_ema.synthesis.stored_noise(2) for net in (first, again)]
    assert torch.equal(*maps) and float(maps[0].std()) > 0.5
    assert first.D is None


def test_one_colour_is_read_off_the_shapes(tmp_path: Path) -> None:
    tree = arrays()
    for name in list(tree["g_ema"]):
        if name.startswith("to_rgb") and "modulation" not in name and "kernel" not in name:
            tree["g_ema"][name] = np.ascontiguousarray(tree["g_ema"][name][:, :1])
    tree["d"]["convs.0.0.weight"] = np.ascontiguousarray(tree["d"]["convs.0.0.weight"][:, :1])
    net = load(tmp_path, {"g_ema": tree["g_ema"], "d": tree["d"]})
    assert net.config.channels == 1
    assert net.G_ema(torch.zeros(1, 12)).shape == (1, 1, 16, 16)
    assert net.D(torch.zeros(1, 1, 16, 16)).shape == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 32}, "size: its arguments say 32, its shapes 16"),
        ({"size": 16, "n_mlp": 8}, "n_mlp"), ({"latent": 512}, "latent"),
        ({"arch": "swagan"}, "swagan"),
    ],
)  # fmt: skip
def test_arguments_that_disagree_with_the_shapes_are_listed(
    arguments: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError) as error:
        load(tmp_path, arrays(), **arguments)
    assert words in str(error.value)


def spoil(g_ema: dict[str, Any], how: str) -> None:
    if how == "too many":
        g_ema["convs.0.conv.extra"] = np.zeros(3, np.float32)
    elif how == "too few":
        del g_ema["convs.1.noise.weight"]
    elif how == "another shape":
        g_ema["to_rgbs.1.conv.modulation.bias"] = np.ones(9, np.float32)
    elif how == "another filter":
        g_ema["convs.0.conv.blur.kernel"] = g_ema["convs.0.conv.blur.kernel"] * 2
    elif how == "no mapping":
        for name in [name for name in g_ema if name.startswith("style.")]:
            del g_ema[name]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("too many", "unexpected  convs.0.conv.extra [3]"),
        ("too few", "missing     convs.1.noise.weight [1]"),
        ("another shape", "shape       to_rgbs.1.conv.modulation.bias: the file has [9]"),
        ("another filter", "convs.0.conv.blur.kernel"), ("no mapping", "style.1.weight"),
    ],
)  # fmt: skip
def test_a_network_that_is_not_whole_is_refused_with_what_differs(
    how: str, words: str, tmp_path: Path
) -> None:
    g_ema = arrays()["g_ema"]
    spoil(g_ema, how)
    with pytest.raises(NetworkError) as error:
        load(tmp_path, {"g_ema": g_ema})
    assert words in str(error.value)


def test_a_discriminator_alone_is_told(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="discriminator alone"):
        load(tmp_path, {"d": arrays()["d"]})
