"""Fixtures for the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.kit import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A configuration with an empty spool, and no RELAY_ variables of whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    return Bench(tmp_path)
