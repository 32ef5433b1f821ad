"""Looks after the credentials while the daemon runs: knows when they end, reminds, renews what it may renew.

Reminders are causes of the alert room: each step (60, 30, 14, 7, 1 days, over) is told once, across restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from relay import events
from relay.alert.causes import Cause
from relay.clock import Clock
from relay.errors import SpoolError, TokenError
from relay.settings import Certificate, ClientSecret, Settings, Upstream, UserLogin
from relay.spool.contract import Spool
from relay.tokens.away import away
from relay.tokens.choice import NAMES
from relay.tokens.contract import Resource, Token
from relay.tokens.entra import EntraTokens
from relay.tokens.expiry import CredentialState, credential_states, day_of, remedy_for, says, stage

PAUSE = 3600.0
"""Seconds between two rounds."""
PENDING_PAUSE = 60.0
"""Seconds until a new certificate that Entra does not take yet is tried again."""
DAY = 86400.0
UNUSED = 7 * DAY
"""Seconds without mail after which a user's sign-in is used for its own sake: else it would end after 90 days."""
_ENDS = "ends:"
_REMINDERS = "reminder:"


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why something could not be renewed, and since when (wall seconds)."""

    title: str
    error: TokenError
    since: float


class Keeper:
    """One per daemon. `causes` for the alarm, `tend` in a task of its own."""

    def __init__(
        self, spool: Spool, settings: Settings, tokens: Mapping[str, EntraTokens], clock: Clock
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._tokens = tokens
        self._clock = clock
        self.ends: dict[tuple[str, str], float] = {}
        """Ends of client secrets as Graph knows them: by upstream and `NAMES`."""
        self._states: list[CredentialState] = []
        self._fresh = False
        """Whether nothing has changed since the states were last read (or began to be)."""
        self._read_at = 0.0
        self._asked: dict[str, float] = {}
        self._failures: dict[str, _Failure] = {}
        self._loaded = False
        self._woken = asyncio.Event()

    def update(self, settings: Settings) -> None:
        """After a reload."""
        self._settings = settings
        self._fresh = False
        self._loaded = False
        self._woken.set()

    # what is said

    async def causes(self, now: float) -> list[Cause]:
        """Reminders that are due, and renewals that failed. Raises SpoolError."""
        await self._load()
        if not self._fresh or now - self._read_at >= PAUSE:
            await self._read(now)
        states = self._states
        found = [_reminder(one, states, now, self._failures.get(one.upstream)) for one in states]
        return [*(one for one in found if one is not None), *self._failed(now)]

    async def tell(self, causes: list[Cause]) -> None:
        """Each reminder into the log, once, whatever becomes of the alerts. Raises SpoolError."""
        told = await self._spool.remembered(_REMINDERS)
        current = {_REMINDERS + one.key: one for one in causes if one.step}
        for key, cause in current.items():
            if told.get(key) != cause.step:
                events.advice(where="credentials", what=f"{cause.title}. {cause.reason}", remedy=cause.remedy)
                await self._spool.remember(key, cause.step)
        for key in set(told) - set(current):
            await self._spool.remember(key, None)

    def _failed(self, now: float) -> list[Cause]:
        """A temporary failure mends itself; after a day it is worth a word, too."""
        return [
            Cause(
                key=f"renewal:{name}",
                title=failure.title,
                reason=str(failure.error),
                remedy=failure.error.remedy,
                evidence=failure.error.evidence,
                since=failure.since,
            )
            for name, failure in self._failures.items()
            if not failure.error.temporary or now - failure.since >= DAY
        ]

    async def _read(self, now: float) -> None:
        upstreams, ends = self._settings.upstreams, dict(self.ends)
        self._fresh = True
        self._states = await asyncio.to_thread(
            lambda: [state for one in upstreams for state in credential_states(one, ends)]
        )
        self._read_at = now

    async def _load(self) -> None:
        """Ends that Graph told before a restart: without them a reminder would seem to be over."""
        if self._loaded:
            return
        self.ends.clear()
        self.ends.update(await known_ends(self._spool, self._settings))
        self._loaded = True

    # what is done

    async def tend(self) -> float:
        """One round; the seconds to the next."""
        pause, names = PAUSE, {one.name for one in self._settings.upstreams}
        self._failures = {name: one for name, one in self._failures.items() if name in names}
        for one in self._settings.upstreams:
            if isinstance(one.credential, Certificate):
                pause = min(pause, await self._rotate(one, one.credential))
            if isinstance(one.credential, UserLogin):
                await self._use(one, one.credential)
            await self._ask_graph(one)
        return pause

    async def rest(self, seconds: float) -> None:
        """Until it is time again, or a reload has changed something."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _rotate(self, upstream: Upstream, certificate: Certificate) -> float:
        if certificate.rotation is None or not certificate.rotation.automatic:
            self._failures.pop(upstream.name, None)
            return PAUSE
        try:
            done = await away(lambda: _rotate_if_due(upstream, certificate, self._clock), "relay-rotation")
        except TokenError as error:
            self._note(upstream, f"The certificate of {upstream.name} could not be replaced", error)
            return PENDING_PAUSE if error.code == "rotation-pending" else PAUSE
        self._failures.pop(upstream.name, None)
        if done is not None:
            what, note = done
            self._fresh = False
            events.notice(what=what, upstream=upstream.name)
            if note:
                events.advice(where="certificate", what=note)
        return PAUSE

    async def _use(self, upstream: Upstream, login: UserLogin) -> None:
        from relay.tokens.signin import resources
        from relay.tokens.vault import peek

        try:
            known = await asyncio.to_thread(peek, login)
            if known is not None and self._clock.now() - known.used >= UNUSED:
                await self._tokens[upstream.name].token(resources(upstream)[0])
                self._fresh = False
        except TokenError as error:
            self._note(upstream, f"The user's sign-in of {upstream.name} does not work", error)
            return
        self._failures.pop(upstream.name, None)

    def _note(self, upstream: Upstream, title: str, error: TokenError) -> None:
        before = self._failures.get(upstream.name)
        since = before.since if before else self._clock.now()
        self._failures[upstream.name] = _Failure(title, error, since)
        if before is None or before.error.code != error.code:
            events.advice(
                where="credentials", what=f"{title}: {error}", remedy=error.remedy, upstream=upstream.name,
                code=error.code, evidence=error.evidence,
            )  # fmt: skip

    async def _ask_graph(self, upstream: Upstream) -> None:
        """Once a day, where the token shows that it is allowed; only of an upstream that is in use and works."""
        now, tokens = self._clock.now(), self._tokens.get(upstream.name)
        secrets = _secrets(upstream)
        if tokens is None or not secrets or now - self._asked.get(upstream.name, 0.0) < DAY:
            return
        if not any(one.error is None and one.expires is not None for one in tokens.states()):
            return
        self._asked[upstream.name] = now
        try:
            token = await tokens.token(Resource.GRAPH)
            found = await away(lambda: _ends_by_graph(upstream, token), "relay-directory")
        except TokenError:
            return  # the date in the configuration stands; whoever needs Graph for mail hears of it there
        for slot, secret in secrets:
            await self._learn(upstream.name, slot, secret, found.get(slot))

    async def _learn(self, name: str, slot: str, secret: ClientSecret, end: float | None) -> None:
        if end is None or self.ends.get((name, slot)) == end:
            return
        self.ends[name, slot] = end
        self._fresh = False
        try:
            await self._spool.remember(f"{_ENDS}{slot}:{name}", f"{end} {secret.secret.fingerprint()}")
        except SpoolError:
            self._asked.pop(name, None)  # asked again at the next round


