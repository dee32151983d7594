"""Checkpoints of lucidrains' StyleGAN2: read as they draw and judge there, or refused with why."""

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
from tests.interop.foreign_files import torch_file

OFFICIAL = FIXTURES / "official"
CHECKPOINT = OFFICIAL / "lucidrains_stylegan2.pt"


def state() -> dict[str, Any]:
    """Return the checkpoint's one state dict."""
    return dict(read_foreign_tree(CHECKPOINT)["GAN"])


def load(tmp_path: Path, arrays: dict[str, Any]) -> Any:
    path = tmp_path / "model_1.pt"
    path.write_bytes(torch_file({"GAN": arrays, "version": "1.9.0"}))
    return stylecli.load_network(path)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-5 * (wanted.max() - wanted.min())


def test_a_checkpoint_draws_and_judges_as_there() -> None:
    net = stylecli.load_network(CHECKPOINT)
    with np.load(OFFICIAL / "lucidrains_stylegan2_io.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    config: Any = net.config
    assert (config.resolution, config.capacity, config.attention) == (8, 1, (1,))
    assert net.info["source_family"] == "StyleGAN2 (lucidrains/stylegan2-pytorch)"
    even = values["noise"].double()  # one map, of which each layer has a corner, turned over
    noise = [
        (torch.erfinv(2 * even - 1) * 2**0.5)[:side, :side].T.float()[None, None]
        for side in config.layer_sides
    ]
    with torch.no_grad():
        ws = net.G_ema.mapping(values["z"])
        assert_close(ws[:, 0], values["w"])
        draw = [((net.G_ema.synthesis(given, noise=noise) + 1) / 2) for given in (
            ws, torch.cat([ws[:, :1], ws.flip(0)[:, 1:]], dim=1))]  # fmt: skip
        assert_close(draw[0], values["img"])
        assert_close(draw[1], values["img_mix"])
        assert_close((net.G(values["z"], noise=noise) + 1) / 2, values["img_G"])
        assert_close(net.D(2 * values["d_images"] - 1), values["d_logits"])
        # Two estimates of one mean, by 10,000 and 20,000 latents.
        assert (net.G_ema.mapping.w_avg - values["w_mean"]).abs().max() < 0.1 * ws.std()


def test_noise_that_is_left_out_is_its_mean() -> None:
    G = stylecli.load_network(CHECKPOINT).G_ema
    ws = torch.zeros(1, 2, 6)
    with torch.no_grad():
        none = G.synthesis(ws, noise_mode="none")
        assert torch.allclose(none, G.synthesis(ws, noise_scale=0.0))
        zero = [torch.zeros(shape) for shape in G.config.noise_shapes()]
        assert torch.allclose(none, G.synthesis(ws, noise=zero))
        assert not torch.allclose(none, G.synthesis(ws))


def test_it_is_saved_as_any_network(tmp_path: Path) -> None:
    net = stylecli.load_network(CHECKPOINT)
    stylecli.save_network(tmp_path / "ours.safetensors", net)
    again = stylecli.load_network(tmp_path / "ours.safetensors")
    z = torch.ones(1, 6)
    with torch.no_grad():
        assert torch.equal(again.G_ema(z), net.G_ema(z))
    fresh = stylecli.new_network("lucidrains", resolution=16, capacity=1, z_dim=4, w_dim=4)
    assert fresh.G_ema(torch.ones(2, 4)).shape == (2, 3, 16, 16)
    assert fresh.D(torch.ones(2, 3, 16, 16)).shape == (2, 1)


def test_weights_are_counted_without_building() -> None:
    fields = {"resolution": 16, "capacity": 2, "z_dim": 8, "w_dim": 8, "attention": (1, 2)}
    net = stylecli.new_network("lucidrains", **fields)
    for name, network in (("G", net.G), ("D", net.D)):
        kernels = sum(one.numel() for one in network.parameters() if one.ndim > 1)
        assert 0.9 * kernels < net.config.count_weights(name) <= kernels


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    arrays = {name: array for name, array in state().items() if name.startswith(("S.", "G."))}
    net = load(tmp_path, arrays)
    assert net.G_ema is None and net.D is None and net.G is not None
    quantised = state() | {"D.quantize_blocks.0.fn.embed": np.zeros((4, 4), np.float32)}
    assert "quantises" in load(tmp_path, quantised).info["left_out"]


def spoil(arrays: dict[str, Any], how: str) -> None:
    if how == "another filter":
        arrays["GE.blocks.0.to_rgb.upsample.1.f"] = np.ones(3, np.float32)
    elif how == "too few":
        del arrays["GE.blocks.1.to_noise2.bias"]
    elif how == "too many":
        arrays["GE.to_initial_block.weight"] = np.zeros((6, 4, 4, 4), np.float32)
    elif how == "attention of D":
        query = np.zeros((512, 4, 1, 1), np.float32)
        arrays["GE.attn_blocks.0.0.fn.fn.to_q.weight"] = query
    elif how == "another shape":
        arrays["D.final_conv.bias"] = np.zeros(3, np.float32)
    elif how == "widths":
        arrays["GE.blocks.0.conv2.weight"] = np.zeros((5, 5, 3, 3), np.float32)
    elif how == "nothing":
        arrays.clear()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("another filter", "GE?.*blocks.0.to_rgb.upsample.1.f"),
        ("too few", "missing     blocks.1.to_noise2.bias"),
        ("attention of D", r"  unexpected  attn_blocks.0.0.fn.fn.to_q.weight"),
        ("too many", "unexpected  to_initial_block.weight"),
        ("another shape", "final_conv.bias: the file has"), ("widths", "do not double"),
        ("nothing", "no generator"),
    ],
)  # fmt: skip
def test_a_network_that_is_not_whole_is_refused(how: str, words: str, tmp_path: Path) -> None:
    arrays = state()
    spoil(arrays, how)
    with pytest.raises(NetworkError, match=words):
        load(tmp_path, arrays)
    assert "lucidrains" in describe_foreign(tmp_path / "model_1.pt")["family"]
