"""The simulated Entra: tokens with the claims of the real ones, and its refusals with their numbers and statuses."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from typing import Any

import aiohttp
import pytest

from relay.simulator.faults import Fault
from tests.simulator.keykit import claims_of, make_certificate, msal_token
from tests.simulator.kit import EXCHANGE_SCOPE, GRAPH_SCOPE, Clock, Start, fetch_token, http, token_answer


async def test_an_exchange_token_carries_the_documented_claims(start: Start, clock: Clock) -> None:
    """Audience, tenant, app, object id, times and the granted role are in the token; the kid names its key."""
    sim = await start(clock=clock)
    status, body = await token_answer(sim)
    claims = claims_of(body["access_token"])
    assert (status, body["token_type"], body["expires_in"]) == (200, "Bearer", 3599)
    assert claims["aud"] == "https://outlook.office365.com"
    assert claims["roles"] == ["SMTP.SendAsApp"]
    assert (claims["tid"], claims["appid"], claims["appidacr"]) == (
        sim.state.tenant_id,
        sim.state.client_id,
        "1",
    )
    assert claims["iss"] == f"https://sts.windows.net/{sim.state.tenant_id}/"
    assert claims["exp"] == clock.now + 3599
    assert {"oid", "uti", "nbf", "iat"} <= set(claims)
    assert sim.counters["token_requests"] == 1


async def test_roles_are_absent_when_the_resource_grants_none(start: Start) -> None:
    """SMTP.SendAsApp says nothing in a Graph token, and an RBAC grant leaves no trace at all."""
    sim = await start(permissions={"SMTP.SendAsApp", "rbac-mail-send"})
    claims = claims_of(await fetch_token(sim, GRAPH_SCOPE))
    assert claims["aud"] == "https://graph.microsoft.com"
    assert "roles" not in claims


@pytest.mark.parametrize(
    ("form", "status", "error", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 400, "unauthorized_client", 700016),
        ({"tenant": "00000000-0000-0000-0000-000000000000"}, 400, "invalid_tenant", 90002),
        ({"tenant": "not a tenant"}, 400, "invalid_request", 900023),
        ({"tenant": "common"}, 400, "invalid_request", 9001023),
        ({"scope": "https://outlook.office365.com/SMTP.Send"}, 400, "invalid_scope", 1002012),
        ({"scope": f"{EXCHANGE_SCOPE} {GRAPH_SCOPE}"}, 400, "invalid_scope", 70011),
        ({"scope": "https://example.com/.default"}, 400, "invalid_resource", 500011),
        ({"scope": ""}, 400, "invalid_request", 900144),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
    ],
)
async def test_refusals_have_the_number_and_status_of_entra(
    start: Start, form: dict[str, str], status: int, error: str, code: int
) -> None:
    """Each fault of a request gives its AADSTS number, with every field that Entra sends."""
    sim = await start()
    answer, body = await token_answer(sim, **form)
    assert (answer, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    assert {"timestamp", "trace_id", "correlation_id", "error_uri"} <= set(body)
    assert sim.counters["token_failures"] == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"secret": "rotated"}, 401, 7000215),
        ({"secret_expired": True}, 401, 7000222),
        ({"secret_expires": 1.0}, 401, 7000222),
        ({"app_enabled": False}, 400, 7000112),
        ({"service_principal": False}, 401, 7000229),
        ({"tenant_exists": False}, 400, 90002),
    ],
)
async def test_an_administrators_change_shows_at_once(
    start: Start, change: dict[str, Any], status: int, code: int
) -> None:
    """What an administrator does to the app or its secret decides the next token request."""
    sim = await start()
    assert (await token_answer(sim))[0] == 200
    await sim.change(**change)
    answer, body = await token_answer(sim)
    assert (answer, body["error_codes"]) == (status, [code])


async def test_discovery_names_the_token_endpoint_and_refuses_an_unknown_tenant(start: Start) -> None:
    """The discovery document is served over verified TLS; an unknown tenant is AADSTS90002 with status 400."""
    sim = await start()
    async with http(sim) as session:
        path = "v2.0/.well-known/openid-configuration"
        async with session.get(f"{sim.authority}/{sim.state.tenant_id}/{path}") as answer:
            document = await answer.json()
        async with session.get(f"{sim.authority}/11111111-1111-1111-1111-111111111111/{path}") as refused:
            assert refused.status == 400
            assert (await refused.json())["error_codes"] == [90002]
    assert document["token_endpoint"] == f"{sim.authority}/{sim.state.tenant_id}/oauth2/v2.0/token"
    assert document["issuer"].startswith("https://")


async def test_msal_gets_a_token_with_a_secret(start: Start) -> None:
    """The library that real clients use is content with discovery and token endpoint."""
    sim = await start()
    authority = f"{sim.authority}/{sim.state.tenant_id}"
    result = await asyncio.to_thread(
        msal_token, authority, str(sim.ca_file), sim.state.client_id, sim.options.client_secret
    )
    assert claims_of(result["access_token"])["aud"] == "https://outlook.office365.com"


async def test_a_client_assertion_needs_a_registered_certificate(start: Start) -> None:
    """msal's assertion is verified against the registered certificate; without one it is AADSTS700027."""
    private, certificate = make_certificate()
    sim = await start(certificates=[certificate])
    authority = f"{sim.authority}/{sim.state.tenant_id}"
    credential = {"private_key": private, "public_certificate": certificate}
    arguments = (authority, str(sim.ca_file), sim.state.client_id, credential)
    good = await asyncio.to_thread(msal_token, *arguments)
    assert "access_token" in good, good
    assert claims_of(good["access_token"])["appidacr"] == "2"
    sim.state.certificates.clear()
    refused = await asyncio.to_thread(msal_token, *arguments)
    assert refused["error_codes"] == [700027]


