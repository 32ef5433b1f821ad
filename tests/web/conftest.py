"""A real daemon in this process, its page on a port of its own, and a client that keeps cookies."""

from __future__ import annotations

import pytest

from tests.web.client import Site


@pytest.fixture
async def site(tmp_path):
    """A relay with a page and a password, signed in; its tokens and Exchange are nowhere."""
    one = Site(tmp_path)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def fresh(tmp_path):
    """A relay whose page has no password yet."""
    one = Site(tmp_path, password=False)
    await one.start()
    yield one
    await one.stop()
