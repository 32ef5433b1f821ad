"""One token serves everybody: fetched once, renewed in time, kept while Entra is away, dropped when refused."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from relay.errors import TokenError
from relay.tokens import policy
from relay.tokens.contract import Resource, Token
from relay.tokens.entra import EntraTokens
from tests.tokens.fake_entra_server import GRAPH, OUTLOOK, FakeClock, FakeEntra, Make

Logged = list[tuple[str, dict[str, object]]]


async def settled(tokens: EntraTokens) -> None:
    """Wait for a background renewal that was started."""
    flights = [slot.flight for slot in tokens._slots.values() if slot.flight]
    await asyncio.gather(*flights)


async def test_fifty_callers_share_one_request(entra: FakeEntra, make: Make) -> None:
    """Fifty lanes asking at once cost one discovery and one token request, and get the same token."""
    tokens = make()
    got = await asyncio.gather(*(tokens.token(Resource.SMTP) for _ in range(50)))
    assert len({token.value for token in got}) == 1
    assert (len(entra.discoveries), len(entra.requests)) == (1, 1)


async def test_each_resource_has_its_own_token(entra: FakeEntra, make: Make) -> None:
    """SMTP and Graph tokens are asked for with their own scope and never mixed."""
    tokens = make()
    smtp, graph = await asyncio.gather(tokens.token(Resource.SMTP), tokens.token(Resource.GRAPH))
    assert smtp.claims["aud"] == OUTLOOK
    assert graph.claims["aud"] == GRAPH
    assert sorted(form["scope"] for form in entra.requests) == [f"{GRAPH}/.default", f"{OUTLOOK}/.default"]
    assert graph.roles == ("Mail.Send", "SMTP.SendAsApp")


async def test_a_cancelled_waiter_does_not_cancel_the_request(entra: FakeEntra, make: Make) -> None:
    """The lane that asked first goes away; the others still get the token of that request."""
    entra.gate.clear()
    tokens = make()
    first = asyncio.create_task(tokens.token(Resource.SMTP))
    await entra.arrived.wait()
    second = asyncio.create_task(tokens.token(Resource.SMTP))
    await asyncio.sleep(0)
    first.cancel()
    entra.gate.set()
    token = await second
    assert first.cancelled()
    assert token.value
    assert len(entra.requests) == 1


async def test_renewal_happens_in_the_background(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """With 11 of 60 minutes left the old token is still handed out at once, and a new one is on its way."""
    tokens = make()
    old = await tokens.token(Resource.SMTP)
    clock.advance(3600 - 660)
    entra.gate.clear()
    assert await tokens.token(Resource.SMTP) is old
    entra.gate.set()
    await settled(tokens)
    new = await tokens.token(Resource.SMTP)
    assert new.value != old.value
    assert new.expires == pytest.approx(clock.now() + 3600, abs=5)
    assert len(entra.requests) == 2


async def test_no_renewal_while_there_is_time(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """Half the life gone: nothing is asked."""
    tokens = make()
    await tokens.token(Resource.SMTP)
    clock.advance(1800)
    await tokens.token(Resource.SMTP)
    await settled(tokens)
    assert len(entra.requests) == 1


async def test_entra_away_with_a_valid_token(
    entra: FakeEntra, make: Make, clock: FakeClock, logged: Logged
) -> None:
    """The last good token is used until it really expires; the failed renewal is said once."""
    tokens = make()
    old = await tokens.token(Resource.SMTP)
    await entra.stop()
    clock.advance(3600 - 500)
    for _ in range(3):
        assert await tokens.token(Resource.SMTP) is old
        await settled(tokens)
        clock.advance(100)
    (state,) = tokens.states()
    assert state.expires == old.expires
    assert state.error is not None and state.error.startswith("connection-refused")
    assert [name for name, _ in logged] == ["trouble"]
    clock.advance(191)
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.temporary


async def test_entra_away_and_back(entra: FakeEntra, make: Make, clock: FakeClock, logged: Logged) -> None:
    """Without a token the error is temporary and remembered; after the pause the token comes by itself."""
    await entra.stop()
    tokens = make()
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.code == "connection-refused"
    assert caught.value.temporary
    await entra.start()
    with pytest.raises(TokenError):
        await tokens.token(Resource.SMTP)
    clock.advance(10)
    assert (await tokens.token(Resource.SMTP)).value
    assert ("notice", "token obtained again") in [(name, fields.get("what")) for name, fields in logged]


async def test_a_failure_is_remembered_for_all_lanes(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """A hundred lanes with a wrong secret cost one request; the pauses grow to a minute and stay there."""
    entra.secret = "another"
    tokens = make()
    asked = []
    for wait in (0.0, 5.1, 10.1, 20.1, 40.1, 60.1, 60.1):
        clock.advance(wait)
        errors = await asyncio.gather(
            *(tokens.token(Resource.SMTP) for _ in range(100)), return_exceptions=True
        )
        assert all(isinstance(error, TokenError) and error.code == "secret-wrong" for error in errors)
        asked.append(len(entra.requests))
    assert asked == [1, 2, 3, 4, 5, 6, 7]
    clock.advance(59)
    with pytest.raises(TokenError):
        await tokens.token(Resource.SMTP)
    assert len(entra.requests) == 7


async def test_a_mended_secret_shows_at_once_on_retry_now(entra: FakeEntra, make: Make) -> None:
    """The app registration is mended: `retry_now` needs no restart and no minute of msal's own memory."""

    def bad_request(request: web.Request) -> web.Response:
        return web.json_response(
            {"error": "unauthorized_client", "error_description": "AADSTS700016: no such application"},
            status=400,
        )

    entra.fault = bad_request
    tokens = make()
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.code == "application-unknown"
    entra.fault = None
    tokens.retry_now()
    assert (await tokens.token(Resource.SMTP)).value
    assert tokens.failure(Resource.SMTP) is None


