"""The tokens of one upstream: shared by all its lanes, fetched by one caller at a time, renewed ahead of expiry.

Three layers: `relay.tokens.asker` asks (blocking, msal), `relay.tokens.policy` says when, and this file keeps what
was got and lets callers share it. For each resource there is one slot; at most one request of a slot is under way:
its flight. Everything here runs on the event loop, the asking in a short-lived daemon thread: tokens are fetched
about hourly, so a thread kept waiting would only cost memory, and one that hangs must not hold up the exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay import events, settings
from relay.clock import Clock
from relay.errors import TokenError
from relay.tokens import claims, policy
from relay.tokens.away import away
from relay.tokens.choice import Choice
from relay.tokens.contract import Resource, Token, TokenSource, TokenState
from relay.tokens.reasons import local

if TYPE_CHECKING:
    from relay.tokens.either import EitherAsker

_SLACK = 60.0
"""Seconds a flight may take beyond two reads: DNS, several addresses, a look at a strange certificate."""
_LONGEST_READ = 30.0
"""Seconds; equals ``wire.LONGEST_READ``, which cannot be imported here without importing requests."""
_JUST_FETCHED = 5.0
"""Seconds in which a token counts as fresh, even when an administrator asks to try again."""


class _LazyAsker:
    """Builds the `EitherAsker` inside the worker thread, since its modules import requests and msal."""

    def __init__(self, upstream: settings.Upstream, clock: Clock, choice: Choice) -> None:
        self._upstream = upstream
        self._clock = clock
        self._choice = choice
        self._asker: EitherAsker | None = None

    def fetch(self, resource: Resource) -> Token:
        """Blocking; raises TokenError."""
        from relay.tokens.either import EitherAsker

        if self._asker is None:
            self._asker = EitherAsker(self._upstream, self._clock, self._choice)
        return self._asker.fetch(resource)

    @property
    def skew(self) -> float | None:
        return self._asker.skew if self._asker else None

    @property
    def retry_after(self) -> float | None:
        return self._asker.retry_after if self._asker else None


@dataclass(slots=True, repr=False)
class _Slot:
    """What is known about one resource. Times are the clock's monotonic seconds unless said otherwise."""

    resource: Resource
    asker: _LazyAsker
    token: Token | None = None
    lifetime: float = 0.0
    """Seconds the token had when it came."""
    fetched: float = 0.0
    flight: asyncio.Task[Token | TokenError] | None = None
    failure: TokenError | None = None
    failures: int = 0
    retry_at: float = 0.0
    discarded: float | None = None
    """When a refused token was last dropped."""
    suspect: bool = False
    """The token was refused again too soon after that; it goes when the pause is over."""
    stale: bool = False
    """An administrator mended something: try for a new token before using this one."""
    doubted: float | None = None
    """When a token was last missing a permission."""