async def test_a_federated_assertion_needs_a_matching_record(start: Start) -> None:
    """Issuer and subject of a foreign token must be registered, else AADSTS700213."""

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    payload = {"iss": "https://issuer.test", "sub": "system:relay", "exp": time.time() + 60}
    form = {
        "client_secret": "",
        "client_assertion": f"{part({'alg': 'RS256'})}.{part(payload)}.AAAA",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    sim = await start()
    assert (await token_answer(sim, **form))[1]["error_codes"] == [700213]
    sim.state.federated.append(("https://issuer.test", "system:relay"))
    assert (await token_answer(sim, **form))[0] == 200


async def test_entra_can_be_away_in_three_ways(start: Start) -> None:
    """Refused connections, 503, and silence; afterwards it answers on the same port, and Graph never went away."""
    sim = await start()
    await sim.change(entra_down="503")
    async with (
        http(sim) as session,
        session.get(f"{sim.authority}/x/v2.0/.well-known/openid-configuration") as answer,
    ):
        assert answer.status == 503
    await sim.change(entra_down="refuse")
    with pytest.raises(aiohttp.ClientConnectorError):
        await token_answer(sim)
    async with http(sim) as session, session.get(f"{sim.graph_url}/v1.0/me/messages") as answer:
        assert answer.status == 401
    await sim.change(entra_down="hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await token_answer(sim)
    await sim.change(entra_down=None)
    assert (await token_answer(sim))[0] == 200


async def test_token_faults(start: Start) -> None:
    """A fault may answer with a status and number of its own, or drop the connection, so many times."""
    sim = await start()
    sim.faults.add(Fault("token", "reply", "429 AADSTS90055 slow down", seconds=7))
    sim.faults.add(Fault("token", "drop"))
    status, body = await token_answer(sim)
    assert (status, body["error_codes"]) == (429, [90055])
    with pytest.raises(aiohttp.ClientError):
        await token_answer(sim)
    assert (await token_answer(sim))[0] == 200


async def test_the_certificate_bears_microsofts_names(start: Start) -> None:
    """A client that verifies the real host names accepts the simulator once it trusts its CA."""
    sim = await start()
    context = ssl.create_default_context(cafile=sim.ca_file)
    for name in ("login.microsoftonline.com", "graph.microsoft.com", "smtp.office365.com", "127.0.0.1"):
        port = int(sim.authority.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        assert writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        writer.close()
