"""The kernels as host code, built once for all tests of this folder."""

import pytest

from tests.ops.cuda.host_build import HostBackend


@pytest.fixture(scope="session")
def host() -> HostBackend:
    return HostBackend()
