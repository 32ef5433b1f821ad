"""The alert room at work in the daemon: what it looks at, what it remembers, and mail to the postmaster as one way."""

from __future__ import annotations

import asyncio

from relay import events
from relay.alert.alarm import Alarm
from relay.alert.causes import Cause, LaneFacts, causes, local_causes
from relay.alert.news import News
from relay.alert.watch import Watch
from relay.alert.ways import Ways
from relay.clock import Clock
from relay.errors import SpoolError
from relay.keeper import Keeper
from relay.ownmail import OwnMail
from relay.report.bulletin import Matter, admin_notice
from relay.schedule.desk import new_id
from relay.schedule.loop import Scheduler
from relay.settings import SenderRule, Settings
from relay.spool.contract import LaneSummary, Spool, lane_name, lane_parts
from relay.spool.host import Texts

PAUSE = 20.0
"""Seconds between two looks: a hold is told within the minute."""
_PREFIX = "alert:"


class _Memory:
    """The spool's small texts, under a prefix of their own."""

    def __init__(self, spool: Texts) -> None:
        self._spool = spool

    async def remembered(self) -> dict[str, str]:
        kept = await self._spool.remembered(_PREFIX)
        return {key.removeprefix(_PREFIX): value for key, value in kept.items()}

    async def remember(self, key: str, value: str | None) -> None:
        await self._spool.remember(_PREFIX + key, value)


class Alarms:
    """Looks at holds, lanes, the spool and the ends of credentials, and tells."""

    def __init__(
        self, spool: Spool, scheduler: Scheduler, own: OwnMail, keeper: Keeper, clock: Clock
    ) -> None:
        self._spool = spool
        self._scheduler = scheduler
        self._own = own
        self._keeper = keeper
        self._clock = clock
        self._found: dict[str, Cause] = {}
        self._reminders: list[Cause] = []
        self._alarm = Alarm(Watch(_Memory(spool)), self._ways())
        self._here = Alarm(Watch(_Memory(spool.local)), self._ways()) if spool.local is not None else None

    def _ways(self) -> Ways:
        settings = self._own.settings
        first = settings.upstreams[0]
        return Ways(
            settings.alerts,
            mail=self._mail if settings.postmaster else None,
            proxy=first.proxy,
            ca_file=first.ca_file,
            host=self._own.hostname,
        )

    def update(self) -> None:
        """After a reload."""
        self._alarm.update(self._ways())
        if self._here is not None:
            self._here.update(self._ways())

    async def look_here(self) -> None:
        """What concerns this host alone, and is remembered on its own disk. Raises SpoolError."""
        mail = await self._spool.local_mail()
        if mail is not None and self._here is not None:
            now = self._clock.now()
            await self._here.look(local_causes(mail, now), now)

    def start_anew(self) -> None:
        """Another replica has told so far: what it told is in the spool."""
        self._alarm = Alarm(Watch(_Memory(self._spool)), self._ways())

    async def look(self, *, tells: bool = True) -> None:
        """One look. ``tells``: whether this replica is the one that tells. Raises SpoolError."""
        now = self._clock.now()
        summaries = await self._spool.last_seen().lanes()
        found = causes(
            holds=self._scheduler.holds.all(),
            lanes=[self._facts(one) for one in summaries],
            spool=await self._spool.stats(),
            now=now,
            max_size=self._own.settings.spool.max_size,
            known=await self._alarm.known(),
        )
        self._log(found)
        if not tells:
            return
        await self._alarm.look([*found, *await self._remind(now)], now)

    async def _remind(self, now: float) -> list[Cause]:
        """Reminders of credentials' ends. A fault there must not silence the holds, nor call a reminder over."""
        try:
            self._reminders = await self._keeper.causes(now)
            await self._keeper.tell(self._reminders)
        except SpoolError:
            if self._here is None:
                raise
        except Exception as error:
            events.trouble(where="credentials", what=f"unexpected error: {error!r}", error=error)
        return self._reminders

    def _log(self, found: list[Cause]) -> None:
        """A full spool and a backlog are said in the log once, too; a hold says so itself."""
        for cause in found:
            if cause.key not in self._found and not cause.key.startswith("hold:"):
                events.advice(
                    where=cause.lane or "spool", what=f"{cause.title}: {cause.reason}", remedy=cause.remedy
                )
        self._found = {cause.key: cause for cause in found}

    def backlog(self, lane: str) -> Cause | None:
        """The lane's backlog that will not drain within an hour, as of the last look; for `relay status`."""
        return self._found.get(f"backlog:{lane}")

    async def stop(self, seconds: float) -> None:
        """Finish what is being told."""
        both = [self._alarm.stop(seconds)]
        if self._here is not None:
            both.append(self._here.stop(seconds))
        await asyncio.gather(*both)

    def _facts(self, summary: LaneSummary) -> LaneFacts:
        lane = self._scheduler.lanes.get(summary.lane)
        mine = lane if self._scheduler.works(summary.lane) else None
        rule = _rule_of(self._own.settings, summary.lane)
        return LaneFacts(
            lane=summary.lane,
            backlog=summary.queued + summary.active,
            limit_per_minute=mine.limiter.limit if mine else _limit(self._own.settings, summary.lane),
            held=lane is not None and lane.the_hold() is not None,
            day_used=mine.limiter.day_used(self._clock.now()) if mine else 0.0,
            match=str(getattr(rule.match, "pattern", rule.match)) if rule else "",
            pool=rule.login if rule and len(rule.login) > 1 else (),
        )

    async def _mail(self, news: News) -> bool:
        """To the postmaster, by a lane that works; False when there is none just now."""
        to = self._own.postmaster
        out = self._own.outgoing(to) if to else None
        if to is None or out is None:
            return False
        cause = news.cause
        matter = Matter(cause.title, cause.reason, cause.evidence, cause.remedy, cause.since)
        composed = admin_notice(
            matter,
            began=not news.over,
            to=to,
            from_email=out.from_email,
            hostname=self._own.hostname,
            now=self._clock.now(),
            message_id=new_id(self._own.hostname),
            waiting=cause.messages or None,
        )
        try:
            await self._scheduler.desk.send(composed, out)
        except SpoolError:  # a full spool cannot carry its own alarm; the other ways can
            return False
        return True


def _limit(settings: Settings, lane: str) -> int:
    """Messages a minute by the configuration, of a lane that another replica works."""
    upstream = lane_parts(lane)[0]
    return next((one.limits.messages_per_minute for one in settings.upstreams if one.name == upstream), 0)


def _rule_of(settings: Settings, lane: str) -> SenderRule | None:
    for rule in settings.senders:
        mailboxes = rule.login or ((rule.from_address,) if rule.from_address else ())
        if lane in {lane_name(rule.upstream, mailbox) for mailbox in mailboxes}:
            return rule
    return None