async def known_ends(spool: Spool, settings: Settings) -> dict[tuple[str, str], float]:
    """Ends that Graph has told of the secrets in use; those of other secrets do not count. Raises SpoolError."""
    kept = await spool.remembered(_ENDS)
    ends = {}
    for upstream in settings.upstreams:
        for slot, secret in _secrets(upstream):
            end, _, of_which = kept.get(f"{_ENDS}{slot}:{upstream.name}", "").partition(" ")
            if of_which == secret.secret.fingerprint():
                ends[upstream.name, slot] = float(end)
    return ends


def _secrets(upstream: Upstream) -> list[tuple[str, ClientSecret]]:
    both = zip(NAMES, (upstream.credential, upstream.next_credential), strict=True)
    return [(slot, one) for slot, one in both if isinstance(one, ClientSecret)]


def _ends_by_graph(upstream: Upstream, token: Token) -> dict[str, float | None]:
    """Blocking. Empty when the token does not show the permission."""
    from relay.tokens.directory import Directory, may_read

    if not may_read(token):
        return {}
    known = Directory(upstream, token).registration()
    return {slot: known.secret_ends(one.secret.reveal()) for slot, one in _secrets(upstream)}


def _rotate_if_due(upstream: Upstream, certificate: Certificate, clock: Clock) -> tuple[str, str] | None:
    """Blocking. What was done and what is left to do, or None when it is not time yet."""
    from relay.tokens.credentials import load_certificate
    from relay.tokens.keypair import facts
    from relay.tokens.rotation import advance, due

    if not due(facts(load_certificate(certificate).leaf), clock.now()):
        return None
    done = advance(upstream, clock)
    what = (
        f"the certificate of {upstream.name} was replaced; the new one (SHA-1 {done.new.sha1}) is good until "
    )
    return what + day_of(done.new.ends), done.note


def _reminder(
    state: CredentialState, all_of_them: list[CredentialState], now: float, failure: _Failure | None
) -> Cause | None:
    if state.expires is None:
        return None
    due = stage(state.expires, now)
    if due is None:
        return None
    evidence = f"{state.slot} ({state.kind}), ends {day_of(state.expires)} according to {state.source}"
    if failure:
        evidence += f"; {failure.error.code}: {failure.error}"
    return Cause(
        key=f"expiry:{state.slot}:{state.upstream}",
        title=says(state, now).removesuffix("."),
        reason="Once it has ended, mail of this upstream is kept and waits until it is renewed.",
        remedy=_remedy(state, all_of_them),
        evidence=f"{evidence} {state.about}".strip(),
        since=state.expires - due * DAY,
        step=str(due),
    )


def _remedy(state: CredentialState, all_of_them: list[CredentialState]) -> str:
    """With a second credential that lasts longer there is nothing to make, only to tidy up."""
    others = [one for one in all_of_them if one.upstream == state.upstream and one.slot != state.slot]
    for other in others:
        if not other.fault and (other.expires is None or (state.expires or 0.0) < other.expires):
            return f"`{other.slot}` takes over by itself. Afterwards keep only that one in the configuration."
    return remedy_for(state)
