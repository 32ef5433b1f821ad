"""The spool's place: writable, with room, and of a release that this one understands."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

from relay.check import catalogue
from relay.check.bounds import HOST, brief, in_thread
from relay.check.contract import Status, Step
from relay.errors import RelayError
from relay.settings import SpoolSettings
from relay.spool.factory import build_spool

LEAST = 100 * 2**20
"""Octets below which the next large message may not fit any more."""
SCARCE = 1024 * 2**20
"""Octets below which a day's outage of Exchange may fill the disk."""
_MB = 2**20


async def spool_step(settings: SpoolSettings) -> Step:
    """Tried by writing there, and by opening what is there already; a running daemon is not disturbed."""
    folder = _folder(settings.url)
    for key, place in (("spool.url", folder), ("spool.local", _folder(settings.local or ""))):
        if place is not None:
            problem = await in_thread(lambda key=key, place=place: _writable(place, key), HOST)  # type: ignore[misc]
            if problem is not None:
                return problem
    try:
        spool = build_spool(dataclasses.replace(settings, local=None))  # the database itself must answer
        await spool.open(owner=False)
        try:
            stats = await spool.stats()
        finally:
            await spool.close()
    except RelayError as error:
        return catalogue.SPOOL.step(Status.FAIL, str(error), error.remedy)
    free = await in_thread(lambda: _free(folder, stats.free), HOST)
    seen = f"{stats.messages} messages wait; {free // _MB} MB are free" + (f" at {folder}" if folder else "")
    remedy = "Free space on this disk, or set `spool.url` to a larger one; when it is full, clients are told to wait."
    if free < LEAST:
        return catalogue.SPOOL.step(Status.FAIL, seen, remedy)
    if free < SCARCE:
        return catalogue.SPOOL.step(Status.WARN, seen, remedy)
    return catalogue.SPOOL.step(Status.OK, seen)


def _folder(url: str) -> Path | None:
    """The folder of a database in a file; None for one elsewhere."""
    return Path(url.removeprefix("sqlite:///")).absolute().parent if url.startswith("sqlite:///") else None


def _writable(folder: Path, key: str) -> Step | None:
    """What is wrong with the folder of a setting. One that does not exist yet is made by the daemon, if it may."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        if place != folder:
            if os.access(place, os.W_OK | os.X_OK):
                return None
            raise PermissionError(13, f"{folder} does not exist and cannot be made", str(place))
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".relay-check-") as file:
            file.write(b"relay")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        user = os.environ.get("USER") or "the user of this check"
        remedy = (
            f"Create {folder} and let relay's own user write there; when relay runs as another user than {user}, "
            f"run the check as that user: sudo -u relay relay check. Or set `{key}`."
        )
        return catalogue.SPOOL.step(Status.FAIL, f"{folder}: {brief(error)}", remedy)
    return None


def _free(folder: Path | None, told: int) -> int:
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return min(told, shutil.disk_usage(folder).free) if folder is not None else told
