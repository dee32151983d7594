"""NVIDIA's TensorFlow StyleGAN2: read without running anything, drawn as it draws."""

import numpy as np
import torch

import stylecli
from stylecli.interop.families import describe_foreign
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"


def assert_close(found: torch.Tensor, wanted: torch.Tensor, span: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-5 * (span.max() - span.min())


def test_an_official_triple_draws_and_judges_as_there() -> None:
    path = OFFICIAL / "stylegan2_tf_G_D_Gs.pkl"
    net = stylecli.load_network(path)
    with np.load(OFFICIAL / "stylegan2_tf_io.npz") as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    G, D, config = net.G_ema, net.D, net.config
    assert G is not None and D is not None and net.G is not None

    assert (config.truncation_psi, config.truncation_cutoff, config.mbstd_group_size) == (
        0.5,
        None,
        4,
    )
    with torch.no_grad():
        ws = G.mapping(values["z"])
        assert_close(ws[:, 0], values["w"], values["w"])
        assert_close(G.synthesis(ws), values["img"], values["img"])
        by_default = G(values["z"], truncation_psi=config.truncation_psi)
        assert_close(by_default, values["img_default_args"], values["img"])
        cut = G(values["z"], truncation_psi=0.6, truncation_cutoff=4)
        assert_close(cut, values["img_trunc_psi0p6_cutoff4"], values["img"])
        assert_close(D(values["d_images"]), values["d_scores"], values["d_scores"])
        three = D(values["d_images"][:3])
        assert_close(three, values["d_scores_batch3"], values["d_scores"])
    facts = describe_foreign(path)
    assert facts["family"] == net.info["source_family"] == "StyleGAN2 (NVIDIA, TensorFlow)"
    assert facts["drawn by this version"]
