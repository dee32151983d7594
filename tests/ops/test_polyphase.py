"""The activation between two filters in phases, against its definition."""

import pytest
import torch

from stylecli.ops.polyphase import PhasedActivation
from stylecli.ops.reference import FilteredActivation, filtered_lrelu_ref


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("taps", [(12, 12), (5, 7), (1, 6)])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("padding", [(9, 8, 9, 8), (0, 3, 0, 3), (-2, 1, -2, 1)])
def test_it_is_what_the_definition_says(
    factor: int, taps: tuple[int, int], square: bool, padding: tuple[int, int, int, int]
) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, 37, 31, 29, generator=source).contiguous(memory_format=torch.channels_last)
    scale, bias = torch.rand(2, 37, generator=source), torch.randn(37, generator=source)
    fu = torch.rand(taps[0], generator=source) / taps[0]
    fd = torch.rand(*[taps[1]] * (1 + square), generator=source) / taps[1]
    how = FilteredActivation(factor, factor, padding, 1.3, 0.2, 0.8)

    phased = PhasedActivation(
        fu, fd, 37, factor=factor, padding=padding, gain=1.3, slope=0.2, clamp=0.8
    )
    with torch.no_grad():
        found = phased(x, scale, bias)
        wanted = filtered_lrelu_ref(x * scale[:, :, None, None], fu, fd, bias, how)

    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_a_scale_only_the_bias_is_added() -> None:
    x, bias = torch.ones(1, 3, 4, 4), torch.tensor([0.0, 1.0, -1.0])
    one = torch.ones(1)
    phased = PhasedActivation(
        one, one, 3, factor=1, padding=(0, 0, 0, 0), gain=1.0, slope=0.5, clamp=None
    )

    assert torch.equal(phased(x, None, bias)[0, :, 0, 0], torch.tensor([1.0, 2.0, 0.0]))
