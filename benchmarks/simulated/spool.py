"""A spool in memory, with what the scheduler asks of one: turns, due times, holds. Nothing in it is durable.

It keeps the contract of `relay.spool.contract` as far as a simulation without operators and without single held messages needs
it; what it does not know it refuses, instead of guessing.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from benchmarks.simulated.clock import SimulatedClock
from relay.message import BytesBody, Content, Outcome, Result
from relay.spool.contract import Claim, Hold, LaneSummary, Settlement, Usage, Wake
from relay.spool.group import Alone

_CONTENT = Content(b"From: app@legacy.example\r\n\r\n", BytesBody(b"hello\r\n"))


@dataclasses.dataclass
class _Lane:
    """One lane's mail."""

    queued: list[tuple[int, int, str]] = dataclasses.field(default_factory=list)
    """Heap of turn, order of arrival, id."""
    deferred: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    """Heap of due time, id."""
    active: set[str] = dataclasses.field(default_factory=set)
    turn: int = 0
    last: dict[str, int] = dataclasses.field(default_factory=dict)
    """The last turn that each source was given."""


class SimulatedSpool(Alone):
    """`relay.spool.contract.Spool`, the scheduler's part of it."""

    standing_by = False

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.calls: Counter[str] = Counter()
        """How often each method was called that would be a statement (or several) in a database."""
        self.waiting = self.longest = 0
        """Unfinished messages now, and at most."""
        self._messages: dict[str, Claim] = {}
        self._lanes: dict[str, _Lane] = defaultdict(_Lane)
        self._holds: dict[tuple[str, str], Hold] = {}
        self._kept: dict[str, str] = {}
        self._order = 0
        self._wake: Wake = lambda lane: None

    def subscribe(self, wake: Wake) -> None:
        """See the contract."""
        self._wake = wake

    def accept(self, claim: Claim) -> None:
        """New mail; the scheduler is told."""
        self._messages[claim.id] = claim
        self.waiting += 1
        self.longest = max(self.longest, self.waiting)
        self._enqueue(claim)
        self._wake(claim.lane)

    def _enqueue(self, claim: Claim, *, behind: bool = False) -> None:
        lane = self._lanes[claim.lane]
        turn = max(lane.last.get(claim.source, -1) + 1, lane.turn)
        if behind and lane.queued:
            turn = max(turn, lane.queued[-1][0] + 1)
        lane.last[claim.source] = turn
        self._order += 1
        heapq.heappush(lane.queued, (turn, self._order, claim.id))

    # delivering

    async def lanes(self) -> list[LaneSummary]:
        """See the contract."""
        return [await self.lane(name) for name in self._lanes]

    async def lane(self, name: str) -> LaneSummary:
        """See the contract."""
        self.calls["lane"] += 1
        lane = self._lanes[name]
        due = lane.deferred[0][0] if lane.deferred else None
        return LaneSummary(name, len(lane.queued), len(lane.active), len(lane.deferred), 0, None, due)

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        """See the contract."""
        self.calls["claim"] += 1
        mine = self._lanes[lane]
        while mine.deferred and mine.deferred[0][0] <= now:
            self._enqueue(self._messages[heapq.heappop(mine.deferred)[1]])
        found: list[Claim] = []
        while mine.queued and len(found) < limit:
            mine.turn, _, message_id = heapq.heappop(mine.queued)
            mine.active.add(message_id)
            found.append(self._messages[message_id])
        return found

    async def unclaim(self, ids: Sequence[str]) -> None:
        """See the contract."""
        self.calls["unclaim"] += 1
        for message_id in ids:
            claim = self._messages[message_id]
            self._lanes[claim.lane].active.discard(message_id)
            lane = self._lanes[claim.lane]
            heapq.heappush(lane.queued, (lane.turn, 0, message_id))  # it keeps its place at the head

    async def begin(
        self, claim_id: str, now: float, recipients: int, sent: Mapping[str, Outcome] | None = None
    ) -> None:
        """See the contract; the limiter's own count is enough without a restart."""
        self.calls["begin"] += 1

    async def settle(self, settlement: Settlement, now: float) -> None:
        """See the contract."""
        self.calls["settle"] += 1
        claim = self._messages[settlement.id]
        lane = self._lanes[claim.lane]
        lane.active.discard(claim.id)
        results = {one.result for one in settlement.outcomes.values()}
        if Result.HELD in results or settlement.move_to is not None or settlement.withdraw:
            raise NotImplementedError(
                "the simulation knows no mail that is held, moved or withdrawn by itself"
            )
        left = tuple(
            one for one in claim.envelope.recipients
            if settlement.outcomes.get(one.address) is None
            or settlement.outcomes[one.address].result is Result.DEFERRED
        )  # fmt: skip
        if not left:
            del self._messages[claim.id]
            self.waiting -= 1
            return
        attempts = claim.attempts + settlement.counts
        envelope = dataclasses.replace(claim.envelope, recipients=left)
        claim = self._messages[claim.id] = dataclasses.replace(claim, envelope=envelope, attempts=attempts)
        if settlement.due is not None:
            heapq.heappush(lane.deferred, (settlement.due, claim.id))
        else:
            self._enqueue(claim, behind=settlement.behind)

    async def content(self, message_id: str) -> Content:
        """See the contract; all messages are alike."""
        self.calls["content"] += 1
        return _CONTENT

    async def usage(self, lane: str, now: float) -> Usage:
        """Nothing was used before the simulation began."""
        return Usage((), ())

    async def reassign(self, lane: str, to: str, limit: int) -> int:
        """See the contract."""
        self.calls["reassign"] += 1
        mine, moved = self._lanes[lane], 0
        while mine.queued and moved < limit:
            claim = self._messages[heapq.heappop(mine.queued)[2]]
            claim = self._messages[claim.id] = dataclasses.replace(claim, lane=to)
            self._enqueue(claim)
            moved += 1
        if moved:
            self._wake(to)
        return moved

    # holds

    async def hold(self, hold: Hold) -> None:
        """See the contract."""
        self.calls["hold"] += 1
        self._holds[(hold.scope, hold.key)] = hold

    async def unhold(self, scope: str, key: str, now: float) -> bool:
        """See the contract."""
        self.calls["unhold"] += 1
        return self._holds.pop((scope, key), None) is not None

    async def holds(self) -> list[Hold]:
        """See the contract."""
        return list(self._holds.values())

    async def release_key(self, key: str | None, now: float, *, limit: int | None = None) -> int:
        """No single message is ever held here."""
        return 0

    async def keeps(self, key: str) -> bool:
        """No single message is ever held here."""
        return False

    # small texts

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        """See the contract."""
        return {key: text for key, text in self._kept.items() if key.startswith(prefix)}

    async def remember(self, key: str, value: str | None) -> None:
        """See the contract."""
        self._kept.pop(key, None)
        if value is not None:
            self._kept[key] = value
