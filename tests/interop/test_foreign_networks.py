"""Networks of other programs: recognised, described, and drawing here what they draw there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.errors import NetworkError
from stylecli.interop.foreign_networks import describe_foreign
from stylecli.networks.frozen import FrozenSynthesis
from tests.conftest import FIXTURES
from tests.interop import foreign_files, peer_arithmetic

Z = torch.randn(4, foreign_files.FEATURES, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 2, 1, 2])


def load(tmp_path: Path, content: bytes, name: str = "network.model") -> Any:
    path = tmp_path / name
    path.write_bytes(content)
    return load_network(path)


def noise(layers: int, *, shared: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(4, 1, 4 << i // 2, 4 << i // 2, generator=generator) for i in range(layers)]
    return [maps[i // 2 * 2] for i in range(layers)] if shared else maps


def assert_draws(G: Any, wanted: torch.Tensor, maps: Any, c: Any = None) -> None:
    """Both forms of our network draw the wanted images, to 1e-5 of their range."""
    with torch.no_grad():
        ws = G.mapping(Z, c)
        for synthesis in (G.synthesis, FrozenSynthesis(G.synthesis)):
            error = (synthesis(ws, noise=maps) - wanted).abs().max() / wanted.abs().max()
            assert error < 1e-5


def fused_arrays() -> dict[str, Any]:
    """Return rosinality's generator with fused up-convolutions: one array of another name."""
    arrays = foreign_files.rosinality_arrays()["g_running"]
    for block in (1, 2):
        name = f"generator.progression.{block}.conv1"
        for part in ("weight", "weight_flip"):
            arrays[f"{name}.1.{part}"] = arrays.pop(f"{name}.2.{part}")
        arrays[f"{name}.0.weight"] = arrays.pop(f"{name}.1.conv.weight_orig")
        arrays[f"{name}.0.bias"] = arrays.pop(f"{name}.1.conv.bias")
    return arrays


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_rosinality_checkpoint(tmp_path: Path, zipped: bool) -> None:
    arrays = foreign_files.rosinality_arrays()
    net = load(tmp_path, foreign_files.torch_file(arrays, zipped=zipped))
    maps = noise(4, shared=True)
    w = peer_arithmetic.tensors(arrays["g_running"])
    image = peer_arithmetic.rosinality_image(w, Z, maps[::2])

    assert net.config.resolution == 8  # the block of 16 px was never trained
    assert_draws(net.G_ema, image, maps)
    critic = peer_arithmetic.tensors(arrays["discriminator"])
    scores = peer_arithmetic.rosinality_scores(critic, image, blocks=2, last=2)
    with torch.no_grad():
        torch.testing.assert_close(net.D(image), scores, rtol=1e-5, atol=1e-5)


def test_rosinality_fused_up_convolutions(tmp_path: Path) -> None:
    arrays = fused_arrays()
    net = load(tmp_path, foreign_files.torch_file(arrays))  # a bare state dict
    maps = noise(4, shared=True)

    assert net.config.fused_scale is True and net.G is None and net.D is None
    w = peer_arithmetic.tensors(arrays)
    assert_draws(net.G_ema, peer_arithmetic.rosinality_image(w, Z, maps[::2]), maps)


def test_rosinality_mean_style_is_estimated(tmp_path: Path) -> None:
    net = load(tmp_path, foreign_files.torch_file(foreign_files.rosinality_arrays()))
    z = torch.randn(20_000, foreign_files.FEATURES, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mean = net.G_ema.mapping.embed(z).mean(0)

    torch.testing.assert_close(net.G_ema.mapping.w_avg, mean, rtol=0.05, atol=0.05)
    assert net.info["w_avg"].startswith("estimated")


@pytest.mark.parametrize("classes", [0, 3])
def test_huangzh13_generator(tmp_path: Path, classes: int) -> None:
    arrays = foreign_files.huangzh13_generator(classes)
    net = load(tmp_path, foreign_files.torch_file(arrays), "GAN_GEN_SHADOW_1_2.pth")
    maps = noise(4, shared=False)
    labels = LABELS if classes else None
    w = peer_arithmetic.tensors(arrays)
    c = torch.nn.functional.one_hot(LABELS, 3).float() if classes else None

    assert_draws(net.G_ema, peer_arithmetic.huangzh13_image(w, Z, labels, maps), maps, c)
    assert np.array_equal(net.G_ema.mapping.w_avg, arrays["truncation.avg_latent"])


def test_huangzh13_discriminator(tmp_path: Path) -> None:
    arrays = foreign_files.huangzh13_discriminator()
    net = load(tmp_path, foreign_files.torch_file(arrays))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(4))

    wanted = peer_arithmetic.huangzh13_scores(peer_arithmetic.tensors(arrays), images)
    with torch.no_grad():
        torch.testing.assert_close(net.D(images), wanted, rtol=1e-5, atol=1e-5)
    assert net.G_ema is None


