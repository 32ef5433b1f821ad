"""Rolling credentials: several secrets and certificates at once, addKey and removeKey with a proof of possession."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.simulator.app import Simulator
from relay.simulator.entra_codes import CODES
from relay.simulator.faults import Fault
from tests.simulator.graphkit import GraphClient
from tests.simulator.keykit import der_base64, make_certificate, make_proof, msal_token
from tests.simulator.kit import GRAPH_SCOPE, Clock, Start, fetch_token, http, token_answer


async def test_two_secrets_at_once(start: Start, clock: Clock) -> None:
    """Either logs in, each until its own end; the registration names both."""
    sim = await start(clock=clock, permissions={"Application.Read.All"})
    old = sim.state.client_secret
    await sim.change(
        extra_secrets=[{"value": "new-secret", "expires": clock.now + 1000, "name": "second"}],
        secret_expires=clock.now + 10,
    )
    for secret in (old, "new-secret"):
        assert (await token_answer(sim, client_secret=secret))[0] == 200
    async with http(sim) as session:
        graph = GraphClient(sim, session, await fetch_token(sim, GRAPH_SCOPE))
        shown = await graph.ask("GET", f"/v1.0/applications(appId='{sim.state.client_id}')")
    assert [secret["hint"] for secret in shown["passwordCredentials"]] == [old[:3], "new"]
    assert len({secret["keyId"] for secret in shown["passwordCredentials"]}) == 2
    clock.now += 10
    assert (await token_answer(sim, client_secret=old))[1]["error_codes"] == [7000222]
    assert (await token_answer(sim, client_secret="new-secret"))[0] == 200
    key_id = shown["passwordCredentials"][1]["keyId"]
    assert (await token_answer(sim, client_secret=key_id))[1]["error_codes"] == [7000215]


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_number_can_be_had(start: Start, code: int) -> None:
    """By a fault, and for as long as the state says so."""
    sim = await start()
    sim.faults.add(Fault("token", "reply", f"AADSTS{code}"))
    await sim.change(entra_error=code)
    for _ in range(2):
        status, body = await token_answer(sim)
        assert (status, body["error"], body["error_codes"]) == (CODES[code][1], CODES[code][0], [code])
    await sim.change(entra_error=None)
    assert (await token_answer(sim))[0] == 200


@pytest.mark.parametrize(("key", "code"), [("conditional_access", 53003), ("assignment_required", 501051)])
async def test_policies_of_the_tenant(start: Start, key: str, code: int) -> None:
    """They strike only who has shown a good credential."""
    sim = await start()
    await sim.change(**{key: True})
    assert (await token_answer(sim))[1]["error_codes"] == [code]
    assert (await token_answer(sim, client_secret="wrong"))[1]["error_codes"] == [7000215]


async def test_a_skewed_clock_shows(start: Start) -> None:
    """In the Date header, in the token's times, and in the refusal of an assertion of the wrong time."""
    private, certificate = make_certificate()
    sim = await start(certificates=[certificate])
    await sim.change(clock_skew=3600)
    async with http(sim) as session, session.get(f"{sim.authority}/common/discovery/instance") as answer:
        assert answer.headers["Date"] == sim.state.http_date()
    arguments = (
        f"{sim.authority}/{sim.state.tenant_id}",
        str(sim.ca_file),
        sim.state.client_id,
        {"private_key": private, "public_certificate": certificate},
    )
    assert (await asyncio.to_thread(msal_token, *arguments))["error_codes"] == [700024]


async def test_an_expired_certificate_does_not_log_in(start: Start) -> None:
    """It is still registered, and the refusal says that its time is over."""
    private, certificate = make_certificate(days=-0.5)
    sim = await start(certificates=[certificate])
    arguments = (
        f"{sim.authority}/{sim.state.tenant_id}",
        str(sim.ca_file),
        sim.state.client_id,
        {"private_key": private, "public_certificate": certificate},
    )
    refused = await asyncio.to_thread(msal_token, *arguments)
    assert refused["error_codes"] == [700027]
    assert "expired" in refused["error_description"]


class Rolling:
    """An app with one certificate and no permission at all, about to roll it."""

    def __init__(self, sim: Simulator, graph: GraphClient, private: str) -> None:
        self.sim, self.graph, self.private = sim, graph, private
        self.path = f"/v1.0/applications(appId='{sim.state.client_id}')"

    def proof(self, **changes: Any) -> str:
        return make_proof(self.private, self.sim.state.application_id(), self.sim.state.clock(), **changes)

    async def add(self, certificate: str, proof: str) -> Any:
        key = {"type": "AsymmetricX509Cert", "usage": "Verify", "key": der_base64(certificate)}
        body = {"keyCredential": key, "passwordCredential": None, "proof": proof}
        return await self.graph.ask("POST", f"{self.path}/addKey", json=body)


@pytest.fixture
async def rolling(start: Start) -> Any:
    private, certificate = make_certificate()
    sim = await start(permissions=set(), certificates=[certificate])
    async with http(sim) as session:
        yield Rolling(sim, GraphClient(sim, session, await fetch_token(sim, GRAPH_SCOPE)), private)


