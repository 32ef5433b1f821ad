"""Queue: what waits, filtered and page by page, and the operator's verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from relay import events
from relay.config.values import read_duration
from relay.spool.contract import Changed, Filter, LaneSummary, Part, Spool
from relay.web.page import asked, fields, go, inner, page_of, shown, text
from relay.web.shown import plural

PAGE = 50
"""Messages on one page: what a view reads does not grow with what is queued."""
COUNTED = 1000
"""Matches of a filter that are counted one by one before a confirmation; beyond it says "or more"."""
FOUND = 50
"""Messages that a search shows."""
PATIENCE = 0.04
"""Seconds that a view looks through a long queue for what is rare; then it shows what it has, and offers to go on."""
STATES = ("queued", "active", "deferred", "held")
VERBS = {
    "retry": "Try now",
    "hold": "Hold",
    "release": "Release",
    "delete": "Delete",
}
_FREEING = ("retry", "release")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter as it stands in an address or a form."""

    state: str = ""
    lane: str = ""
    sender: str = ""
    recipient: str = ""
    older: str = ""
    reason: str = ""

    def to_filter(self, now: float) -> Filter:
        """Raises ValueError, in words for people, for an age that is none."""
        before = now - read_duration(self.older) if self.older else None
        return Filter(
            state=self.state if self.state in STATES else None,
            lane=self.lane or None,
            sender=self.sender or None,
            recipient=self.recipient or None,
            older_than=before,
            reason=self.reason or None,
        )

    def query(self, **more: str) -> str:
        """As part of an address."""
        given = {**dataclasses.asdict(self), **more}
        return urlencode({name: value for name, value in given.items() if value})

    @property
    def is_empty(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Wanted()


NAMES = tuple(one.name for one in dataclasses.fields(Wanted))


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/queue", queue)
    router.add_get("/queue/find", find)
    router.add_post("/queue/act", act)


async def queue(request: web.Request) -> web.Response:
    """One page of what waits, oldest first."""
    desk = page_of(request).desk
    wanted = Wanted(**{name: asked(request, name) for name in NAMES})
    lanes = await desk.spool.lanes()
    facts: dict[str, Any] = {
        "wanted": wanted, "lanes": [one.lane for one in lanes], "states": STATES, "verbs": VERBS,
        "total": count(lanes, wanted), "everything": sum(_open(one) for one in lanes), "error": "", "after": "",
    }  # fmt: skip
    try:
        chosen = wanted.to_filter(desk.now())
    except ValueError as error:
        return shown(
            request, "queue.html", 422, **{**facts, "error": f"The age {error}."}, views=[], following="", reached=None,
        )  # fmt: skip
    after = asked(request, "after", 20)
    part = await desk.spool.find_within(chosen, limit=PAGE + 1, after=after or None, seconds=PATIENCE)
    following = part.found[PAGE - 1].id if len(part.found) > PAGE else part.reached or ""
    return shown(request, "queue.html", **{**facts, "after": after}, views=part.found[:PAGE], following=following,
                 reached=part.reached)  # fmt: skip


def count(lanes: list[LaneSummary], wanted: Wanted) -> int | None:
    """How many match, where the lanes' own sums tell; None where somebody would have to count."""
    if wanted.is_empty:
        return sum(_open(one) for one in lanes)
    if wanted == Wanted(lane=wanted.lane):
        return sum(_open(one) for one in lanes if wanted.lane in (one.lane, one.lane.rpartition("/")[2]))
    return None


def _open(one: LaneSummary) -> int:
    return one.queued + one.active + one.deferred + one.held


async def find(request: web.Request) -> web.Response:
    """Messages by id, Message-ID, sender or recipient; finished ones, too."""
    said = asked(request, "text", 300)
    before = asked(request, "before", 20)
    spool = page_of(request).desk.spool
    part = (
        await spool.trace_within(said, limit=FOUND, before=before or None, seconds=PATIENCE)
        if said
        else Part([], None)
    )
    return shown(request, "find.html", text=said, traces=part.found, most=FOUND, before=before, reached=part.reached,
                 further=urlencode({"text": said, "before": part.reached or ""}))  # fmt: skip


async def act(request: web.Request) -> web.Response:
    """A verb: at once for one message, after a confirmation for many and for every deletion."""
    desk = page_of(request).desk
    verb, ids = text(request, "verb"), [one for one in fields(request, "id", 20) if one]
    everything = text(request, "scope") == "all"
    wanted = Wanted(**{name: text(request, name, 500) for name in NAMES})
    back = inner(text(request, "back") or "/queue")
    if verb not in VERBS:
        raise web.HTTPBadRequest
    if not ids and not everything:
        return go(request, back, ("warn", "Choose messages first: tick them, or act on all that match."))
    try:
        chosen = wanted.to_filter(desk.now()) if everything else Filter(ids=tuple(dict.fromkeys(ids)))
    except ValueError as error:
        return go(request, back, ("warn", f"The age {error}."))
    if not text(request, "sure"):
        many = await matches(desk.spool, chosen)
        if not many:
            return go(request, back, ("warn", "No message matches any more."))
        if verb == "delete" or many > 1:
            return shown(request, "confirm.html", verb=verb, verbs=VERBS, many=many, most=COUNTED, ids=ids,
                         everything=everything, wanted=wanted, names=NAMES, back=back)  # fmt: skip
    changed = await desk.spool.operate(verb, chosen, desk.now())
    if changed.lanes or verb in _FREEING:
        await desk.look_again(changed.lanes)
    events.notice(what=f"admin page: {verb}", matched=changed.matched, changed=changed.changed,
                  client=request.remote or "")  # fmt: skip
    return go(request, back, *told(verb, changed))


async def matches(spool: Spool, chosen: Filter) -> int:
    """How many messages a filter means, `COUNTED` at most; all of them where the lanes' sums tell."""
    if chosen == Filter():
        return sum(_open(one) for one in await spool.lanes())
    return len(await spool.find(chosen, limit=COUNTED))


def told(verb: str, changed: Changed) -> list[tuple[str, str]]:
    """What a verb came to, in sentences."""
    done = {"retry": "tried now", "hold": "held", "release": "released", "delete": "deleted"}[verb]
    left = changed.matched - changed.changed
    said = [("ok" if changed.changed else "warn", f"{plural(changed.changed, 'message')} {done}.")]
    if left > 0:
        why = "being submitted at this moment, finished, or kept by a hold of the mailbox (see Overview)"
        said.append(("warn", f"{plural(left, 'message')} left as it was: {why}."))
    return said
