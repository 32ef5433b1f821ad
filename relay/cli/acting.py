"""An operator's verb on the spool: what it did, which lanes must hear of it, and why the rest stayed as it was."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.cli.spooled import PAGE, pages
from relay.logs import visible

if TYPE_CHECKING:
    from relay.spool.contract import Changed, Filter, Hold, MessageView, Spool

UNFINISHED = ("queued", "active", "deferred", "held")
FREEING = ("retry", "release")
"""Verbs after which mail should go: a hold that the spool does not know yet may be in the way, too."""
_NAMED = 5
"""Ids that one sentence names."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb came to."""

    verb: str
    changed: Changed
    lanes: frozenset[str]
    """Lanes whose mail it was about: a running daemon must look at them again, whether the spool changed or not."""
    active: int
    """Messages that it left alone since they are under way."""
    why: tuple[str, ...]
    """Sentences: what keeps the messages that were left as they were."""

    @property
    def tells(self) -> bool:
        """Whether to turn to a running daemon: to wake it, or to know whether one is at work."""
        return bool(self.lanes or self.active) or self.verb in FREEING

    def sentences(self, *, answered: bool) -> list[str]:
        """What to tell a person besides the count; ``answered``: a daemon runs."""
        said = list(self.why)
        if self.active and answered:
            said.insert(0, f"Being submitted at this moment: {self.active}.")
        elif self.active:
            said.insert(0, f"Being submitted when the relay stopped: {self.active}; its next start decides.")
        return said


async def act(spool: Spool, verb: str, wanted: Filter) -> Done:
    """Do it. Raises SpoolError."""
    before = await _named(spool, wanted)
    changed = await spool.operate(verb, wanted, spool.clock.now())
    lanes = set(changed.lanes) | await _lanes(spool, wanted, before)
    left = changed.matched - changed.changed
    active = await _active(spool, wanted, before) if left and verb != "release" else 0
    why = [*_finished(before), *_others(verb, wanted, left - active, before)] if left else []
    if verb in FREEING:
        why += _kept(await spool.holds(), before, changed.lanes if verb == "retry" and not wanted.ids else ())
    return Done(verb, changed, frozenset(lanes if verb in FREEING else changed.lanes), active, tuple(why))


async def _named(spool: Spool, wanted: Filter) -> list[MessageView]:
    """Messages named by id, as they are now; a filter may match too many to look at."""
    return [view async for page in pages(spool, wanted) for view in page] if wanted.ids else []


async def _lanes(spool: Spool, wanted: Filter, before: list[MessageView]) -> set[str]:
    """Lanes that the operator means: those of the ids, else those with mail that the filter does not leave out."""
    if wanted.ids:
        return {view.lane for view in before}
    names = {summary.lane for summary in await spool.lanes()}
    if wanted.lane is None:
        return names
    return {name for name in names if wanted.lane == name or name.endswith("/" + wanted.lane.lower())}


async def _active(spool: Spool, wanted: Filter, before: list[MessageView]) -> int:
    if wanted.ids:
        return sum(view.state == "active" for view in before)
    if wanted.state not in (None, "active"):
        return 0
    return len(await spool.find(dataclasses.replace(wanted, state="active"), limit=PAGE))


def _finished(before: list[MessageView]) -> list[str]:
    done = [view for view in before if view.state not in UNFINISHED]
    return [f"{visible(view.id)} is finished: {visible(view.state)}." for view in done[:_NAMED]]


def _others(verb: str, wanted: Filter, left: int, before: list[MessageView]) -> list[str]:
    """Why a verb had nothing to do for messages that are neither under way nor finished."""
    if verb == "hold":
        left -= sum(view.state not in UNFINISHED for view in before)
        return [f"Held already: {left}."] if left > 0 else []
    if verb != "release":
        return []
    if not wanted.ids:
        return [f"Not held: {left}."] if left > 0 else []
    free = [view for view in before if view.state in UNFINISHED and view.state != "held"]
    return [f"Not held, but {view.state}: {view.id}." for view in free[:_NAMED]]


def _kept(holds: list[Hold], before: list[MessageView], lanes: Iterable[str]) -> list[str]:
    """Which holds still keep the messages that were named, and how to end them."""
    said = []
    for hold in holds:
        mine = [view for view in before if _keeps(hold, view)]
        lane = mine[0].lane if mine else next((one for one in lanes if _stops(hold, one)), None)
        if lane is None:
            continue
        what = ", ".join(view.id for view in mine[:_NAMED]) + (" and others" if len(mine) > _NAMED else "")
        said.append(
            f"Kept by the hold of {hold.scope} {visible(hold.key)}: {what or 'its mail'}.\n"
            f"  why:       {visible(hold.reason)}\n"
            f"  to end it: relay queue release --lane {visible(shlex.quote(lane))}"
        )
    return said


def _stops(hold: Hold, lane: str) -> bool:
    """Whether a hold stops a whole lane."""
    if hold.scope == "upstream":
        return lane.rpartition("/")[0] == hold.key
    return hold.scope == "lane" and lane == hold.key


def _keeps(hold: Hold, view: MessageView) -> bool:
    """Whether a hold keeps this message; a sender's keeps what was held for the sender's reason."""
    if view.state not in UNFINISHED:
        return False
    if hold.scope == "sender":
        return view.state == "held" and view.reason == hold.reason and hold.key.startswith(view.lane + "|")
    return _stops(hold, view.lane)
