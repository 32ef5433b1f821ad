"""A mailbox user signs in once by device code: polling, refusals, refresh tokens, and what the tokens open."""

from __future__ import annotations

import asyncio
from typing import Any

import msal
import pytest

from relay.simulator.app import Simulator
from tests.simulator.graphkit import GraphClient, message
from tests.simulator.keykit import claims_of
from tests.simulator.kit import MESSAGE, Clock, Connect, Start, http, xoauth2

USER = "scans@contoso.com"
SMTP = "https://outlook.office.com/SMTP.Send offline_access"
MAIL = "https://graph.microsoft.com/Mail.Send offline_access"


class Device:
    """What `relay login` does, request by request."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim

    async def post(self, path: str, **form: str) -> tuple[int, dict[str, Any]]:
        url = f"{self.sim.authority}/{self.sim.state.tenant_id}/oauth2/v2.0/{path}"
        fields = {"client_id": self.sim.state.client_id, **form}
        async with http(self.sim) as session, session.post(url, data=fields) as answer:
            return answer.status, await answer.json()

    async def start(self, scope: str = SMTP) -> dict[str, Any]:
        status, body = await self.post("devicecode", scope=scope)
        assert status == 200, body
        return body

    async def poll(self, device_code: str) -> dict[str, Any]:
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        return (await self.post("token", grant_type=grant, device_code=device_code))[1]

    async def refresh(self, token: str, **form: str) -> dict[str, Any]:
        return (await self.post("token", grant_type="refresh_token", refresh_token=token, **form))[1]

    async def sign_in(self, scope: str = SMTP) -> dict[str, Any]:
        code = await self.start(scope)
        self.sim.users.decide(USER, approved=True)
        return await self.poll(code["device_code"])


@pytest.fixture
async def device(start: Start, clock: Clock) -> Device:
    return Device(await start(clock=clock, public_client=True))


async def test_polling_ends_with_tokens(device: Device, clock: Clock) -> None:
    """Pending, slower please, pending, approved: then a token that says who and what for; the code is used up."""
    code = await device.start()
    assert (code["expires_in"], code["interval"]) == (900, 5)
    assert code["user_code"] in code["message"]
    identity = code["device_code"]
    assert (await device.poll(identity))["error"] == "authorization_pending"
    clock.now += 1
    assert (await device.poll(identity))["error"] == "slow_down"
    clock.now += 5
    assert (await device.poll(identity))["error_codes"] == [70016]
    clock.now += 5
    device.sim.users.decide(USER, approved=True, user_code=code["user_code"])
    answer = await device.poll(identity)
    claims = claims_of(answer["access_token"])
    assert (claims["aud"], claims["scp"], claims["upn"]) == ("https://outlook.office.com", "SMTP.Send", USER)
    assert "roles" not in claims and "refresh_token" in answer
    assert (await device.poll(identity))["error"] == "bad_verification_code"


async def test_a_code_can_be_declined_or_run_out(device: Device, clock: Clock) -> None:
    """Each has its own answer."""
    code = await device.start()
    device.sim.users.decide(USER, approved=False)
    assert (await device.poll(code["device_code"]))["error"] == "authorization_declined"
    code = await device.start()
    clock.now += 900
    assert (await device.poll(code["device_code"]))["error"] == "expired_token"
    with pytest.raises(ValueError, match="not a user"):
        device.sim.users.decide("nobody@contoso.com", approved=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"public_client": False}, 7000218),
        ({"conditional_access": True}, 53003),
        ({"assignment_required": True}, 50105),
        ({"user_consent": False}, 65001),
        ({"disabled_users": [USER]}, 50057),
    ],
)
async def test_what_keeps_a_user_out(device: Device, change: dict[str, Any], code: int) -> None:
    """Settings of app, tenant and user, for the first sign-in and for every refresh."""
    token = (await device.sign_in())["refresh_token"]
    await device.sim.change(**change)
    assert (await device.sign_in())["error_codes"] == [code]
    assert (await device.refresh(token))["error_codes"] == [code]


async def test_scopes(device: Device) -> None:
    """One resource, permissions it has, and a refresh token only to who asks for it."""
    assert "refresh_token" not in await device.sign_in("https://outlook.office.com/SMTP.Send")
    for scope, code in ((f"{SMTP} {MAIL}", 28002), ("https://outlook.office.com/Fly", 70011)):
        assert (await device.post("devicecode", scope=scope))[1]["error_codes"] == [code]
    assert (await device.post("devicecode"))[1]["error_codes"] == [900144]


async def test_refresh_tokens_roll_and_lapse(device: Device, clock: Clock) -> None:
    """Each use gives a new one; after 90 days without use, or a changed password, a sign-in is needed."""
    first = (await device.sign_in())["refresh_token"]
    clock.now += 80 * 86400
    second = (await device.refresh(first))["refresh_token"]
    assert second != first
    clock.now += 80 * 86400
    assert claims_of((await device.refresh(second))["access_token"])["upn"] == USER
    other = await device.refresh(second, scope=MAIL)
    assert claims_of(other["access_token"])["aud"] == "https://graph.microsoft.com"
    clock.now += 90 * 86400
    assert (await device.refresh(second))["error_codes"] == [700082]
    third = (await device.sign_in())["refresh_token"]
    device.sim.users.revoke(USER)
    refused = await device.refresh(third)
    assert (refused["error"], refused["error_codes"]) == ("invalid_grant", [50173])
    clock.now += 1
    assert "access_token" in await device.sign_in()
    assert (await device.refresh("rubbish"))["error"] == "invalid_grant"


async def test_smtp_takes_the_users_own_mailbox_alone(device: Device, connect: Connect) -> None:
    """The user's token logs on as the user and as nobody else; a Graph token does not at all."""
    token = (await device.sign_in())["access_token"]
    dialog = await connect(device.sim, "tls")
    assert (await dialog.say(f"AUTH XOAUTH2 {xoauth2('it@contoso.com', token)}")).startswith("535 5.7.3")
    graph_token = (await device.sign_in(MAIL))["access_token"]
    assert (await dialog.say(f"AUTH XOAUTH2 {xoauth2(USER, graph_token)}")).startswith("535 5.7.3")
    assert (await dialog.say(f"AUTH XOAUTH2 {xoauth2('Scans@contoso.com', token)}")).startswith("235")
    reply = await dialog.message(MESSAGE.replace(b"notifications@", b"scans@"), sender=USER)
    assert reply.startswith("250 2.0.0")