class EntraTokens(TokenSource):
    """`TokenSource` on msal, for every kind of credential. Create it on the loop that uses it; no I/O until asked.

    Errors are `TokenError`; ``temporary`` ones are retried after 2 s and more (with jitter), an administrator's
    mistake after 5 s and more, both up to 60 s: callers in between get the remembered error at once.
    """

    def __init__(self, upstream: settings.Upstream, *, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self.choice = Choice()
        """Which of the upstream's credentials works."""
        self._slots = {one: _Slot(one, _LazyAsker(upstream, clock, self.choice)) for one in Resource}
        self._deadline = 2 * min(upstream.timeout, _LONGEST_READ) + _SLACK
        self._pending: set[asyncio.Future[Token]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<EntraTokens {self._upstream.name!r}>"

    async def token(self, resource: Resource) -> Token:
        """A token with time left on it, at once while one is held. Cancelling a waiter leaves the request running.

        Raises TokenError with reason, remedy and whether waiting can help.
        """
        if self._closed:
            raise local("closed").error()
        slot = self._slots[resource]
        held = self._held(slot)
        if held is not None and not slot.stale:
            if self._renewal_due(slot):
                self._launch(slot)
            return held
        if slot.flight is None and not self._may_ask(slot):
            return self._held_or_raise(slot)
        outcome = await asyncio.shield(self._launch(slot))
        return outcome if isinstance(outcome, Token) else self._held_or_raise(slot, outcome)

    def discard(self, token: Token) -> None:
        """The server refused this very token (535, 401): the next call fetches a new one.

        At most once in `policy.DISCARD_PAUSE`; a token refused sooner is still handed out until then, since the
        fault is hardly the token's. Refusing an old token is a no-op.
        """
        slot = self._slots[token.resource]
        if slot.token is None or slot.token.value != token.value:
            return
        slot.suspect = True
        self._drop_suspect(slot)

    def doubt(self, token: Token) -> None:
        """See the contract. At most once in `policy.DISCARD_PAUSE`, unless `retry_now` says that something was mended."""
        slot, now = self._slots[token.resource], self._clock.monotonic()
        if slot.token is None or slot.token.value != token.value:
            return
        if slot.doubted is None or now - slot.doubted >= policy.DISCARD_PAUSE:
            slot.stale, slot.doubted = True, now

    def retry_now(self) -> None:
        """Forget the pauses: an administrator reloaded or released, so something may be mended.

        A held token that lacks the permission to send is fetched again too, before it is used next.
        """
        for slot in self._slots.values():
            slot.failures, slot.retry_at, slot.discarded, slot.doubted = 0, 0.0, None, None
            fresh = self._clock.monotonic() - slot.fetched < _JUST_FETCHED
            slot.stale = slot.token is not None and not fresh and not claims.may_send(slot.token)

    def states(self) -> list[TokenState]:
        """One entry for each resource that was asked for; no I/O."""
        return [
            TokenState(slot.resource, held.expires if held else None, _told(slot.failure))
            for slot in self._slots.values()
            for held in [self._held(slot)]
            if held is not None or slot.failure is not None
        ]

    def failure(self, resource: Resource) -> TokenError | None:
        """Why the latest request failed; None when it succeeded or there was none."""
        return self._slots[resource].failure

    @property
    def clock_skew(self) -> float | None:
        """This machine's clock minus Microsoft's, seconds; None until known. Beyond 300 s signatures fail."""
        known = [slot.asker.skew for slot in self._slots.values() if slot.asker.skew is not None]
        return max(known, key=abs, default=None)

    async def close(self) -> None:
        """Let go: callers that wait get TokenError ``closed``; a request under way ends in its own thread."""
        self._closed = True
        for future in self._pending:
            if not future.done():
                future.set_exception(local("closed").error())
        flights = [slot.flight for slot in self._slots.values() if slot.flight is not None]
        await asyncio.gather(*flights)

    # what is held

    def _held(self, slot: _Slot) -> Token | None:
        """The token if it may still be handed out."""
        if slot.suspect:
            self._drop_suspect(slot)
        if slot.token is not None and policy.worn_out(slot.lifetime, self._left(slot, slot.token)):
            slot.token = None
        return slot.token

    def _left(self, slot: _Slot, token: Token) -> float:
        """Seconds left by the stricter clock: wall time may be set back, the monotonic one may pause in sleep."""
        by_wall = token.expires - self._clock.now()
        return min(by_wall, slot.fetched + slot.lifetime - self._clock.monotonic())

    def _drop_suspect(self, slot: _Slot) -> None:
        now = self._clock.monotonic()
        if slot.discarded is None or now - slot.discarded >= policy.DISCARD_PAUSE:
            slot.token, slot.suspect, slot.discarded = None, False, now

    def _held_or_raise(self, slot: _Slot, error: TokenError | None = None) -> Token:
        held = self._held(slot)
        if held is not None:
            return held
        raise _again(error or slot.failure or local("internal").error())

    def _renewal_due(self, slot: _Slot) -> bool:
        if slot.token is None or slot.flight is not None or not self._may_ask(slot):
            return False
        return policy.renewal_due(slot.lifetime, self._left(slot, slot.token))

    def _may_ask(self, slot: _Slot) -> bool:
        return slot.failure is None or self._clock.monotonic() >= slot.retry_at

    # the flight

    def _launch(self, slot: _Slot) -> asyncio.Task[Token | TokenError]:
        """The flight under way, or a new one. It never raises: nobody may be waiting for a renewal."""
        if slot.flight is None:
            slot.flight = asyncio.create_task(self._fly(slot), name=f"token {slot.resource}")
        return slot.flight

    async def _fly(self, slot: _Slot) -> Token | TokenError:
        began = self._clock.monotonic()
        try:
            outcome = await self._asked(slot)
        finally:
            events.took("token", self._clock.monotonic() - began)
            slot.flight, slot.stale = None, False
        if isinstance(outcome, Token):
            self._landed(slot, outcome)
        else:
            self._failed(slot, outcome)
        return outcome

    async def _asked(self, slot: _Slot) -> Token | TokenError:
        asker = slot.asker
        try:
            async with asyncio.timeout(self._deadline):
                return await self._in_thread(lambda: asker.fetch(slot.resource))
        except TokenError as error:
            return error
        except TimeoutError:
            # the hanging thread keeps the old one to itself
            slot.asker = _LazyAsker(self._upstream, self._clock, self.choice)
            return local("timed-out").error(evidence=f"no answer within {self._deadline:.0f} s")
        except Exception as fault:
            return local("internal").error(evidence=f"{type(fault).__name__} while asking")

    async def _in_thread(self, work: Callable[[], Token]) -> Token:
        future = away(work, "relay-token")
        self._pending.add(future)
        try:
            return await future
        finally:
            self._pending.discard(future)

    def _landed(self, slot: _Slot, token: Token) -> None:
        if slot.failure is not None:
            events.notice(
                what="token obtained again", upstream=self._upstream.name, resource=slot.resource.value
            )
        self._tell_choice()
        slot.token, slot.suspect = token, False
        slot.fetched = self._clock.monotonic()
        slot.lifetime = token.expires - self._clock.now()
        slot.failure, slot.failures, slot.retry_at = None, 0, 0.0

    def _tell_choice(self) -> None:
        """Once for each change: which credential is dead, and which one carries on."""
        news = self.choice.news()
        if news is not None:
            events.advice(
                where="tokens",
                what=f"{news.dead} of {self._upstream.name} was refused ({news.fault.code}: {news.fault}); "
                f"{news.working} works and is used",
                remedy=news.remedy,
                upstream=self._upstream.name,
                evidence=news.fault.evidence,
            )

    def _failed(self, slot: _Slot, error: TokenError) -> None:
        new = slot.failure is None or slot.failure.code != error.code
        slot.failure = error
        slot.failures += 1
        wait = policy.pause(
            temporary=error.temporary, failures=slot.failures, retry_after=slot.asker.retry_after
        )
        slot.retry_at = self._clock.monotonic() + wait
        if new and slot.token is not None:  # without a token the lanes say it themselves
            self._report(slot, error)

    def _report(self, slot: _Slot, error: TokenError) -> None:
        events.trouble(
            where="tokens",
            what=f"renewing the token failed, the old one is still used: {error}",
            remedy=error.remedy,
            upstream=self._upstream.name,
            resource=slot.resource.value,
            code=error.code,
            evidence=error.evidence,
        )


def _told(failure: TokenError | None) -> str | None:
    return f"{failure.code}: {failure}" if failure else None


def _again(error: TokenError) -> TokenError:
    """A copy for each caller: one shared exception would collect all their tracebacks."""
    return TokenError(
        str(error), code=error.code, remedy=error.remedy, temporary=error.temporary, evidence=error.evidence
    )