async def test_discard_drops_that_very_token(entra: FakeEntra, make: Make) -> None:
    """After 535 the next call fetches anew; another lane refusing the same old token changes nothing more."""
    tokens = make()
    old = await tokens.token(Resource.SMTP)
    tokens.discard(old)
    new = await tokens.token(Resource.SMTP)
    tokens.discard(old)
    assert await tokens.token(Resource.SMTP) is new
    assert new.value != old.value
    assert len(entra.requests) == 2


async def test_a_loop_of_refusals_does_not_hammer_entra(
    entra: FakeEntra, make: Make, clock: FakeClock
) -> None:
    """A second refusal within the pause is remembered, and acted upon when the pause is over."""
    tokens = make()
    for _ in range(20):
        tokens.discard(await tokens.token(Resource.SMTP))
    assert len(entra.requests) == 2
    clock.advance(policy.DISCARD_PAUSE)
    await tokens.token(Resource.SMTP)
    assert len(entra.requests) == 3


async def test_retry_now_replaces_a_token_without_the_permission(
    entra: FakeEntra, make: Make, clock: FakeClock
) -> None:
    """Consent was granted after the token came: a release fetches a new one; a good one is left alone."""
    entra.roles = None
    tokens = make()
    assert (await tokens.token(Resource.GRAPH)).roles == ()
    entra.roles = ["Mail.Send"]
    clock.advance(60)
    tokens.retry_now()
    assert (await tokens.token(Resource.GRAPH)).roles == ("Mail.Send",)
    clock.advance(60)
    tokens.retry_now()
    await tokens.token(Resource.GRAPH)
    assert len(entra.requests) == 2


async def test_retry_now_with_entra_away_keeps_the_old_token(
    entra: FakeEntra, make: Make, clock: FakeClock
) -> None:
    """Better a token that may lack a permission than none."""
    entra.roles = None
    tokens = make()
    old = await tokens.token(Resource.GRAPH)
    await entra.stop()
    clock.advance(60)
    tokens.retry_now()
    assert await tokens.token(Resource.GRAPH) is old


async def test_a_token_in_doubt_is_fetched_again_once_in_a_minute(
    entra: FakeEntra, make: Make, clock: FakeClock
) -> None:
    """A permission was missed: a new token is tried for, not at every refusal, and at once when something was mended."""
    tokens = make()
    for requests, after in ((2, "nothing"), (2, "nothing"), (3, "a minute"), (4, "retry_now")):
        if after == "a minute":
            clock.advance(policy.DISCARD_PAUSE)
        elif after == "retry_now":
            tokens.retry_now()
        tokens.doubt(await tokens.token(Resource.GRAPH))
        await tokens.token(Resource.GRAPH)
        assert len(entra.requests) == requests


async def test_a_token_in_doubt_serves_on_while_entra_is_away(entra: FakeEntra, make: Make) -> None:
    """It only lacks something."""
    tokens = make()
    old = await tokens.token(Resource.GRAPH)
    await entra.stop()
    tokens.doubt(old)
    assert await tokens.token(Resource.GRAPH) is old


async def test_close_ends_the_waiting(entra: FakeEntra, make: Make) -> None:
    """Callers that wait get a temporary error, later callers too; nothing hangs on the request under way."""
    entra.gate.clear()
    tokens = make()
    waiter = asyncio.create_task(tokens.token(Resource.SMTP))
    await entra.arrived.wait()
    await tokens.close()
    with pytest.raises(TokenError) as caught:
        await waiter
    assert (caught.value.code, caught.value.temporary) == ("closed", True)
    with pytest.raises(TokenError):
        await tokens.token(Resource.SMTP)


async def test_states_before_anything_was_asked(make: Make) -> None:
    """No I/O, nothing to show."""
    assert make().states() == []


async def test_discarding_a_foreign_token_is_a_no_op(entra: FakeEntra, make: Make) -> None:
    """A token this source never gave out."""
    tokens = make()
    held = await tokens.token(Resource.SMTP)
    tokens.discard(Token("other", Resource.SMTP, held.expires))
    assert await tokens.token(Resource.SMTP) is held
