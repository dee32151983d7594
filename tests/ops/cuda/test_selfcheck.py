"""The kernels are checked and timed on the device itself."""

import pytest
import torch

from stylecli.errors import DeviceError
from stylecli.ops.cuda import selfcheck
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.launches import DTYPE_NAMES
from stylecli.ops.cuda.selfcheck import RUNS, WARM_UPS, measure_operator
from tests.ops.cuda.host_build import installed
from tests.ops.cuda.standins import CPU

OPERATORS = tuple(variants())


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_check_reaches_every_kernel_and_passes(working, host, name, dtype):
    errors = selfcheck.check_operator(name, CPU, dtype)
    assert max(errors.values()) < selfcheck.TOLERANCES[dtype] / 4
    assert set(host.launched) == set(variants((DTYPE_NAMES[dtype],))[name])
    assert working.compiler.calls == [(tuple(variants((DTYPE_NAMES[dtype],))[name]), (9, 0))]


def test_a_result_that_is_a_little_wrong_is_found_and_named(working, host):
    def wrong(record):
        host.launch(record)
        if record.kernel.startswith("bias_act_gradient"):
            record.arguments[6].flatten()[17] += 0.01

    working.runtime.run = wrong
    with pytest.raises(
        DeviceError, match=r"lrelu dx differs from plain PyTorch by .*more than 1e-04"
    ):
        selfcheck.check_operator("bias_act", CPU, torch.float32)


def test_not_a_number_never_passes(working):
    working.runtime.run = lambda record: record.arguments[2].fill_(float("nan"))  # y
    with pytest.raises(DeviceError, match="by inf"):
        selfcheck.check_operator("upfirdn2d", CPU, torch.float32)


# ---- the figures of `stylecli doctor`: bytes over the median time of a timer


SIZE = (2, 4, 32, 32)
ELEMENTS = 2 * 4 * 32 * 32
MOVES = {"bias_act": (2, 3), "upfirdn2d": (5, 5), "style_epilogue": (2, 3),
         "filtered_lrelu": (2, 3)}  # fmt: skip


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
