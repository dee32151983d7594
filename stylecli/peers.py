"""Other people's programs beside ours: drawing and training steps of a checkout that a user names.

Nothing of them is here. Their code is imported from the folder, so it runs with the user's rights,
and their networks are used as they are: configuration f of the paper, random weights.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.bench import Case, drawing_work, training_batch, training_work
from stylecli.errors import UsageError
from stylecli.training.config import GAMMA, LR_BASE

_LATENT = 512


@dataclass(frozen=True)
class Peer:
    """A program that can be timed: how to know its checkout, and what it does once."""

    name: str  # of its owner on GitHub
    file: str  # that its checkout has, from the folder
    drawing: Callable[[Path, int, int], Callable[[], object]]  # of folder, side and batch
    training: Callable[[Path, int, int], Callable[[], object]]


def find_peer(folder: Path) -> Peer:
    """Return the program whose checkout a folder is; raise UsageError for other folders."""
    for peer in PEERS:
        if (folder / peer.file).is_file():
            return peer
    known = " or ".join(peer.name for peer in PEERS)
    raise UsageError(f"{folder} is not a checkout that bench knows: expected {known}")


def peer_cases(folder: Path, side: int, batches: list[int], *, train: bool) -> list[Case]:
    """Return cases of a program like those of ``stylecli.bench``, at one side in pixels.

    Raises UsageError where its code cannot be imported here.
    """
    peer = find_peer(folder)
    try:
        cases = [
            Case(drawing_work(side, batch), peer.name, "image", batch,
                 _without_gradients(peer.drawing(folder, side, batch)), program=peer.name)
            for batch in batches
        ]  # fmt: skip
        if train:
            batch = training_batch(batches)
            run = peer.training(folder, side, batch)
            cases.append(Case(training_work(side, batch), peer.name, "step", 1, run,
                              program=peer.name))  # fmt: skip
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(f"{peer.name} in {folder} does not run here: {error}") from error
    return cases


def _without_gradients(run: Callable[[], object]) -> Callable[[], object]:
    def draw() -> object:
        with torch.inference_mode():
            return run()

    return draw


@contextmanager
def _importing(folder: Path, **stand_ins: ModuleType) -> Iterator[None]:
    """Import from a folder in here, with stand-ins for modules of it that are not needed.

    Afterwards the names of its modules, such as ``model``, are free again.
    """
    path, before = str(folder.resolve()), set(sys.modules)
    sys.path.insert(0, path)
    sys.modules.update(stand_ins)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(path)
        for name in set(sys.modules) - before:
            if name in stand_ins or (getattr(sys.modules[name], "__file__", None) or "").startswith(
                path
            ):
                del sys.modules[name]


# ---- rosinality/style-based-gan-pytorch


def _rosinality(folder: Path) -> Any:
    with _importing(folder):
        return importlib.import_module("model")


def _doublings(side: int) -> int:
    """Return how often 4 px are doubled, as both programs count."""
    return side.bit_length() - 3


def _draw_rosinality(folder: Path, side: int, batch: int) -> Callable[[], object]:
    G = _rosinality(folder).StyledGenerator(_LATENT).eval()
    latents = torch.randn(batch, _LATENT)
    return lambda: G(latents, step=_doublings(side), alpha=1)


def _train_rosinality(folder: Path, side: int, batch: int) -> Callable[[], object]:
    """Return a step with its networks in the order of its ``--loss r1``, which needs CUDA as it is.

    R1 is a backward pass of its own, after that of the reals.
    """
    module, now = _rosinality(folder), {"step": _doublings(side), "alpha": 1}
    G, average = module.StyledGenerator(_LATENT), module.StyledGenerator(_LATENT)
    D = module.Discriminator(from_rgb_activate=True)
    average.load_state_dict(G.state_dict())
    adams = [torch.optim.Adam(each.parameters(), LR_BASE, (0.0, 0.99)) for each in (G, D)]
    reals = torch.rand(batch, 3, side, side) * 2 - 1

    def fakes() -> Tensor:
        images: Tensor = G(torch.randn(batch, _LATENT), **now)
        return images

    def step() -> None:
        G.requires_grad_(False)
        D.requires_grad_(True)
        D.zero_grad()
        seen = reals.clone().requires_grad_()
        logits = D(seen, **now)
        F.softplus(-logits).mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        (gradient,) = torch.autograd.grad(logits.sum(), seen, create_graph=True)
        (gradient.square().sum() / batch * (GAMMA / 2)).backward()  # type: ignore[no-untyped-call]
        F.softplus(D(fakes(), **now)).mean().backward()  # type: ignore[no-untyped-call]
        adams[1].step()
        G.requires_grad_(True)
        D.requires_grad_(False)
        G.zero_grad()
        F.softplus(-D(fakes(), **now)).mean().backward()  # type: ignore[no-untyped-call]
        adams[0].step()
        with torch.no_grad():
            for mean, current in zip(average.parameters(), G.parameters(), strict=True):
                mean.lerp_(current, 1e-3)

    return step


# ---- huangzh13/StyleGAN.pytorch


def _huangzh13(folder: Path) -> Any:
    data = ModuleType("data")  # its own needs torchvision; nothing is read here
    data.get_data_loader = None  # type: ignore[attr-defined]
    with _importing(folder, data=data):
        return importlib.import_module("models.GAN")


def _networks_of_huangzh13(folder: Path, side: int) -> Any:
    """Return its two networks with their optimizers, as its configuration file has them."""
    own = {"latent_size": _LATENT, "mapping_layers": 8, "blur_filter": [1, 2, 1]}
    adam = {"learning_rate": LR_BASE, "beta_1": 0.0, "beta_2": 0.99, "eps": 1e-8}
    return _huangzh13(folder).StyleGAN(
        "linear", side, 3, _LATENT, g_args=own,
        d_args={"use_wscale": True, "blur_filter": [1, 2, 1]}, g_opt_args=adam, d_opt_args=adam,
        loss="logistic", use_ema=True,
    )  # fmt: skip


def _draw_huangzh13(folder: Path, side: int, batch: int) -> Callable[[], object]:
    G = _networks_of_huangzh13(folder, side).gen.eval()
    latents = torch.randn(batch, _LATENT)
    return lambda: G(latents, _doublings(side), 1.0)


def _train_huangzh13(folder: Path, side: int, batch: int) -> Callable[[], object]:
    gan = _networks_of_huangzh13(folder, side)
    reals = torch.rand(batch, 3, side, side) * 2 - 1

    def step() -> None:
        for update in (gan.optimize_discriminator, gan.optimize_generator):
            update(torch.randn(batch, _LATENT), reals, _doublings(side), 1.0)

    return step


PEERS = (
    Peer("rosinality", "model.py", _draw_rosinality, _train_rosinality),
    Peer("huangzh13", "models/GAN.py", _draw_huangzh13, _train_huangzh13),
)
