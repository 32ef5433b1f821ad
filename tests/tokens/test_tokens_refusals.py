"""Entra's refusals become typed errors with the remedy, whatever shape msal gives them (facts 7.2, 7.4)."""

from __future__ import annotations

import ssl

import pytest
from aiohttp import web

from relay.errors import TokenError
from relay.settings import ClientSecret, Secret
from relay.tokens import aadsts
from relay.tokens.contract import Resource
from relay.tokens.entra import EntraTokens
from tests.tokens.fake_entra_server import CLIENT, SECRET, TENANT, FakeClock, FakeEntra, Make, refusal

GUID = "0f0f0f0f-1111-2222-3333-444444444444"


async def refused(tokens: EntraTokens) -> TokenError:
    """The error of one request."""
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    return caught.value


@pytest.mark.parametrize(("reason", "code"), [(row, code) for row in aadsts.REASONS for code in row.codes])
async def test_each_number_of_the_table(reason: aadsts.Reason, code: int) -> None:
    """Every AADSTS number leads to its own row, from the list of numbers or from the text alone."""
    assert aadsts.look_up([code]) is reason
    assert aadsts.look_up(aadsts.codes_in(f"AADSTS{code}: words")) is reason


async def test_an_unknown_number_falls_back(entra: FakeEntra, make: Make) -> None:
    """A number we do not know is an administrator's matter, unless ``error`` says it is temporary."""
    assert aadsts.look_up([99999999], "invalid_client") is aadsts.UNKNOWN
    assert aadsts.look_up([], "temporarily_unavailable").temporary
    entra.check = lambda form: (99999999, "Something new.")
    error = await refused(make())
    assert (error.code, error.temporary) == ("entra-refused", False)
    assert "AADSTS99999999" in error.evidence


async def test_a_wrong_secret_is_never_shown(entra: FakeEntra, make: Make) -> None:
    """Even when the server echoes the secret, no part of the error contains it."""
    entra.secret = "another"
    error = await refused(make())
    assert (error.code, error.temporary) == ("secret-wrong", False)
    assert "Step 5" in error.remedy
    assert "AADSTS7000215" in error.evidence
    assert SECRET not in f"{error}{error.remedy}{error.evidence}{error!r}"


async def test_a_secret_id_is_recognised(make: Make) -> None:
    """The classic: the secret's ID was copied instead of its Value."""
    error = await refused(make(credential=ClientSecret(Secret(GUID))))
    assert error.code == "secret-wrong"
    assert "Secret ID" in str(error)
    assert GUID not in error.evidence


async def test_an_unknown_tenant(entra: FakeEntra, make: Make) -> None:
    """msal raises ValueError with the number only in a chained exception."""
    error = await refused(make(tenant_id=GUID))
    assert (error.code, error.temporary) == ("tenant-unknown", False)
    assert "AADSTS90002" in error.evidence
    assert "Step 6" in error.remedy


async def test_swapped_ids_are_recognised(make: Make) -> None:
    """Tenant and client id exchanged: found out by asking for the tenant named by the client id."""
    error = await refused(make(tenant_id=CLIENT, client_id=TENANT))
    assert (error.code, error.temporary) == ("ids-swapped", False)


async def test_an_application_unknown_to_the_tenant(entra: FakeEntra, make: Make) -> None:
    """700016 names both ids as suspects."""
    entra.check = lambda form: (700016, f"Application with identifier '{CLIENT}' was not found.")
    error = await refused(make())
    assert error.code == "application-unknown"
    assert "tenant_id" in error.remedy


