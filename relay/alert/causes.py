"""What an administrator must hear about, judged from plain facts: pure functions, no I/O.

A cause is a hold, a spool that is nearly full, or a backlog that its mailbox's limit cannot carry away within an hour.
The thresholds have two ends, so that a value which wavers around one of them does not alert again and again: what is
known already (``known``) ends later than it begins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from relay.spool.contract import Hold, LocalMail, SpoolStats, lane_parts

BACKLOG_BEGINS = 60
"""Minutes a backlog may need at its limit before it is worth an alert (an hour, as part 2 promises)."""
BACKLOG_ENDS = 45
"""Minutes at or under which a known backlog is over."""
DAY_ENDS = 0.9
"""Share of the day's recipients under which a known shortage is over: it is let go bit by bit."""
SPOOL_SHARE = 0.05
"""Share of ``spool.max_size`` that must be free."""
SPOOL_LEAST = 64 * 1024**2
"""Octets that must be free at least: a few large messages at once, and the database's own journal."""
SPOOL_ENDS = 1.5
"""A known full spool is over when this many times the threshold is free."""
LOCAL_BEGINS = 60.0
"""Seconds for which mail must go into the local spool: a database that is restarted or fails over is back sooner."""
POOL_SHOWN = 10
"""Mailboxes a suggestion spells out at most; beyond it the mail belongs with a bulk mailing service."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing an administrator must know, in words that can be acted on. Nothing secret."""

    key: str
    """``hold:SCOPE:KEY`` (of a `Hold`), ``spool-full``, ``local-spool``, ``backlog:LANE``, ``expiry:SLOT:NAME`` or
    ``renewal:NAME``."""
    title: str
    reason: str
    remedy: str
    evidence: str
    """The server's own words, or the figures."""
    since: float
    """Wall seconds since 1970."""
    lane: str = ""
    messages: int = 0
    """How many wait because of it; 0 when that is not known."""
    step: str = ""
    """When it changes, the same cause is told again: a reminder comes nearer."""


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """One lane in figures, as `causes` needs them."""

    lane: str
    backlog: int
    """Messages that wait for their turn; mail deferred to a later time by its own fault does not belong here."""
    limit_per_minute: int
    """Messages a minute at present (a slowed lane's own rate); 0 means no limit."""
    held: bool
    day_used: float = 0.0
    """Share of the mailbox's recipients in 24 hours that is used up."""
    match: str = ""
    """``match`` of the sender rule that leads here, as configured; empty: no rule, the default sender."""
    pool: tuple[str, ...] = ()
    """Mailboxes that share the mail already, when the rule names a pool."""


def causes(
    *,
    holds: Sequence[Hold],
    lanes: Sequence[LaneFacts],
    spool: SpoolStats,
    now: float,
    max_size: int = 0,
    known: Collection[str] = (),
) -> list[Cause]:
    """All that is wrong now. ``max_size`` is ``spool.max_size`` in octets (0: none); ``known``: keys told and not over."""
    found = [_held(hold, lanes) for hold in holds]
    found += _full(spool, max_size, now, "spool-full" in known)
    for lane in lanes:
        found += _backlog(lane, now, f"backlog:{lane.lane}" in known)
    return found


def _held(hold: Hold, lanes: Sequence[LaneFacts]) -> Cause:
    lane, title = _whose(hold)
    return Cause(
        key=f"hold:{hold.scope}:{hold.key}",
        title=title,
        reason=hold.reason,
        remedy=hold.remedy or "`relay status` says more; `relay queue release` tries again at once.",
        evidence=hold.evidence,
        since=hold.since,
        lane=lane,
        messages=sum(one.backlog for one in lanes if _reaches(hold, one.lane)),
    )


def _whose(hold: Hold) -> tuple[str, str]:
    """Lane and title of a hold."""
    if hold.scope == "upstream":
        return "", f"All mail through {hold.key} is held"
    if hold.scope == "message":
        lane = hold.key.partition("|")[0]
        return lane, f"Some mail of {lane_parts(lane)[1]} is held"
    if hold.scope == "sender":
        lane, _, sender = hold.key.rpartition("|")
        return lane, f"Mail from {sender} through {lane_parts(lane)[1]} is held"
    return hold.key, f"Mail of {lane_parts(hold.key)[1]} is held"


def _reaches(hold: Hold, lane: str) -> bool:
    if hold.scope == "upstream":
        return lane_parts(lane)[0] == hold.key
    return hold.scope == "lane" and lane == hold.key


def spool_threshold(max_size: int) -> float:
    """Octets that must be free: 5 % of ``max_size`` or 64 MB, whichever is more; for a tiny spool half of it."""
    if not max_size:
        return SPOOL_LEAST
    return max(SPOOL_SHARE * max_size, min(SPOOL_LEAST, max_size / 2))


def _full(spool: SpoolStats, max_size: int, now: float, known: bool) -> Iterator[Cause]:
    if spool.free >= spool_threshold(max_size) * (SPOOL_ENDS if known else 1):
        return
    size = f" of {_octets(max_size)}" if max_size else ""
    yield Cause(
        key="spool-full",
        title="The spool is full" if spool.free == 0 else "The spool is nearly full",
        reason=f"{_octets(spool.free)}{size} are free. Without room new mail is answered 452 4.3.1; nothing accepted is lost.",
        remedy="Free space on the disk or raise `spool.max_size`, and mend what keeps mail waiting (`relay status`).",
        evidence=f"{spool.messages} messages, {_octets(spool.bytes)} stored, {_octets(spool.free)} free",
        since=now,
        messages=spool.messages,
    )


