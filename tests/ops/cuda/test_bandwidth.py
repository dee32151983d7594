"""The figures of `stylecli doctor`: bytes over the median time of a timer."""

import pytest
import torch

from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.selfcheck import RUNS, WARM_UPS, measure_operator
from tests.ops.cuda.host_build import installed, needs_compiler
from tests.ops.cuda.standins import CPU

SIZE = (2, 4, 32, 32)
ELEMENTS = 2 * 4 * 32 * 32
MOVES = {"bias_act": (2, 3), "upfirdn2d": (5, 5), "style_epilogue": (2, 3)}


@needs_compiler
@pytest.mark.parametrize("name", variants())
def test_counts_each_tensor_once_and_takes_the_median(host, name):
    calls = []

    def timer(work):
        work()
        calls.append(work)
        late = len(calls) % (WARM_UPS + RUNS) in range(1, WARM_UPS + 1)
        return 100.0 if late else 1e-6  # a warm-up that counted would show

    with installed(host):
        found = measure_operator(name, CPU, torch.float32, size=SIZE, timer=timer)
    assert [one.direction for one in found] == ["forward", "backward"]
    for one, moves in zip(found, MOVES[name], strict=True):
        assert one.fused_gb_s == one.plain_gb_s == pytest.approx(moves * ELEMENTS * 4 / 1e9 / 1e-6)
    assert len(calls) == 4 * (WARM_UPS + RUNS)
