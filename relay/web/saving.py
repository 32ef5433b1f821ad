"""Saving settings, step by step before the eyes: check first, store only what works or what one insists on."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from relay import events
from relay.background import Tasks
from relay.check.contract import Status, Step
from relay.config.faults import ConfigError
from relay.errors import RelayError
from relay.settings import Upstream
from relay.spool.contract import lane_parts
from relay.web.configfile import ConfigFile, Draft
from relay.web.desk import Desk

MOST = 20
"""Savings that are remembered; the oldest is forgotten first."""
_SEEN = "checked as a whole: ids, addresses, ports, names, files"


@dataclass(slots=True)
class Saving:
    """One press of Save (or of Check: then there is nothing to store)."""

    id: str
    title: str
    back: str
    """The page to go back to."""
    draft: Draft | None
    upstream: Upstream | None
    """What is to be tried at Microsoft; None when the change has nothing to do with it."""
    typed: dict[str, Any] = field(default_factory=dict)
    """The form as it was sent, without its secret."""
    steps: list[Step] = field(default_factory=list)
    running: bool = True
    stored: bool = False
    outcome: str = ""
    """``ok``, ``warn`` or ``fail``, once it is over."""
    said: str = ""
    remedy: str = ""

    @property
    def may_insist(self) -> bool:
        """Whether it can be stored although a check failed."""
        return not self.running and self.draft is not None and not self.stored

    @property
    def counts(self) -> dict[str, int]:
        """Steps by how they ended."""
        return {status.value: sum(step.status is status for step in self.steps) for status in Status}


class Savings:
    """What is being saved, and what was lately."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.config = ConfigFile(desk)
        self._all: OrderedDict[str, Saving] = OrderedDict()
        self._tasks = Tasks()

    def find(self, saving_id: str) -> Saving | None:
        """One of them by its id."""
        return self._all.get(saving_id)

    def begin(
        self,
        title: str,
        back: str,
        draft: Draft | None,
        upstream: Upstream | None,
        typed: dict[str, Any] | None = None,
    ) -> Saving:
        """Start checking, and storing when all is well. Raises RelayError while another one is at work."""
        if any(one.running for one in self._all.values()):
            raise RelayError(
                "another save or check is still at work", remedy="Wait for its end, then try again."
            )
        saving = Saving(secrets.token_urlsafe(12), title, back, draft, upstream, typed or {})
        self._all[saving.id] = saving
        while len(self._all) > MOST:
            self._all.popitem(last=False)
        self._tasks.spawn(self._run(saving))
        return saving

    async def insist(self, saving: Saving) -> None:
        """Store it although a check failed."""
        if saving.may_insist:
            saving.running = True
            await self._store(
                saving, "Stored, as you insisted. It is in force, and the failed steps above remain."
            )
            saving.running = False

    async def stop(self) -> None:
        """End what is under way; nothing is half stored by that."""
        self._tasks.cancel()
        await self._tasks.ended()

    async def _run(self, saving: Saving) -> None:
        try:
            await self._work(saving)
        except Exception as error:
            events.trouble(where="web", what=f"unexpected error while saving: {error!r}", error=error)
            saving.outcome, saving.said = "fail", "Something went wrong inside relay; nothing was stored."
            saving.remedy = "The log of relay says what it was."
        finally:
            saving.running = False

    async def _work(self, saving: Saving) -> None:
        if saving.draft is not None:
            saving.steps.append(
                Step("form", "The settings are complete and fit together", 7, Status.OK, _SEEN)
            )
        if saving.upstream is not None:
            known = len(saving.steps)
            report = await self._desk.check(saving.upstream, saving.steps.append, whole=saving.draft is None)
            saving.steps[known:] = report.steps  # in the guide's order now
            if not report.ok:
                saving.outcome = "fail"
                saving.said = (
                    "Not stored: a step failed, and nothing was changed."
                    if saving.draft is not None
                    else "A step failed; it says what to do."
                )
                return
        if saving.draft is None:
            if (
                saving.upstream is not None
            ):  # what is in force works: held mail need not wait for its next try
                lanes = [one.lane for one in await self._desk.spool.lanes()]
                mine = [one for one in lanes if lane_parts(one)[0] == saving.upstream.name]
                await self._desk.look_again(mine, probe=True)
            saving.outcome = "warn" if saving.counts["warn"] else "ok"
            saving.said = (
                "The check is done; what is marked as a warning works, but look at it."
                if saving.counts["warn"]
                else "Everything works."
            )
            return
        await self._store(saving, "Stored and in force.")

    async def _store(self, saving: Saving, success: str) -> None:
        assert saving.draft is not None
        try:
            warning = await self.config.store(saving.draft)
        except ConfigError as error:
            saving.outcome, saving.said = "fail", "Not stored. " + " ".join(str(one) for one in error.faults)
        except RelayError as error:
            saving.outcome, saving.said, saving.remedy = "fail", f"Not stored: {error}", error.remedy
        else:
            saving.stored = True
            saving.outcome = "warn" if warning or saving.counts["warn"] or saving.counts["fail"] else "ok"
            saving.said = warning or success
