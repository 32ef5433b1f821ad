"""A running relay with a page, signed in to nothing: what a monitoring system meets."""

from __future__ import annotations

import pytest

from tests.web.client import Site


@pytest.fixture
async def site(tmp_path):
    """Its Entra ID and Exchange are nowhere."""
    one = Site(tmp_path)
    await one.start()
    one.client.cookie_jar.clear()
    yield one
    await one.stop()