async def test_graph_takes_me_and_the_user_by_name(device: Device) -> None:
    """Both are the same mailbox; another is denied; a draft would need another permission."""
    sim, body = device.sim, {"json": {"message": message()}}
    async with http(sim) as session:
        graph = GraphClient(sim, session, (await device.sign_in(MAIL))["access_token"])
        for path in ("/v1.0/me/sendMail", f"/v1.0/users/{USER}/sendMail"):
            await graph.ask("POST", path, **body)
            assert graph.status == 202
        other = await graph.code("POST", "/v1.0/users/it@contoso.com/sendMail", **body)
        assert other == (403, "ErrorAccessDenied")
        assert await graph.code("POST", "/v1.0/me/messages", json=message()) == (403, "ErrorAccessDenied")
        await sim.change(send_as={USER: ["it@contoso.com"]})
        body["json"]["message"]["from"] = {"emailAddress": {"address": "it@contoso.com"}}
        await graph.ask("POST", "/v1.0/me/sendMail", **body)
    assert graph.status == 202
    assert [mail.mailbox for mail in sim.messages] == [USER] * 3
    assert sim.messages[-1].header_from == "it@contoso.com"


async def test_the_control_address_decides_and_revokes(device: Device) -> None:
    """What a person would do in the browser, by script."""
    code = await device.start()
    control = device.sim.control_url
    async with http(device.sim) as session:
        async with session.get(f"{control}/devicecodes") as answer:
            assert [item["status"] for item in await answer.json()] == ["pending"]
        body = {"user": USER, "user_code": code["user_code"]}
        async with session.post(f"{control}/devicecodes", json=body) as answer:
            assert (await answer.json())["status"] == "approved"
        token = (await device.poll(code["device_code"]))["refresh_token"]
        async with session.post(f"{control}/revoke", json={"user": USER}) as answer:
            assert answer.status == 204
        async with session.post(f"{control}/devicecodes", json={"user": USER}) as answer:
            assert answer.status == 400
    assert (await device.refresh(token))["error_codes"] == [50173]


async def test_msal_signs_in(start: Start) -> None:
    """The library that real clients use is content with codes, tokens and accounts."""
    sim = await start(public_client=True, device_code_interval=0)
    await sim.change(auto_sign_in=USER)

    def sign_in() -> tuple[dict[str, Any], dict[str, Any]]:
        app = msal.PublicClientApplication(
            sim.state.client_id,
            authority=f"{sim.authority}/{sim.state.tenant_id}",
            instance_discovery=False,
            verify=str(sim.ca_file),
            timeout=(5, 5),
        )
        flow = app.initiate_device_flow(scopes=["https://outlook.office.com/SMTP.Send"])
        first = app.acquire_token_by_device_flow(flow)
        (account,) = app.get_accounts()
        scopes = ["https://outlook.office.com/SMTP.Send"]
        return first, app.acquire_token_silent_with_error(scopes, account, force_refresh=True) or {}

    first, second = await asyncio.to_thread(sign_in)
    assert claims_of(first["access_token"])["upn"] == USER, first
    assert claims_of(second["access_token"])["scp"] == "SMTP.Send"
