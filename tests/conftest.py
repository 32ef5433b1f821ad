"""For all tests: on a build server the property tests play the same examples each time; elsewhere they go on looking."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("here", deadline=None)
settings.register_profile(
    "build-server", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("build-server" if os.environ.get("CI") == "true" else "here")
