"""The kernels as host code, built once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from stylecli.ops import dispatch
from tests.ops.cuda.host_build import HostBackend


@pytest.fixture(scope="session")
def host() -> HostBackend:
    return HostBackend()


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> Iterator[None]:
    """Let no test inherit what another found out about the kernels."""
    dispatch.forget()
    yield
    dispatch.forget()
