"""First use: the kernels are checked on the device itself, and a failure of any kind falls back."""

import subprocess
import sys
import warnings

import pytest
import torch

from stylecli.errors import DeviceError, UsageError
from stylecli.ops import dispatch
from stylecli.ops.cuda import selfcheck
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.runtime import DTYPE_NAMES, set_backend
from tests.ops.cuda.host_build import needs_compiler
from tests.ops.cuda.standins import CPU, FakeCuda

OPERATORS = tuple(variants())
FAILURES = {
    "no package": lambda cuda: setattr(
        cuda.compiler, "error", DeviceError("the package cuda-core is not installed, run: pip")
    ),
    "compile error": lambda cuda: setattr(
        cuda.compiler, "error", DeviceError("NVRTC 13.0 refused the kernels for sm_90: error")
    ),
    "wrong architecture": lambda cuda: setattr(
        cuda.compiler, "error", DeviceError("the NVRTC here compiles for sm_75: the GPU is sm_50")
    ),
    "load error": lambda cuda: setattr(cuda.runtime, "load_error", RuntimeError("NO_BINARY")),
    "launch error": lambda cuda: setattr(cuda.runtime, "launch_error", RuntimeError("ILLEGAL")),
    "wrong numbers": lambda cuda: setattr(cuda.runtime, "run", zeros),
}


def zeros(record):
    """Carry a launch out wrongly."""
    for argument in record.arguments:
        if torch.is_tensor(argument):
            argument.zero_()


@pytest.fixture
def cuda():
    """Install a recording CUDA for CPU tensors, so that the check has a device to run on."""
    fake = FakeCuda()
    before = set_backend("cpu", fake.backend)
    yield fake
    set_backend("cpu", before)


@pytest.fixture
def working(cuda, host):
    """Return a recording CUDA whose launches are carried out by the host build."""
    host.launched.clear()
    cuda.runtime.run = host.launch
    return cuda


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_check_reaches_every_kernel_and_passes(working, host, name, dtype):
    errors = selfcheck.check_operator(name, CPU, dtype)
    assert max(errors.values()) < selfcheck.TOLERANCES[dtype] / 4
    assert set(host.launched) == set(variants((DTYPE_NAMES[dtype],))[name])
    assert working.compiler.calls == [(tuple(variants((DTYPE_NAMES[dtype],))[name]), (9, 0))]


@needs_compiler
def test_the_answer_is_remembered(working):
    assert dispatch.decide("bias_act", CPU, torch.float32)
    launched = len(working.runtime.launches)
    assert dispatch.decide("bias_act", CPU, torch.float32)
    assert len(working.runtime.launches) == launched
    assert dispatch.reason("bias_act", CPU, torch.float32) is None


@needs_compiler
def test_the_check_leaves_random_state_and_gradients_alone(working):
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert dispatch.decide("style_epilogue", CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


@needs_compiler
def test_the_check_runs_on_its_device_whatever_the_default(working):
    with torch.device("meta"):
        assert all(dispatch.decide(name, CPU, torch.float32) for name in OPERATORS)


@needs_compiler
@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_means_plain_pytorch_and_one_warning(working, failure):
    FAILURES[failure](working)
    with pytest.warns(
        RuntimeWarning, match="bias_act uses plain PyTorch on cpu in float32: "
    ) as told:
        assert not dispatch.decide("bias_act", CPU, torch.float32)
        assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert len(told) == 1
    assert dispatch.reason("bias_act", CPU, torch.float32) in str(told[0].message)


@needs_compiler
@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_is_an_error_where_kernels_are_required(working, failure, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    FAILURES[failure](working)
    for _ in range(2):
        with pytest.raises(DeviceError, match="bias_act has no kernel on cpu in float32: ") as told:
            dispatch.decide("bias_act", CPU, torch.float32)
        assert told.value.exit_code == 4


@needs_compiler
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


@needs_compiler
def test_not_a_number_never_passes(working):
    working.runtime.run = lambda record: record.arguments[2].fill_(float("nan"))  # y
    with pytest.raises(DeviceError, match="by inf"):
        selfcheck.check_operator("upfirdn2d", CPU, torch.float32)


def test_one_cause_is_told_once_whatever_it_stops(cuda):
    FAILURES["no package"](cuda)
    with pytest.warns(RuntimeWarning, match="cuda-core is not installed, run: pip") as told:
        for name in OPERATORS:
            for dtype in DTYPE_NAMES:
                assert not dispatch.decide(name, CPU, dtype)
    assert len(told) == 1


def test_off_compiles_nothing(cuda, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "off")
    assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert cuda.compiler.calls == [] and cuda.runtime.launches == []


def test_an_unknown_mode_is_a_usage_error(monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "yes")
    with pytest.raises(UsageError, match="'yes': expected auto, off, require"):
        dispatch.decide("bias_act", CPU, torch.float32)


@needs_compiler
def test_first_use_during_capture_falls_back_and_is_asked_again_later(working):
    working.runtime.is_capturing = True
    with pytest.warns(RuntimeWarning, match="run one step before the capture") as told:
        assert not dispatch.decide("bias_act", CPU, torch.float32)
        assert not dispatch.decide("bias_act", CPU, torch.float32)
    assert len(told) == 1 and working.compiler.calls == []
    working.runtime.is_capturing = False
    assert dispatch.decide("bias_act", CPU, torch.float32)


@needs_compiler
def test_a_launch_that_fails_later_switches_to_plain_pytorch(working):
    assert dispatch.decide("bias_act", CPU, torch.float32)
    with pytest.warns(RuntimeWarning, match="plain PyTorch on cpu in float32: out of resources"):
        dispatch.give_up("bias_act", torch.zeros(1), DeviceError("out of resources"))
    assert not dispatch.decide("bias_act", CPU, torch.float32)


def test_without_a_backend_the_cpu_has_no_kernels():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dispatch.usable("bias_act", torch.zeros(1))


def test_importing_the_operators_loads_no_compiler_and_no_cuda_package():
    code = (  # torch itself imports cuda.bindings where it is installed
        "import torch, sys; before = set(sys.modules)\n"
        "import stylecli.ops.dispatch, stylecli.ops.cuda.runtime, stylecli.ops.cuda.selfcheck\n"
        "print([name for name in set(sys.modules) - before if name.split('.')[0] == 'cuda'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
