"""Bodies beside the database: their names are on disk before any 250, whichever process made the folder they lie in."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.spool import bodies
from relay.spool.bodies import BodyFiles


def test_a_folder_that_another_process_has_just_made_is_synced_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is there says nothing about the disk; afterwards it costs no further sync."""
    synced: list[Path] = []
    monkeypatch.setattr(bodies, "sync_directory", synced.append)
    folder = tmp_path / "spool.db.bodies"
    for one in (BodyFiles(folder), BodyFiles(folder)):
        synced.clear()
        one.create(7).close()
        assert synced == [folder, tmp_path]
        one.create(7 + 1024).close()  # the same subfolder
        assert synced == [folder, tmp_path]
        one.create(8).close()
        assert synced == [folder, tmp_path, folder]


def test_a_subfolder_that_was_deleted_comes_again(tmp_path: Path) -> None:
    """By whoever cleans up folders that are empty."""
    files = BodyFiles(tmp_path / "bodies")
    files.create(7).close()
    files.remove(7)
    files.path(7).parent.rmdir()
    files.create(7).close()
    assert files.path(7).exists()
