"""Two credentials at once: the second carries on when the first is refused, so that a change has no gap."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from relay.errors import TokenError
from relay.settings import Certificate, ClientSecret, Secret
from relay.tokens.contract import Resource
from tests.tokens.fake_entra_server import (
    SECRET,
    FakeClock,
    FakeEntra,
    Identity,
    Make,
    make_identity,
    make_upstream,
)

Logged = list[tuple[str, dict[str, object]]]
OLD = ClientSecret(Secret("old~value"))
NEW = ClientSecret(Secret(SECRET))


def advices(logged: Logged) -> list[dict[str, object]]:
    return [fields for event, fields in logged if event == "advice"]


async def test_the_second_takes_over_and_is_kept_to(
    entra: FakeEntra, make: Make, clock: FakeClock, logged: Logged
) -> None:
    """One refusal, then no more: the dead one is not asked again, and it is said once which one that is."""
    tokens = make(credential=OLD, next_credential=NEW)
    assert (await tokens.token(Resource.SMTP)).value
    assert [form["client_secret"] for form in entra.requests] == ["old~value", SECRET]
    assert (tokens.choice.working, tokens.choice.faults[0].code) == (1, "secret-wrong")
    await tokens.token(Resource.GRAPH)
    clock.advance(4000)
    await tokens.token(Resource.SMTP)
    assert [form["client_secret"] for form in entra.requests[2:]] == [SECRET, SECRET]
    (said,) = advices(logged)
    assert "credential of Microsoft 365 was refused (secret-wrong" in str(said["what"])
    assert "next_credential works" in str(said["what"])
    assert "remove `next_credential`" in str(said["remedy"])
    assert "old~value" not in repr(logged) and SECRET not in repr(logged)


async def test_the_first_is_preferred_while_it_works(entra: FakeEntra, make: Make, logged: Logged) -> None:
    """A new one may lie ready for weeks."""
    tokens = make(credential=NEW, next_credential=OLD)
    await tokens.token(Resource.SMTP)
    assert [form["client_secret"] for form in entra.requests] == [SECRET]
    assert (tokens.choice.working, tokens.choice.faults) == (0, {})
    assert advices(logged) == []


async def test_the_change_happens_while_running(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """The old one is deleted at the registration: the next renewal goes over to the new one."""
    tokens = make(credential=NEW, next_credential=ClientSecret(Secret("coming~value")))
    await tokens.token(Resource.SMTP)
    entra.secret = "coming~value"
    clock.advance(4000)
    assert (await tokens.token(Resource.SMTP)).value
    assert tokens.choice.working == 1


async def test_both_refused(make: Make) -> None:
    """The error of the first, and that the second did not help either."""
    tokens = make(credential=OLD, next_credential=ClientSecret(Secret("dead~too")))
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.code == "secret-wrong"
    assert "`next_credential` was refused as well" in str(caught.value)
    assert "dead~too" not in caught.value.evidence + repr(caught.value)


async def test_other_refusals_are_not_tried_twice(entra: FakeEntra, make: Make) -> None:
    """What another credential of the same application cannot cure costs one request."""
    entra.check = lambda form: (7000229, "The client application is missing service principal.")
    tokens = make(credential=OLD, next_credential=NEW)
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.code == "service-principal-missing"
    assert len(entra.requests) == 1


async def test_a_certificate_may_follow_a_secret_and_the_reverse(
    entra: FakeEntra, make: Make, tmp_path: Path
) -> None:
    """Also when the first one's file is gone: that is a fault of the credential like any other."""
    tokens = make(credential=Certificate(tmp_path / "gone.pem", None), next_credential=NEW)
    assert (await tokens.token(Resource.SMTP)).value
    assert tokens.choice.faults[0].code == "certificate-missing"
    identity: Identity = make_identity("app")
    file = tmp_path / "app.pem"
    file.write_bytes(identity.key_pem() + identity.certificate_pem())
    entra.check = lambda form: None if "client_assertion" in form else (7000222, "The secret has expired.")
    tokens = make(credential=OLD, next_credential=Certificate(file, None))
    assert (await tokens.token(Resource.SMTP)).value
    assert tokens.choice.faults[0].code == "secret-expired"


def test_the_rows_of_status_name_both(make: Make) -> None:
    """Which one is in use, which one is dead, and what to do."""
    from relay.status import credential_rows
    from relay.tokens.choice import Choice

    day = datetime.date(2030, 11, 1)
    upstream = make_upstream("https://x", None, credential=OLD, next_credential=NEW, next_secret_expires=day)
    choice = Choice()
    choice.worked(1, {0: TokenError("The client secret is wrong.", code="secret-wrong", remedy="Step 5.")})
    now = datetime.datetime(2030, 10, 2, tzinfo=datetime.UTC).timestamp()
    first, second = credential_rows(upstream, now, choice=choice)
    assert (first["slot"], first["in_use"], first["expires"]) == ("credential", False, None)
    assert (first["error"], first["remedy"]) == ("secret-wrong: The client secret is wrong.", "Step 5.")
    assert (second["slot"], second["in_use"], second["error"]) == ("next_credential", True, None)
    assert (second["kind"], second["expires"], second["days_left"]) == (
        "client_secret",
        "2030-11-01T00:00:00.000Z",
        30,
    )
