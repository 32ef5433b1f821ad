"""For all tests.

On a build server the property tests play the same examples each time; elsewhere they go on looking. What a test of the
daemon in this process denies itself (its umask) is not denied to the tests after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("here", deadline=None)
settings.register_profile(
    "build-server", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("build-server" if os.environ.get("CI") == "true" else "here")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