async def test_429_with_html_is_temporary_and_obeyed(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """msal raises JSONDecodeError here; Retry-After sets the pause."""
    entra.fault = lambda request: web.Response(
        status=429, text="<html>Too many</html>", content_type="text/html", headers={"Retry-After": "90"}
    )
    tokens = make()
    error = await refused(tokens)
    assert (error.code, error.temporary) == ("entra-throttled", True)
    entra.fault = None
    clock.advance(89)
    assert (await refused(tokens)).code == "entra-throttled"
    clock.advance(2)
    assert (await tokens.token(Resource.SMTP)).value


async def test_429_with_json_is_temporary(entra: FakeEntra, make: Make) -> None:
    """Whatever number it carries."""
    entra.fault = lambda request: refusal(429, 7000215, "invalid_client", "slow down")
    assert (await refused(make())).code == "entra-throttled"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_errors_are_temporary(entra: FakeEntra, make: Make, status: int) -> None:
    """msal raises MsalServiceError, with and without a JSON body."""
    entra.fault = lambda request: web.Response(status=status, text="upstream sad")
    error = await refused(make())
    assert (error.code, error.temporary) == ("entra-down", True)
    assert f"HTTP {status}" in error.evidence


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_failing_discovery_is_temporary(entra: FakeEntra, make: Make, status: int) -> None:
    """The constructor of msal asks the network too; its failure is no mistake of the administrator."""
    entra.discovery_fault = lambda request: web.Response(status=status, text="no")
    tokens = make()
    assert (await refused(tokens)).temporary
    entra.discovery_fault = None
    tokens.retry_now()
    assert (await tokens.token(Resource.SMTP)).value


async def test_a_captive_portal(entra: FakeEntra, make: Make) -> None:
    """A page instead of JSON, at discovery or at the token endpoint, is named as such."""
    page = "<html>Please log in to the hotel</html>"
    entra.discovery_fault = lambda request: web.Response(text=page, content_type="text/html")
    first = await refused(make())
    entra.discovery_fault = None
    entra.fault = lambda request: web.Response(text=page, content_type="text/html")
    second = await refused(make())
    assert (first.code, second.code) == ("not-entra", "not-entra")
    assert "hotel" in second.evidence


async def test_a_redirect_is_not_followed(entra: FakeEntra, make: Make) -> None:
    """The secret goes to the token endpoint and nowhere else."""
    entra.fault = lambda request: web.Response(status=307, headers={"Location": "https://localhost:1/steal"})
    assert (await refused(make())).code == "not-entra"
    assert len(entra.requests) == 1


async def test_an_endless_answer_is_cut(entra: FakeEntra, make: Make) -> None:
    """Memory is bounded even when the server is not who we think."""
    entra.fault = lambda request: web.Response(body=b"x" * (3 << 20))
    error = await refused(make())
    assert error.temporary
    assert len(error.evidence) <= 600


async def test_a_clock_far_off_is_named(entra: FakeEntra, make: Make, clock: FakeClock) -> None:
    """700024 with a Date header 20 minutes away: the remedy says how far this clock is off."""
    clock.advance(1200)
    entra.check = lambda form: (700024, "Client assertion is not within its valid time range.")
    tokens = make()
    error = await refused(tokens)
    assert error.code == "clock-wrong"
    assert "20 min ahead of" in error.remedy
    assert tokens.clock_skew == pytest.approx(1200, abs=5)


async def test_a_good_clock_is_not_blamed(entra: FakeEntra, make: Make) -> None:
    """The skew is known, and small."""
    tokens = make()
    await tokens.token(Resource.SMTP)
    assert tokens.clock_skew == pytest.approx(0, abs=5)


async def test_a_mistaken_clock_does_not_shorten_a_token(make: Make, clock: FakeClock) -> None:
    """Lifetime is counted on our own clock, so a clock two hours ahead still gets an hour of use."""
    clock.advance(7200)
    token = await make().token(Resource.SMTP)
    assert token.expires == pytest.approx(clock.now() + 3600, abs=5)


async def test_region_variable_is_ignored(
    entra: FakeEntra, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MSAL_FORCE_REGION would send the request to a regional endpoint that is not for us."""
    monkeypatch.setenv("MSAL_FORCE_REGION", "westeurope")
    assert (await make().token(Resource.SMTP)).value
    assert len(entra.requests) == 1


async def test_old_tls_is_refused() -> None:
    """TLS 1.2 is the least, names are checked, and certificates required."""
    from relay.tokens.wire import tls_context

    context = tls_context(None)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