def test_what_cannot_be_mapped_is_refused_or_left_out(tmp_path: Path) -> None:
    arrays = foreign_files.huangzh13_discriminator()
    arrays["embeddings.0.weight"] = np.zeros((3, 192), np.float32)
    with pytest.raises(NetworkError, match="draws labels as planes"):
        load(tmp_path, foreign_files.torch_file(arrays))

    wide = foreign_files.rosinality_arrays()
    c = foreign_files.FEATURES
    wide["discriminator"]["progression.1.conv1.0.conv.weight_orig"] = np.zeros((2 * c, c, 3, 3))
    net = load(tmp_path, foreign_files.torch_file(wide))
    assert net.D is None and net.info["left_out"].startswith("the discriminator")


@pytest.mark.parametrize(
    ("tree", "family"),
    [
        ({"g_ema": {"conv1.conv.modulation.weight": np.zeros(2)}, "args": None},
         r"StyleGAN2 \(rosinality"),
        ({"GAN": {"S.net.0.weight": np.zeros(2)}, "version": "1.9.0"}, r"StyleGAN2 \(lucidrains"),
    ],
)  # fmt: skip
def test_a_family_that_comes_later_is_named(tmp_path: Path, tree: Any, family: str) -> None:
    path = tmp_path / "later.pt"
    path.write_bytes(foreign_files.torch_file(tree))
    with pytest.raises(NetworkError, match=rf"{family}.*running it comes later"):
        load_network(path)
    assert describe_foreign(path)["drawn by this version"] is False


def test_settings_of_rosinalitys_stylegan2_are_described(tmp_path: Path) -> None:
    import argparse
    import io

    names = ["conv1.conv.modulation.weight", "to_rgbs.0.conv.weight", "to_rgbs.1.conv.weight"]
    buffer = io.BytesIO()
    state = {name: torch.zeros(2) for name in names}
    torch.save({"g_ema": state, "args": argparse.Namespace(r1=10, path="x")}, buffer)
    (tmp_path / "two.pt").write_bytes(buffer.getvalue())

    facts = describe_foreign(tmp_path / "two.pt")
    assert (facts["resolution"], facts["g_ema numbers"]) == (16, 6)
    assert facts["settings"] == {"r1": 10, "path": "x"}


def test_a_persistent_snapshot_is_described(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(foreign_files.ada_snapshot())
    facts = describe_foreign(path)

    assert facts["family"] == "StyleGAN2 (stylegan2-ada-pytorch)"
    assert (facts["resolution"], facts["G_ema parameters"], facts["D parameters"]) == (4, 16, 4)
    assert facts["settings"]["G_ema"] == {"z_dim": 2, "img_resolution": 4}
    assert facts["dataset"]["resolution"] == 4


def test_an_r3gan_snapshot_is_named(tmp_path: Path) -> None:
    import pickle

    with foreign_files.named_class("training.networks", "Generator") as Generator:  # noqa: N806
        G: Any = Generator()
        G.__dict__ = {"_modules": {}, "_parameters": {}}
        (tmp_path / "r3.pkl").write_bytes(pickle.dumps({"G": G, "G_ema": G, "cur_nimg": 7}, 4))

    facts = describe_foreign(tmp_path / "r3.pkl")
    assert (facts["family"], facts["cur_nimg"]) == ("R3GAN", 7)


def test_every_protocol_reads_the_same(tmp_path: Path) -> None:
    nets = [load(tmp_path, foreign_files.tf_triple(protocol)) for protocol in (2, 3, 4, 5)]
    first = nets[0].G_ema.state_dict()
    for net in nets[1:]:
        assert all(torch.equal(value, first[key]) for key, value in net.G_ema.state_dict().items())


def test_an_official_triple_names_its_source_and_licence() -> None:
    info = load_network(FIXTURES / "official" / "stylegan1_labels_G_D_Gs.pkl").info

    assert info["source_family"] == "StyleGAN (NVIDIA, TensorFlow)"
    assert info["source_licence"].startswith("CC BY-NC 4.0")


def test_half_precision_and_strides_are_honoured() -> None:
    from stylecli.interop.foreign_tree import parse_foreign

    values = torch.randn(3, 4, 5)
    saved = {"half": values.half(), "brain": values.bfloat16(), "turned": values.permute(2, 0, 1),
             "part": values[1:, ::2], "flags": values > 0, "one": torch.tensor(7)}  # fmt: skip
    import io

    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(saved, buffer, _use_new_zipfile_serialization=zipped)
        tree = parse_foreign(buffer.getvalue(), Path("x"))
        for name, value in saved.items():
            assert np.array_equal(tree[name], value.float().numpy()), name


def test_settings_that_repeat_without_end_are_described_in_part(tmp_path: Path) -> None:
    from tests.interop.hostile_files import laughing_settings

    (tmp_path / "laughs.pkl").write_bytes(laughing_settings())
    facts = describe_foreign(tmp_path / "laughs.pkl")

    assert len(repr(facts["settings"])) < 100_000
