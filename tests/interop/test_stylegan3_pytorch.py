"""Snapshots of StyleGAN3's program: they draw here what they draw there, and nothing is run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import convert_network, load_network
from stylecli.errors import NetworkError
from stylecli.interop.families import describe_foreign
from stylecli.interop.stylegan3_pytorch import convert_stylegan3
from stylecli.interop.trees import PersistentModule
from stylecli.networks.registry import build_generator
from tests.networks.test_stylegan3 import FACTS, OFFICIAL, assert_close, values_of

SNAPSHOT = OFFICIAL / "stylegan3_r_snapshot.pkl"


def snapshot(kind: str = "t", arrays: Any = None, **settings: Any) -> dict[str, Any]:
    """Return what a snapshot's reader makes of one, with further ``settings`` of the generator."""

    def module(prefix: str, **state: Any) -> PersistentModule:
        inside = {key.removeprefix(prefix): value for key, value in values.items()
                  if key.startswith(prefix)}  # fmt: skip
        own = {key: value for key, value in inside.items() if "." not in key}
        children = dict.fromkeys(key.split(".")[0] for key in inside if "." in key)
        state |= {"_parameters": own, "_buffers": {"up_filter": None} if "weight" in own else {},
                  "_modules": {key: module(f"{prefix}{key}.") for key in children}}  # fmt: skip
        state["_buffers"] = {k: v for k, v in state["_buffers"].items() if k not in own}
        return PersistentModule({"class_name": "Module", "version": 6, "state": state})

    values = {key: array.numpy() for key, array in values_of(kind).items() if key[:2] == "G:"}
    values |= arrays or {}
    given = {**FACTS["networks"][kind]["G_kwargs"], **settings}
    return {"G_ema": module("G:", _init_args=(), _init_kwargs=given)}


def test_an_official_snapshot_draws_the_same(tmp_path: Path) -> None:
    values = values_of("r")
    for net in (load_network(SNAPSHOT), convert_network(SNAPSHOT, tmp_path / "r.safetensors")):
        assert net.config.preset == "stylegan3-r" and net.G is not None and net.D is not None
        with torch.no_grad():
            assert_close(net.generator(values["z"]), values["img"])
            logits = net.D(values["img"])
        assert logits.shape == (3, 1) and torch.isfinite(logits).all()
        assert (
            net.info["source_family"] == "StyleGAN3-R (NVIDIA, stylegan3)"
            and net.info["augment_p"] == 0.25
        )
        assert net.info["source_licence"].startswith("NVIDIA")


def test_it_is_described() -> None:
    facts = describe_foreign(SNAPSHOT)
    assert facts["family"] == "StyleGAN3-R (NVIDIA, stylegan3)" and facts["drawn by this version"]
    assert facts["settings"]["G_ema"]["conv_kernel"] == 1


def test_a_generator_alone_draws_the_same() -> None:
    foreign = convert_stylegan3(snapshot(), "")
    G, values = build_generator(foreign.config), values_of("t")
    arrays = foreign.networks["G_ema"]
    G.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    with torch.no_grad():
        assert_close(G.eval()(values["z"]), values["img"])


def test_a_fork_that_passes_by_position_is_understood() -> None:
    tree = snapshot()
    state = tree["G_ema"].state
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    state["_init_args"] = tuple(state["_init_kwargs"].pop(name) for name in names)
    assert convert_stylegan3(tree, "").config == convert_stylegan3(snapshot(), "").config


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        ({"resolution_h": 8}, "resolution_h"),
        ({"mapping_kwargs": {"layer_features": 7}}, "layer_features"),
        ({"num_layers": 2.5}, "num_layers"),
        ({"first_cutoff": 4.0}, "filter at synthesis"),
        ({"filter_size": 4}, "filter at synthesis"),
        ({"arrays": {"G:synthesis.L0_36_24.up_filter": np.ones(12, np.float32)}},
         "filter at synthesis.L0_36_24.up_filter"),
        ({"arrays": {"G:synthesis.L8_32_3.up_filter": np.ones(1, np.float32)}}, "L8_32_3"),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_network_here_has_is_refused(tree: dict[str, Any], word: str) -> None:
    with pytest.raises(NetworkError, match=word):
        convert_stylegan3(snapshot(**tree), "")
