"""The kernels as host code, built once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from stylecli.ops import dispatch
from stylecli.ops.cuda.launches import set_backend
from tests.ops.cuda.host_build import COMPILER, NOT_PROVEN, HostBackend
from tests.ops.cuda.standins import FakeCuda


@pytest.fixture(scope="session")
def host() -> HostBackend:
    if COMPILER is None:
        pytest.skip(NOT_PROVEN)
    return HostBackend()


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> Iterator[None]:
    """Let no test inherit what another found out about the kernels."""
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.fixture
def recording():
    """Install a recording CUDA for CPU tensors, so that the check has a device to run on."""
    fake = FakeCuda()
    before = set_backend("cpu", fake.backend)
    yield fake
    set_backend("cpu", before)


@pytest.fixture
def working(recording, host):
    """Return a recording CUDA whose launches are carried out by the host build."""
    host.launched.clear()
    recording.runtime.run = host.launch
    return recording
