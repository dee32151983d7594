"""Whole networks give the same numbers by kernels, with the gradients that training takes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stylecli.errors import DeviceError
from stylecli.networks.bundle import new_network
from stylecli.ops.cuda.runtime import Launch
from tests.ops.cuda.host_build import HostBackend, installed, needs_compiler

pytestmark = needs_compiler


@pytest.fixture
def network(tiny_config_fields: dict[str, Any]) -> Any:
    bundle = new_network("f", seed=0, **tiny_config_fields)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in bundle.G.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return bundle


def losses(bundle: Any) -> list[Tensor]:
    """Return images, logits, the gradients of R1 for D and of a path length for G."""
    G, D = bundle.G.double(), bundle.D.double()
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ws = G.mapping(z)
    images = G.synthesis(ws)
    logits = D(images)
    reals = images.detach().requires_grad_()
    (of_reals,) = torch.autograd.grad(D(reals).sum(), reals, create_graph=True)
    r1 = of_reals.square().sum() + torch.nn.functional.softplus(logits).sum()
    (of_ws,) = torch.autograd.grad((images * reals.detach()).sum(), ws, create_graph=True)
    total = r1 + of_ws.square().sum()
    parameters = [*G.parameters(), *D.parameters()]
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [images, logits, *(one for one in gradients if one is not None)]


def test_networks_and_their_penalties(network: Any, host: HostBackend) -> None:
    wanted = losses(network)
    host.launched.clear()
    with installed(host):
        found = losses(network)

    for kernel in ("bias_act", "fir_any", "epilogue_plane", "epilogue_plane_gradient"):
        assert any(name.startswith(kernel + "<") for name in host.launched)
    for ours, reference in zip(found, wanted, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-8, atol=1e-9)


class Broken:
    """A device on which nothing can be launched any more."""

    def launch(self, record: Launch) -> None:
        raise DeviceError(f"{record.kernel} could not be launched")


def test_a_launch_that_fails_falls_back(network: Any, monkeypatch: Any) -> None:
    wanted = network.G.synthesis(network.G.mapping(torch.ones(2, 8)))
    with installed(Broken()), pytest.warns(RuntimeWarning, match="could not be launched"):
        found = network.G.synthesis(network.G.mapping(torch.ones(2, 8)))

    assert torch.allclose(found, wanted, atol=1e-5)
