"""The networks reproduce images and scores of the official programs to 1e-4 of their range."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.images import to_uint8
from stylecli.networks.bundle import Bundle
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
PSI, CUTOFF, MIX_LAYER = 0.6, 3, 2  # of the labels case
GRADIENT_NAMES = {
    "G_mapping/Dense0/weight": "mapping.layers.0.weight",
    "G_mapping/Dense2/bias": "mapping.layers.2.bias",
    "G_mapping/LabelConcat/weight": "mapping.label_embedding",
    "G_synthesis/4x4/Const/const": "synthesis.layers.0.const",
    "G_synthesis/4x4/Conv/StyleMod/weight": "synthesis.layers.1.style.weight",
    "G_synthesis/16x16/Conv0_up/weight": "synthesis.layers.4.conv.weight",
    "G_synthesis/16x16/Conv1/Noise/weight": "synthesis.layers.5.noise_strength",
    "G_synthesis/ToRGB_lod0/weight": "synthesis.to_rgb.2.weight",
}


def official(name: str) -> tuple[Bundle, dict[str, torch.Tensor]]:
    parts = ["_G_io", "_D_io"] if name == "stylegan1_labels" else ["_io"]
    arrays: dict[str, torch.Tensor] = {}
    for part in parts:
        with np.load(OFFICIAL / f"{name}{part}.npz") as file:
            arrays.update({key: torch.from_numpy(file[key]) for key in file})
    return load_network(OFFICIAL / f"{name}_G_D_Gs.pkl"), arrays


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    error = (found.detach() - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def lod_of(key: str) -> float:
    return float(key.rsplit("lod", 1)[1].replace("p", "."))


@pytest.fixture(scope="module")
def labels() -> tuple[Bundle, dict[str, torch.Tensor]]:
    return official("stylegan1_labels")


@torch.no_grad()
def test_labelled_mapping(labels: Any) -> None:
    net, io = labels
    assert_close(net.G_ema.mapping.embed(io["z"], io["labels"]), io["w"])


@torch.no_grad()
def test_images_at_every_lod(labels: Any) -> None:
    net, io = labels
    ws = net.G_ema.mapping(io["z"], io["labels"])
    keys = [key for key in io if key.startswith("img_lod")]
    assert len(keys) >= 4
    for key in keys:
        assert_close(net.G_ema.synthesis(ws, lod=lod_of(key)), io[key])


@torch.no_grad()
def test_truncation_of_some_and_of_all_layers(labels: Any) -> None:
    net, io = labels
    G, z, c = net.G_ema, io["z"], io["labels"]
    assert_close(G(z, c, truncation_psi=PSI, truncation_cutoff=CUTOFF), io["img_trunc"])
    assert_close(G(z, c, truncation_psi=PSI), io["img_trunc_all_layers"])


@torch.no_grad()
def test_style_mixing(labels: Any) -> None:
    net, io = labels
    ws, ws2 = (net.G_ema.mapping(io[z], io["labels"]) for z in ("z", "z2"))
    mixed = torch.cat([ws[:, :MIX_LAYER], ws2[:, MIX_LAYER:]], dim=1)
    assert_close(net.G_ema.synthesis(mixed), io["img_mix"])


@torch.no_grad()
def test_same_weights_with_fused_up_layers(labels: Any) -> None:
    net, io = labels
    for layer in net.G_ema.synthesis.layers:
        layer.fused = True
    try:
        assert_close(net.G_ema(io["z"], io["labels"]), io["img_fused_up"])
    finally:
        for layer in net.G_ema.synthesis.layers:
            layer.fused = False


@torch.no_grad()
def test_scores_at_every_lod_and_of_a_batch_of_three(labels: Any) -> None:
    net, io = labels
    for key in [key for key in io if key.startswith("d_scores_lod")]:
        assert_close(net.D(io["d_images"], io["labels8"], lod=lod_of(key)), io[key])
    assert_close(net.D(io["d_images"][:3], io["labels8"][:3]), io["d_scores_batch3"])
    assert_close(net.D(io["d_images"], io["labels8"]), io["d_scores_fused_down"])


@torch.no_grad()
def test_automatic_fused_switch_at_128_px() -> None:
    net, io = official("stylegan1_auto128")
    ws = net.G_ema.mapping(io["z"])
    assert_close(net.G_ema.synthesis(ws), io["img_lod0"])
    assert_close(net.G_ema.synthesis(ws, lod=1.4), io["img_lod1p4"])
    reals = io["d_images_uint8"].float() / 127.5 - 1
    assert_close(net.D(reals), io["d_scores_lod0"])
    assert_close(net.D(reals, lod=1.4), io["d_scores_lod1p4"])


@torch.no_grad()
@pytest.mark.parametrize("repository", ["original", "stylegan"])
def test_progressive_gan(repository: str) -> None:
    net, io = official(f"progan_{repository}_repo")
    assert not net.config.has_w
    for key in io:
        if key.startswith("img_lod"):
            assert_close(net.G_ema(io["z"], lod=lod_of(key)), io[key])
        if key.startswith("d_scores_lod"):
            assert_close(net.D(io["d_images"], lod=lod_of(key)), io[key])


def test_uint8_pictures(labels: Any) -> None:
    net, io = labels
    with torch.no_grad():
        found = to_uint8(net.G_ema(io["z"], io["labels"])).astype(int)
    difference = np.abs(found - io["img_uint8"].numpy().astype(int))
    # A float that lies on a rounding edge may fall to the other side: one grey level, rarely.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_generator_gradients(labels: Any) -> None:
    """d mean(softplus(-D(G(z)))) / d(raw variable), to 1e-3 of each variable's largest."""
    net, io = labels
    c = io["labels"]
    loss = torch.nn.functional.softplus(-net.D(net.G_ema(io["z"], c), c))
    assert_close(loss[:, 0], io["loss_G_logistic_nonsaturating_on_Gs_images"].flatten())
    net.G_ema.zero_grad()
    loss.mean().backward()
    found = {name: parameter.grad for name, parameter in net.G_ema.named_parameters()}
    checked = 0
    for key in [key for key in io if key.startswith("gradG_nonsat:")]:
        wanted = io[key]
        if key.endswith("weight") and "LabelConcat" not in key:
            wanted = wanted.permute({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[wanted.ndim])
        assert_close(found[GRADIENT_NAMES[key.split(":")[1]]], wanted, 1e-3)
        checked += 1
    assert checked >= 4
