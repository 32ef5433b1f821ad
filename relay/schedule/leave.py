"""Leave to submit: one message under way, in one submission after another, within its mailbox's limits.

What a message is expected to need is set aside when it is claimed, so that it goes in one piece when it can. Each
submission (an SMTP transaction) uses of that first, and asks for more only as far as the limits have it: so they
hold however often a message has to be split. Each is counted from before it starts until 60 s after its reply, and
written down before it can be complete, so that the count survives a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.message import Outcome
from relay.schedule.lane import Lane
from relay.schedule.limits import NOTHING, Cost
from relay.spool.contract import Claim

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler


class Leave:
    """`relay.deliver.contract.Begin` for one claim."""

    def __init__(self, scheduler: Scheduler, lane: Lane, claim: Claim) -> None:
        self._scheduler = scheduler
        self._lane = lane
        self._claim = claim
        self._aside = lane.cost(claim)
        """Set aside at the claim and not used yet; the limiter counts it as under way."""
        self._now = NOTHING
        """The submission under way."""
        self._sent: dict[str, Outcome] = {}
        """Who has it since the submission before."""
        self._given = False
        self._early: asyncio.Future[None] | None = None
        """The first submission, when it is written down before its turn has come."""
        self.begun = False
        """Whether a submission was written down, or was about to be."""

    @property
    def claim(self) -> Claim:
        """What it is for."""
        return self._claim

    def write_down(self) -> None:
        """Write the first submission down while another message is still on the connection.

        So it need not wait for the disk when its turn comes. Should relay be killed meanwhile, the message counts as
        uncertain although it had not started: one more that is sent (or held) again.
        """
        people = len(self._claim.envelope.recipients)
        now = self._scheduler.clock.now()
        self._early = asyncio.ensure_future(self._scheduler.spool.begin(self._claim.id, now, people, {}))
        self._early.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def written(self) -> None:
        """Wait until the disk has it, or has failed to take it."""
        if self._early is not None:
            await asyncio.wait([self._early])

    def room(self, recipients: int) -> int:
        """See the contract."""
        first, self._given = not self._given, True
        self._finish_one()
        if not first and self._must_stop():
            return 0
        most = min(recipients, self._lane.most_recipients(self._scheduler.clock.now()))
        people = self._people(most)
        if not people and not first:
            return 0
        granted = Cost(1, max(1, people))
        self._take(granted)
        return granted.recipients

    def took(self, recipients: int, sent: Mapping[str, Outcome]) -> None:
        """See the contract. The recipients written down before stay so many: a little too much, after a crash."""
        self._sent = dict(sent)
        fewer = self._now.recipients - recipients
        if fewer > 0:
            self._lane.limiter.release(Cost(0, fewer))
            self._now = Cost(self._now.messages, recipients)

    def _must_stop(self) -> bool:
        """Something happened since the message started, or the minute is used up."""
        lane, now = self._lane, self._scheduler.clock.now()
        if (
            not self._scheduler.spool.sure
            or self._scheduler.stopping
            or lane.the_hold() is not None
            or now < lane.limiter.paused_until
        ):
            return True
        return not self._aside.messages and not lane.limiter.fits(now, Cost(1, 0))

    def _people(self, wanted: int) -> int:
        """Recipients for the next one: those set aside, and what the day has beyond them."""
        spare = self._lane.limiter.room_today(self._scheduler.clock.now())
        return wanted if spare is None else min(wanted, self._aside.recipients + spare)

    def _take(self, cost: Cost) -> None:
        """From what was set aside; the limiter counts the rest as well from now on."""
        aside = self._aside.at_most(cost)
        self._aside = Cost(self._aside.messages - aside.messages, self._aside.recipients - aside.recipients)
        self._lane.limiter.start(Cost(cost.messages - aside.messages, cost.recipients - aside.recipients))
        self._now = cost

    def crowded(self, most: int) -> None:
        """See the contract."""
        self._scheduler.verdicts.learn_most(self._lane, most)

    def __call__(self) -> asyncio.Future[None]:
        """See the contract; the same future that writes it down, if that was begun ahead."""
        if not self._given:
            self.room(len(self._claim.envelope.recipients))
        self.begun = True
        early, self._early = self._early, None
        if early is not None:
            return early
        now = self._scheduler.clock.now()
        return asyncio.ensure_future(
            self._scheduler.spool.begin(self._claim.id, now, self._now.recipients, self._sent)
        )

    def _finish_one(self) -> None:
        if self._now.messages:
            self._lane.limiter.finish(self._scheduler.clock.now(), self._now)
        self._now = NOTHING

    def end(self) -> None:
        """The message is no longer under way, whatever became of it."""
        self._finish_one()
        self._lane.limiter.release(self._aside)
        self._aside = NOTHING
        self._lane.uncharge(self._claim)