async def test_an_app_rolls_its_own_certificate(rolling: Rolling) -> None:
    """The new key is added on the strength of the old one, logs in, and then removes the old one."""
    sim, graph = rolling.sim, rolling.graph
    private, certificate = make_certificate()
    added = await rolling.add(certificate, rolling.proof())
    assert (graph.status, added["usage"]) == (200, "Verify")
    assert added["endDateTime"].endswith("Z")
    credential = {"private_key": private, "public_certificate": certificate}
    authority = f"{sim.authority}/{sim.state.tenant_id}"
    good = await asyncio.to_thread(msal_token, authority, str(sim.ca_file), sim.state.client_id, credential)
    assert "access_token" in good
    await sim.change(permissions=["Application.Read.All"])
    graph.token = await fetch_token(sim, GRAPH_SCOPE)
    shown = await graph.ask("GET", f"{rolling.path}?$select=keyCredentials,id")
    assert set(shown) == {"@odata.context", "keyCredentials", "id"}
    old, new = shown["keyCredentials"]
    assert (new["keyId"], new["key"]) == (added["keyId"], der_base64(certificate))
    rolling.private = private
    body = {"keyId": old["keyId"], "proof": rolling.proof()}
    await graph.ask("POST", f"/v1.0/applications/{shown['id']}/removeKey", json=body)
    assert graph.status == 204
    assert sim.state.certificates == [certificate]
    assert await graph.code("POST", f"{rolling.path}/removeKey", json=body) == (400, "Request_BadRequest")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "00000003-0000-0000-c000-000000000000"},
        {"iss": "the client id"},
        {"exp": 4e9},
        {"nbf": 1, "exp": 601},
        {"nbf": None},
    ],
)
async def test_a_proof_has_to_prove(rolling: Rolling, changes: dict[str, Any]) -> None:
    """Audience, issuer and times; Graph answers all of it alike."""
    _, certificate = make_certificate()
    refused = await rolling.add(certificate, rolling.proof(**changes))
    assert (rolling.graph.status, refused["error"]["code"]) == (401, "Authentication_MissingOrMalformed")
    assert len(rolling.sim.state.certificates) == 1


async def test_a_proof_needs_a_registered_key(rolling: Rolling) -> None:
    """A stranger's key proves nothing, nor does what is no token, nor a certificate whose time is over."""
    own = rolling.private
    rolling.private, certificate = make_certificate()
    for proof in (rolling.proof(), "rubbish"):
        await rolling.add(certificate, proof)
        assert rolling.graph.status == 401
    rolling.private = own
    await rolling.sim.change(clock_skew=3 * 86400)
    rolling.graph.token = await fetch_token(rolling.sim, GRAPH_SCOPE)
    await rolling.add(certificate, rolling.proof())
    assert rolling.graph.status == 401


@pytest.mark.parametrize(
    "key",
    [
        {"type": "AsymmetricX509Cert", "usage": "Verify", "key": "eA=="},
        {"type": "X509CertAndPassword", "usage": "Sign", "key": "eA=="},
        {"type": "AsymmetricX509Cert", "usage": "Verify"},
        {"type": "AsymmetricX509Cert", "usage": "Verify", "key": "no base64"},
    ],
)
async def test_a_key_has_to_be_a_certificate(rolling: Rolling, key: dict[str, Any]) -> None:
    """What is no public certificate is 400."""
    await rolling.graph.ask(
        "POST", f"{rolling.path}/addKey", json={"keyCredential": key, "proof": rolling.proof()}
    )
    assert rolling.graph.status == 400


async def test_a_new_certificate_needs_a_while(rolling: Rolling) -> None:
    """Sign-in hears of it later than the registration does."""
    sim = rolling.sim
    await sim.change(certificate_delay=120)
    private, certificate = make_certificate()
    await rolling.add(certificate, rolling.proof())
    credential = {"private_key": private, "public_certificate": certificate}
    arguments = (f"{sim.authority}/{sim.state.tenant_id}", str(sim.ca_file), sim.state.client_id, credential)
    assert (await asyncio.to_thread(msal_token, *arguments))["error_codes"] == [700027]
    await sim.change(clock_skew=130)  # as if that time had passed; within what Entra forgives
    assert "access_token" in await asyncio.to_thread(msal_token, *arguments)


async def test_who_may_read_the_registration(rolling: Rolling) -> None:
    """Nobody without a permission; with it also the service principal, and only properties that exist."""
    graph, sim = rolling.graph, rolling.sim
    assert await graph.code("GET", rolling.path) == (403, "Authorization_RequestDenied")
    await sim.change(permissions=["Application.Read.All"], assignment_required=False)
    graph.token = await fetch_token(sim, GRAPH_SCOPE)
    principal = await graph.ask("GET", f"/v1.0/servicePrincipals(appId='{sim.state.client_id}')")
    assert (principal["id"], principal["accountEnabled"]) == (sim.state.service_principal_id(), True)
    assert (await graph.code("GET", f"{rolling.path}?$select=colour"))[0] == 400
    assert (await graph.code("GET", "/v1.0/applications(appId='other')"))[0] == 404
