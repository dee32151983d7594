"""Searches one after the other: continued to the bit, each nearer than the one before."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import FaceArtist
from stylecli.errors import UsageError
from stylecli.latents import projector as module
from stylecli.latents.projection import FAST, OFFICIAL
from stylecli.latents.projector import Projecting, Projection, Projector, State, psnr
from stylecli.networks.model import new_network
from stylecli.rendering import render
from stylecli.sampling import map_latents, map_seeds, mix_ws

QUICK: dict[str, Any] = {"steps": 6, "distance": "pyramid"}


def targets(count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def project(net: Any, pictures: np.ndarray, **how: Any) -> list[Projection]:
    return Projector(net, Projecting(**{**QUICK, **how}), batch=len(pictures)).project(pictures)


@pytest.mark.parametrize("how", [{"space": "w+"}, {"tune": True, "tune_steps": 4}, {"space": "z"}])
def test_interrupted_anywhere_is_not_interrupted(
    tiny_network: Any, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    if how.get("space") == "z":
        tiny_network = new_network("a", resolution=16, fmap_base=64, fmap_max=8, z_dim=8, seed=0)
    monkeypatch.setattr(module, "SAVED_EVERY_SECONDS", -1.0)
    plan = Projecting(**QUICK, keep_path=True, **how)
    (whole,) = Projector(tiny_network, plan).project(targets())
    states: list[State] = []
    Projector(tiny_network, plan).project(targets(), save=states.append)
    assert len(states) == whole.steps
    for state in (states[2], states[-3]):
        (found,) = Projector(tiny_network, plan).project(targets(), state=state)
        assert torch.equal(found.ws, whole.ws) and found.steps == whole.steps
        assert all(map(torch.equal, found.noise, whole.noise))
        assert (found.picture == whole.picture).all()
        assert found.path is not None and whole.path is not None
        assert torch.equal(found.path, whole.path)


def test_ctrl_c_saves_the_state_of_a_step_that_is_done(tiny_network: Any) -> None:
    states: list[State] = []

    def stop(done: float, total: float, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    projector = Projector(tiny_network, Projecting(**QUICK))
    with pytest.raises(KeyboardInterrupt):
        projector.project(targets(), save=states.append, progress=stop)
    assert int(states[-1]["inner.numbers"][0]) == 3
    assert all(parameter.requires_grad for parameter in tiny_network.generator.parameters())


def test_w_plus_and_tuning_are_nearer_than_w(tiny_network: Any) -> None:
    one, other = map_seeds(tiny_network.generator, [0, 1])[:, None]
    (picture,) = render(tiny_network.generator, mix_ws(one, other, [0, 1, 2]))  # no single w's
    picture = picture // 2 + targets()[0] // 2
    far = [
        project(tiny_network, picture[None], steps=20, **how)[0].distance
        for how in ({}, {"space": "w+"}, {"tune": True, "tune_steps": 40})
    ]
    assert far[0] > far[1] and far[0] > far[2]


def test_tuning_leaves_the_network_alone_and_draws_with_its_own(tiny_network: Any) -> None:
    before = {k: v.clone() for k, v in tiny_network.generator.state_dict().items()}
    (found,) = project(tiny_network, targets(), tune=True, tune_steps=2)
    assert all(torch.equal(before[k], v) for k, v in tiny_network.generator.state_dict().items())
    assert found.network is not None
    tuned = found.network.generator.state_dict()
    assert any(not torch.equal(before[k], v) for k, v in tuned.items())


def test_pictures_of_a_batch_are_searched_each_by_itself(tiny_network: Any) -> None:
    pictures = targets(2)
    together = project(tiny_network, pictures)
    for place, found in enumerate(together):
        (alone,) = project(tiny_network, pictures[place : place + 1])
        torch.testing.assert_close(found.ws, alone.ws, rtol=1e-3, atol=1e-3)


def test_a_face_of_the_network_is_found_again(tiny_network: Any) -> None:
    G = tiny_network.generator
    with torch.no_grad():  # else a fresh network's colours are cut off in a picture
        for name, parameter in G.synthesis.named_parameters():
            parameter.mul_(0.2 if "rgb" in name else 1.0)
    z = torch.from_numpy(np.random.RandomState(123).randn(200, 8).astype(np.float32))[40:41]
    (picture,) = render(G, map_latents(G, z))
    (found,) = project(tiny_network, picture[None], noise=False)
    assert found.psnr >= 40 and not found.noise
    assert found.from_mean is not None and found.from_mean < 3


def test_networks_without_w_and_with_classes_are_searched() -> None:
    net = new_network("a", resolution=16, fmap_base=64, fmap_max=8, label_dim=2, z_dim=8, seed=0)
    (found,) = project(net, targets(), label=1, steps=2)
    assert found.from_mean is None and found.ws.shape == (1, net.config.w_out_dim)
    with pytest.raises(UsageError, match="classes 0 to 1"):
        Projector(net, Projecting(**QUICK, label=2))
    with pytest.raises(UsageError, match="w\\+"):
        Projector(net, Projecting(**QUICK, space="w+"))


def test_the_official_preset_is_the_published_schedule() -> None:
    assert Projecting(preset="official").plans("w") == [OFFICIAL["w"]]
    assert Projecting(preset="official", tune=True).plans("w")[0].steps == 450
    assert [plan.space for plan in Projecting().plans("w+")] == ["w", "w", "w+"]
    pixels = sum(plan.steps * plan.starts / plan.smaller**2 for plan in FAST["w"])
    assert pixels <= OFFICIAL["w"].steps / 2
    with pytest.raises(UsageError, match="official"):
        Projecting(preset="offical")


def test_psnr_is_that_of_what_counts() -> None:
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0] = 255
    assert psnr(a, a) == float("inf")
    assert psnr(a, b) == pytest.approx(10 * np.log10(4))
    assert psnr(a, b, torch.tensor([[0.0, 1.0], [1.0, 1.0]])) == float("inf")


def demo_face(seed: int) -> np.ndarray:
    return np.ascontiguousarray(FaceArtist(64)(seed)[0].transpose(1, 2, 0))[None]


@pytest.mark.slow
def test_a_face_that_did_not_train_comes_nearer_from_w_to_w_plus_to_tuning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAVED_EVERY_SECONDS", -1.0)
    net, states = load_network("shipped", drawing=True), []
    w = Projector(net, Projecting(steps=25)).project(demo_face(20_000), save=states.append)
    far = [w[0].distance]
    for how in ({"space": "w+"}, {"tune": True, "tune_steps": 50}):  # both from where w ended
        projector = Projector(net, Projecting(steps=25, **how))
        far.append(projector.project(demo_face(20_000), state=states[-1])[0].distance)
    assert far[0] > far[1] > far[2]


@pytest.mark.slow
def test_the_shipped_network_finds_a_picture_of_its_own_again() -> None:
    net = load_network("shipped", drawing=True)
    (picture,) = render(net.generator, map_seeds(net.generator, [5_001]))
    (found,) = Projector(net, Projecting(noise=False, steps=80)).project(picture[None])
    assert found.psnr >= 30  # how many of all are: tests/benchmarks/projection.py
