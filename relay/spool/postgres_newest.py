"""Of several servers that a URL names, the one that was made the primary last.

A primary that was lost and comes back as it was takes changes, too: libpq's ``target_session_attrs=read-write`` alone
would take the first of the two that the URL names, and the group would write to both. But each promotion of a standby
begins a new timeline (PostgreSQL documentation 26.3.5), with a higher number. So every host is asked for its own,
and the highest wins; a lower one than was ever seen is used no more, also while the newer server cannot be reached.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

_QUIET = 10.0
"""Seconds for which a host that did not answer at all is not asked again while another one does: each try takes seconds."""
_WHICH = (
    "SELECT system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint"
    " FROM pg_control_system()"
)
_seen: dict[str, int] = {}
"""The highest timeline that this process has seen, of each database cluster."""
_quiet_until: dict[str, float] = {}
"""By host, steady clock."""


class Place(NamedTuple):
    """One host of a URL."""

    host: str
    hostaddr: str
    port: str

    def arguments(self) -> dict[str, str]:
        """As libpq wants it."""
        return {key: value for key, value in self._asdict().items() if value}


def places(conninfo: str, **more: Any) -> list[Place]:
    """The hosts that libpq would try, in its order."""
    given = conninfo_to_dict(conninfo, **more)
    lists = [str(given.get(key) or "").split(",") for key in Place._fields]
    count = max(len(one) for one in lists[:2])
    hosts, addresses, ports = (one * count if len(one) == 1 else one for one in lists)
    return [Place(*one) for one in zip(hosts, addresses, ports, strict=False)]


class NewestPrimary(psycopg.Connection[tuple[Any, ...]]):
    """A connection to it."""

    @classmethod
    def connect(cls, conninfo: str = "", **more: Any) -> NewestPrimary:
        """As psycopg does. Raises psycopg.OperationalError when none of the servers is to be had, or only an old one."""
        where = places(conninfo, **{key: more[key] for key in Place._fields if key in more})
        if len(where) < 2:
            return super().connect(conninfo, **more)
        newest, failures = cls._newest(where, conninfo, more)
        if newest is None:
            raise psycopg.OperationalError("; ".join(failures))
        return newest

    @classmethod
    def _newest(
        cls, where: list[Place], conninfo: str, more: dict[str, Any]
    ) -> tuple[NewestPrimary | None, list[str]]:
        """The one with the highest timeline, if any answers, and what the others said."""
        best: tuple[int, NewestPrimary] | None = None
        failures: list[str] = []
        for quiet in (False, True):  # those that were silent a moment ago only when there is no other
            for place in where if best is None else ():
                if (time.monotonic() < _quiet_until.get(str(place), 0.0)) is not quiet:
                    continue
                one = cls._one(place, conninfo, more, failures)
                if one is not None and (best is None or one[0] > best[0]):
                    best, one = one, best
                if one is not None:
                    one[1].close()
        return best and best[1], failures

    @classmethod
    def _one(
        cls, place: Place, conninfo: str, more: dict[str, Any], failures: list[str]
    ) -> tuple[int, NewestPrimary] | None:
        """This host's server and its timeline, if it may be used."""
        began = time.monotonic()
        try:
            found = super().connect(conninfo, **{**more, **place.arguments()})
        except psycopg.OperationalError as error:
            failures.append(str(error))
            if time.monotonic() - began > 1.0:
                _quiet_until[str(place)] = time.monotonic() + _QUIET
            return None
        timeline, newer = _timeline(found)
        if newer:
            found.close()
            failures.append(
                f"the server at {place.host or place.hostaddr} port {place.port or 5432} was the primary before"
                f" (timeline {timeline}; a standby was made primary since, timeline {newer}), and is not used"
            )
            return None
        return timeline, found


def _timeline(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[int, int]:
    """A server's timeline; and the newer one that was seen of the same cluster, or 0. What does not tell has timeline 0."""
    row = None
    with contextlib.suppress(psycopg.Error):  # something else that speaks the protocol
        row = connection.execute(_WHICH).fetchone()
    if row is None:
        return 0, 0
    cluster, timeline = str(row[0]), int(row[1])
    newest = _seen[cluster] = max(timeline, _seen.get(cluster, 0))
    return timeline, newest if newest > timeline else 0
