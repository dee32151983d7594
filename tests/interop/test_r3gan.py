"""Snapshots of R3GAN's program: read without running anything, drawn as they draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.checkpoint import convert_network
from stylecli.errors import NetworkError
from stylecli.interop.families import describe_foreign
from stylecli.interop.r3gan import read_config
from stylecli.interop.trees import read_foreign_tree
from stylecli.networks.registry import make_config
from tests.conftest import FIXTURES
from tests.interop import foreign_files

OFFICIAL = FIXTURES / "official"
SNAPSHOT = OFFICIAL / "r3gan_labels_snapshot.pkl"
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def values_of(case: str) -> dict[str, Any]:
    with np.load(OFFICIAL / f"r3gan_{case}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_close(found: torch.Tensor, wanted: Any) -> None:
    error = (found - torch.from_numpy(wanted)).abs().max().item()
    assert error <= 1e-5 * float(np.ptp(wanted))


def test_an_official_snapshot_draws_and_judges_as_there() -> None:
    net, values = stylecli.load_network(SNAPSHOT), values_of("labels")
    z, c, reals = (torch.from_numpy(values[name]) for name in ("z", "c", "reals"))
    assert net.G_ema is not None and net.G is not None and net.D is not None
    with torch.no_grad():
        assert_close(net.G_ema(z, c), values["img_ema"])
        assert_close(net.G(z, c), values["img"])
        assert_close(net.D(reals, c)[:, 0], values["d_reals"])
    assert net.info["kimg"] == 12_345.004
    assert net.config.num_bf16_res == 1  # its last stage says bfloat16


def test_a_converted_snapshot_is_equal_and_described(tmp_path: Path) -> None:
    before = stylecli.load_network(SNAPSHOT)
    after = convert_network(SNAPSHOT, tmp_path / "net.safetensors")
    assert after.config == before.config and "R3GAN" in after.info["source_licence"]
    for name in ("G", "D", "G_ema"):
        one, other = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    facts = describe_foreign(SNAPSHOT)
    assert facts["family"] == "R3GAN (brownvc/R3GAN)"
    assert (facts["resolution"], facts["classes"], facts["channels"]) == (8, 3, 3)
    assert facts["settings"]["feature maps from 4 px on"] == [16, 16]
    assert facts["settings"]["groups"] == [4, 4]


# ---- Snapshots made here: of the official weights without labels, whose widths differ


def arrays_of(letter: str) -> dict[str, Any]:
    """Return a state dict of the official program, filters included."""
    start = f"{letter}:"
    arrays = {
        name.removeprefix(start): array
        for name, array in values_of("plain").items()
        if name.startswith(start)
    }
    for place in ("1.Layers.0", "2.Layers.0") if letter == "G" else ("0.Layers.2", "1.Layers.2"):
        arrays[f"Model.MainLayers.{place}.Resampler.Kernel"] = KERNEL
    return arrays


def snapshot(
    path: Path, G: dict[str, Any], D: dict[str, Any] | None = None, **attributes: Any
) -> Path:
    """Write {G_ema, D} of these state dicts; ``attributes`` are the generator's."""
    path.write_bytes(foreign_files.r3gan_snapshot(G, D, **{"z_dim": 12, "c_dim": 0, **attributes}))
    return path


def test_widths_and_groups_are_read_off_the_shapes(tmp_path: Path) -> None:
    net = stylecli.load_network(snapshot(tmp_path / "r.pkl", arrays_of("G"), arrays_of("D")))
    values, config = values_of("plain"), net.config
    assert [config.fmaps(side) for side in (4, 8, 16)] == [24, 16, 8]
    assert [config.groups_at(side) for side in (4, 8, 16)] == [6, 4, 2]
    assert net.G is None and net.G_ema is not None and net.D is not None
    with torch.no_grad():
        assert_close(net.G_ema(torch.from_numpy(values["z"])), values["img"])
        assert_close(net.D(torch.from_numpy(values["reals"]))[:, 0], values["d_reals"])


def test_a_discriminator_that_is_no_mirror_is_left_out(tmp_path: Path) -> None:
    D = arrays_of("D")
    for name in list(D):
        if name.startswith("Model.MainLayers.1.Layers.1."):
            del D[name]  # a block
    net = stylecli.load_network(snapshot(tmp_path / "r.pkl", arrays_of("G"), D))
    assert net.D is None and net.info["left_out"].startswith("the discriminator")


@pytest.mark.parametrize("name", ["r3gan", "r3gan-imagenet32"])
def test_a_published_network_goes_by_its_name(name: str, tmp_path: Path) -> None:
    config: Any = make_config(name, resolution=8)
    f, g = config.fmaps(8), config.groups_at(8)
    # The shapes are all that is looked at; bytes keep the file small.
    G = {"Model.MainLayers.0.Layers.0.LinearLayer.weight": np.zeros((f, 64), np.uint8),
         "Model.AggregationLayer.Layer.weight": np.zeros((3, f, 1, 1), np.uint8)}  # fmt: skip
    for stage in range(2):
        for block in (1, 2):
            layer = f"Model.MainLayers.{stage}.Layers.{block}"
            G[f"{layer}.LinearLayer1.Layer.weight"] = np.zeros((2 * f, f, 1, 1), np.uint8)
            G[f"{layer}.LinearLayer2.Layer.weight"] = np.zeros((2 * f, 2 * f // g, 3, 3), np.uint8)
    path = snapshot(tmp_path / "r.pkl", G, z_dim=64)
    found = read_config(read_foreign_tree(path))
    assert found.preset == name and not found.widths


def spoilt(how: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a generator's arrays and attributes, spoilt in one way."""
    G, attributes = arrays_of("G"), {}
    first = "Model.MainLayers.0.Layers.1"
    if how == "a tensor too many":
        G[f"{first}.LinearLayer4.Layer.weight"] = np.zeros((1, 1), np.float32)
    elif how == "a tensor too few":
        del G[f"{first}.NonLinearity2.Bias"]
    elif how == "another filter":
        G["Model.MainLayers.1.Layers.0.Resampler.Kernel"] = KERNEL * 2
    elif how == "other z":
        attributes = {"z_dim": 13}
    elif how == "other pixels":
        attributes = {"img_resolution": 32}
    elif how == "no feature maps":
        G[f"{first}.LinearLayer2.Layer.weight"] = np.zeros((48, 0, 3, 3), np.float32)
    elif how == "no resolutions":
        G = {"Model.AggregationLayer.Layer.weight": np.zeros((3, 8, 1, 1), np.float32)}
    elif how == "another width":
        G["Model.MainLayers.0.Layers.0.Basis"] = np.zeros((23, 4, 4), np.float32)
    elif how == "no Model":
        G = {}
    return G, attributes


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("a tensor too many", "LinearLayer4"), ("a tensor too few", "NonLinearity2"),
        ("another filter", "filter"), ("other z", "13"), ("other pixels", "32"),
        ("no feature maps", "feature maps"), ("no resolutions", "0 resolutions"),
        ("another width", "23"), ("no Model", "Model"),
    ],
)  # fmt: skip
def test_a_snapshot_that_is_not_whole_is_refused(how: str, word: str, tmp_path: Path) -> None:
    G, attributes = spoilt(how)
    path = snapshot(tmp_path / "r.pkl", G, **attributes)
    with pytest.raises(NetworkError) as error:
        stylecli.load_network(path)
    assert word in str(error.value)
    assert describe_foreign(path)["family"] == "R3GAN (brownvc/R3GAN)"
