"""Overview: is mail flowing, and if not, why and what to do."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from relay import events
from relay.figures import duration
from relay.spool.contract import Hold, lane_name, lane_parts
from relay.web.chart import Chart, chart
from relay.web.page import LIVE, fragment, go, page_of, shown, text
from relay.web.shown import moment, plural

SOON = 60
"""Days before a credential's end at which its countdown is a warning."""
_NOW = 14
"""Days at which it is urgent."""
_TROUBLES = 6


@dataclass(frozen=True, slots=True)
class Sentence:
    """The answer to the page's one question."""

    kind: str
    """``ok``, ``warn`` or ``fail``."""
    text: str
    more: str = ""


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/", overview)
    router.add_post("/holds/release", release)


async def overview(request: web.Request) -> web.Response:
    """The page; its middle part alone for live updates."""
    desk = page_of(request).desk
    status, health = await desk.status(), await desk.health()
    lanes, holds = status["lanes"], await desk.spool.holds()
    facts: dict[str, Any] = {
        "sentence": sentence(lanes, health),
        "lanes": lanes,
        "charts": {lane_of(one): _chart(desk.rates(lane_of(one)), one) for one in lanes},
        "lane_of": lane_of,
        "told": {hold.key for hold in holds if hold.scope != "sender"},
        "holds": [(hold, _waiting(hold, lanes)) for hold in holds],
        "troubles": desk.troubles()[:_TROUBLES],
        "credentials": [_credential(one, desk.now()) for one in status["credentials"]],
        "transports": status.get("transports", []),
        "report": status,
    }
    if LIVE in request.headers:
        return fragment(request, "overview_live.html", **facts)
    return shown(request, "overview.html", **facts)


def lane_of(row: Mapping[str, Any]) -> str:
    """The name of a lane of the status report."""
    return lane_name(row["upstream"], row["mailbox"])


def sentence(lanes: Sequence[Mapping[str, Any]], health: Mapping[str, Any]) -> Sentence:
    """Is mail flowing? In one sentence."""
    waiting = sum(one["backlog"] for one in lanes)
    held = [one for one in lanes if one["state"] == "held"]
    slowed = [one for one in lanes if one["state"] == "slowed"]
    if not health["ok"]:
        return Sentence("fail", f"Mail is not accepted: {', '.join(health['reasons'])}.")
    if held:
        stuck = sum(one["backlog"] for one in held)
        who = "Mail" if len(held) == len(lanes) else f"Mail of {plural(len(held), 'mailbox', 'mailboxes')}"
        verb = "is held"
        text = f"{who} {verb}: {plural(stuck, 'message waits', 'messages wait')} for something that you can mend."
        rest = "" if len(held) == len(lanes) else "The other mailboxes deliver."
        return Sentence(
            "fail", text, f"Nothing is lost, and nothing goes back to a sender meanwhile. {rest}".strip()
        )
    if slowed:
        return Sentence("warn", f"Mail is delayed: {plural(waiting, 'message waits', 'messages wait')}.",
                        str(slowed[0]["reason"] or ""))  # fmt: skip
    if not waiting:
        return Sentence("ok", "All is well: no mail is waiting.")
    longest = max((one["time_to_drain"] or 0 for one in lanes), default=0)
    more = f"The last of it leaves in about {duration(longest)}." if longest > 60 else ""
    return Sentence(
        "ok", f"Mail is flowing: {plural(waiting, 'message is', 'messages are')} on the way.", more
    )


def _chart(rates: Sequence[int], row: Mapping[str, Any]) -> Chart:
    return chart(rates, int(row["limit_per_minute"] or 0))


def _waiting(hold: Hold, lanes: Sequence[Mapping[str, Any]]) -> int:
    """Messages in the lanes that a hold stops; a sender's lane may carry others, too."""
    if hold.scope == "upstream":
        return sum(one["backlog"] for one in lanes if one["upstream"] == hold.key)
    return sum(one["backlog"] for one in lanes if lane_of(one) == hold.key)


def _credential(row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A credential with the days it has left and how grave that is."""
    end = moment(row.get("expires"))
    days = row.get("days_left")
    if days is None and end is not None:
        days = (end - datetime.datetime.fromtimestamp(now, datetime.UTC)).days
    kind = "" if days is None else "fail" if days < _NOW else "warn" if days <= SOON else "ok"
    return {**row, "days": days, "grade": kind}


async def release(request: web.Request) -> web.Response:
    """End one hold and try its mail at once."""
    desk = page_of(request).desk
    scope, key = text(request, "scope"), text(request, "key")
    ended = await desk.spool.unhold(scope, key, desk.now())
    if not ended:
        return go(request, "/", ("warn", "That hold had ended already."))
    if scope == "sender":
        await desk.spool.release_key(key, desk.now())
    lane = key.split("|")[0]
    names = [one.lane for one in await desk.spool.lanes()]
    await desk.look_again([name for name in names if lane in (name, lane_parts(name)[0])])
    events.notice(
        what=f"{key.replace('|', ', sender ')} was released on the admin page", client=request.remote or ""
    )
    return go(request, "/", ("ok", f"Released: {key.replace('|', ', sender ')}. Its mail is tried now."))
