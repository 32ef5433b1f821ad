"""Keeps the spool that a release leaves behind, for the test of upgrades; wanted at each release that changes the schema.

PYTHONPATH=. python tests/packaging/keep_spool.py SOURCE: with the release whose source is in the folder SOURCE, four messages
are accepted; one is delivered, one an operator holds, and two wait, since Microsoft is away. What is left goes into
tests/packaging/spools/schema-N.tar.xz.
"""

from __future__ import annotations

import json
import smtplib
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.journeys.kit import Microsoft, Relay, running, until

SPOOLS = Path(__file__).with_name("spools")
LARGE = ("y" * 76 + "\r\n") * 5000
"""A body that has a file of its own."""
BODIES = {"delivered": "x\r\n", "small": "x\r\n", "large": LARGE, "kept": "x\r\n"}


def submit(relay: Relay, name: str) -> None:
    """The message of that name."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        header = f"From: erp@legacy.local\r\nSubject: {name}\r\nMessage-ID: <{name}@legacy.local>\r\n\r\n"
        client.sendmail("erp@legacy.local", ["anna@example.net"], header + BODIES[name])


def fill(source: Path, folder: Path) -> None:
    """Let that release work in the folder."""
    (folder / "microsoft").mkdir()
    microsoft = Microsoft(folder / "microsoft")
    with running(Relay(folder, {**microsoft.env, "PYTHONPATH": str(source)})) as relay:
        submit(relay, "delivered")
        until(lambda: relay.events("delivered"), what="one is delivered")
        microsoft.stop()
        for name in ("small", "large", "kept"):
            submit(relay, name)
        relay.command("queue", "hold", id_of(relay, "kept"), "--yes")
        assert relay.stop() == 0


def id_of(relay: Relay, name: str) -> str:
    """The id of the message of that name."""
    queue = json.loads(relay.command("queue", "list", "--json").stdout)
    return next(str(one["id"]) for one in queue if one["message_id"] == f"<{name}@legacy.local>")


def keep(folder: Path) -> Path:
    """Pack it; nothing of it says who did."""
    connection = sqlite3.connect(folder / "spool.db")
    ((version,),) = connection.execute("PRAGMA user_version")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    file = SPOOLS / f"schema-{version}.tar.xz"
    SPOOLS.mkdir(exist_ok=True)
    with tarfile.open(file, "w:xz") as archive:
        for name in ("spool.db", "spool.db.bodies"):
            archive.add(folder / name, name, filter=_nobodys)
    return file


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        fill(Path(sys.argv[1]).resolve(), Path(place))
        print(keep(Path(place)))