def local_causes(local: LocalMail, now: float) -> list[Cause]:
    """What concerns one host alone: the shared spool is away, and it takes mail by itself."""
    if local.since is None or now - local.since < LOCAL_BEGINS:
        return []
    return [
        Cause(
            key="local-spool",
            title="The spool's database is away",
            reason=f"{local.reason}. New mail is kept on this host's own disk, which has room for {_octets(local.free)}; "
            "nothing is delivered from there.",
            remedy="Mend the database, or the way to it. What waits here is forwarded by itself then, in its order.",
            evidence=f"{local.messages} messages, {_octets(local.bytes)} in {local.url}",
            since=local.since,
            messages=local.messages,
        )
    ]


def _backlog(lane: LaneFacts, now: float, known: bool) -> Iterator[Cause]:
    """A held lane has its own alert; a backlog that was known before the hold is not called over by it, though."""
    if lane.held and not known:
        return
    if lane.backlog and lane.day_used >= (DAY_ENDS if known else 1):
        yield _day_over(lane, now)
        return
    if not lane.limit_per_minute:
        return
    minutes = lane.backlog / lane.limit_per_minute
    if minutes <= (BACKLOG_ENDS if known else BACKLOG_BEGINS):
        return
    mailbox = lane_parts(lane.lane)[1]
    yield Cause(
        key=f"backlog:{lane.lane}",
        title=f"Mail of {mailbox} waits for more than {_span(minutes)}",
        reason=f"{lane.backlog} messages wait, and {_whom(lane, mailbox)} may send {lane.limit_per_minute} a minute.",
        remedy=_advice(lane),
        evidence=f"{lane.backlog} / {lane.limit_per_minute} a minute = {math.ceil(minutes)} minutes",
        since=now,
        lane=lane.lane,
        messages=lane.backlog,
    )


def _day_over(lane: LaneFacts, now: float) -> Cause:
    mailbox = lane_parts(lane.lane)[1]
    share = math.floor(lane.day_used * 100)
    return Cause(
        key=f"backlog:{lane.lane}",
        title=f"Mail of {mailbox} waits for the day's limit",
        reason=f"{lane.backlog} messages wait: {_whom(lane, mailbox)} has used {share} % of its recipients in 24 hours.",
        remedy="It goes on by itself as the day moves on. For more each day, spread the mail over a pool of mailboxes "
        "(`login: [a, b]` under `senders:`), or use a bulk mailing service.",
        evidence=f"{share} % of recipients_per_day used, {lane.backlog} messages wait",
        since=now,
        lane=lane.lane,
        messages=lane.backlog,
    )


def _whom(lane: LaneFacts, mailbox: str) -> str:
    return f"{mailbox} (one of a pool of {len(lane.pool)})" if len(lane.pool) > 1 else "this mailbox"


def pool_size(lane: LaneFacts) -> int:
    """Mailboxes that would drain this backlog within the hour, those that share it already included."""
    members = max(1, len(lane.pool))
    return members * math.ceil(lane.backlog / (lane.limit_per_minute * BACKLOG_BEGINS))


def pool_line(lane: LaneFacts, size: int) -> str:
    """The line of ``senders:`` for a pool of ``size``; the names of the new mailboxes are proposals.

    Of a rule that exists only its ``login`` changes, whatever else it says; without one, a rule for all mail.
    """
    upstream, mailbox = lane_parts(lane.lane)
    local, _, domain = mailbox.partition("@")
    members = list(lane.pool or (mailbox,))
    proposals = (f"{local}-{number}@{domain}" for number in range(2, size + len(members) + 2))
    for proposal in proposals:
        if len(members) >= size:
            break
        if proposal not in members:
            members.append(proposal)
    # JSON strings and lists are YAML, too, whatever the names hold
    login = f"login: {_quoted(members)}"
    if lane.match:
        return login
    return f'- {{match: "*", from: {_quoted(mailbox)}, {login}, upstream: {_quoted(upstream)}}}'


def _advice(lane: LaneFacts) -> str:
    wanted = pool_size(lane)
    if wanted <= max(1, len(lane.pool)):  # a known backlog, between the two thresholds
        return "It drains within the hour by itself."
    shown = max(min(wanted, POOL_SHOWN), len(lane.pool) + 1)
    where = (
        f"In the rule of `senders:` for {lane.match} write" if lane.match else "Add at the end of `senders:`"
    )
    much = "" if wanted <= shown else f" ({shown} are shown; so much mail is work for a bulk mailing service)"
    return (
        f"Spread it over a pool of {wanted} mailboxes{much}. {where} (with the names of your mailboxes, each with "
        f"Send As on the `from` address) and reload:\n{pool_line(lane, shown)}"
    )


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _span(minutes: float) -> str:
    """The largest whole span under ``minutes``: 50 minutes, an hour, 7 hours, 3 days."""
    if minutes < 60:
        return f"{int(minutes)} minutes"
    hours = int(minutes // 60)
    if hours < 48:
        return "an hour" if hours == 1 else f"{hours} hours"
    return f"{hours // 24} days"


def _octets(count: float) -> str:
    """In powers of 1024, as sizes are written in the configuration."""
    for unit, size in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} octets"
