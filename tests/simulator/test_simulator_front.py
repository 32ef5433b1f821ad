"""What may stand between a relay and Microsoft, and what Exchange's refusals let one tell apart."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import pytest

from tests.simulator.kit import Connect, Start, fetch_token, http, token_answer


async def test_a_firewall_hides_starttls(start: Start, connect: Connect) -> None:
    """Its banner is crossed out, and so are STARTTLS and the word for it."""
    sim = await start()
    await sim.change(smtp_front="strips-starttls")
    dialog = await connect(sim, "raw")
    assert (await dialog.read()).startswith("220 ****")
    hello = await dialog.say("EHLO relay.test")
    assert "STARTTLS" not in hello and "XXXXXXXA" in hello
    assert (await dialog.say("STARTTLS")).startswith("500 ")
    await sim.change(smtp_front=None)
    assert "STARTTLS" in await (await connect(sim, "clear")).say("EHLO relay.test")


async def test_somebody_else_answers(start: Start, connect: Connect) -> None:
    """Banner and EHLO bear a foreign name."""
    sim = await start()
    await sim.change(smtp_front="foreign-banner")
    dialog = await connect(sim, "raw")
    assert await dialog.read() == "220 mailguard.example.net ESMTP ready"
    assert (await dialog.say("EHLO relay.test")).startswith("250-mailguard.example.net ")


async def test_tls_on_port_587_is_broken_open(start: Start, connect: Connect) -> None:
    """The certificate has the right name and a foreign issuer; afterwards all is well again."""
    sim = await start()
    await sim.change(smtp_front="intercepts-tls")
    dialog = await connect(sim, "clear")
    with pytest.raises(ssl.SSLCertVerificationError):
        await dialog.starttls()
    await sim.change(smtp_front=None)
    assert (await (await connect(sim, "tls")).auth()).startswith("235")


async def test_https_is_broken_open(start: Start) -> None:
    """The same for Entra and Graph; who trusts the proxy's authority gets through."""
    sim = await start()
    await sim.change(https_front="intercepts-tls")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await token_answer(sim)
    trusting = ssl.create_default_context(cafile=sim.directory / "interceptor" / "ca.pem")
    port = int(sim.graph_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
    issuer = dict(pair[0] for pair in writer.get_extra_info("peercert")["issuer"])
    writer.close()
    assert issuer["commonName"] == "Example Proxy Inspection CA"
    await sim.change(https_front=None)
    assert (await token_answer(sim))[0] == 200


async def test_a_web_filter_answers_instead(start: Start) -> None:
    """A page, not JSON, from somebody who is not Microsoft; for Entra and Graph alike."""
    sim = await start()
    await sim.change(https_front="block-page")
    for url in (f"{sim.authority}/common/discovery/instance", f"{sim.graph_url}/v1.0/me/messages"):
        async with http(sim) as session, session.get(url) as answer:
            assert (answer.status, answer.content_type) == (403, "text/html")
            assert "request-id" not in answer.headers


@pytest.mark.parametrize(
    ("change", "reply"),
    [
        ({"permissions": []}, "535 5.7.3 Authentication unsuccessful ["),
        ({"permissions": ["Mail.Send"]}, "535 5.7.3 Authentication unsuccessful ["),
        ({"exchange_service_principal": False}, "535 5.7.3 Authentication unsuccessful ["),
        ({"full_access": ["it@contoso.com"]}, "535 5.7.3 Authentication unsuccessful ["),
        ({"mailboxes": ["it@contoso.com"]}, "535 5.7.3 Authentication unsuccessful ["),
        ({"smtp_auth_disabled_tenant": True}, "disabled for the Tenant."),
        ({"smtp_auth_disabled_mailboxes": ["notifications@contoso.com"]}, "disabled for the Mailbox."),
        ({"smtp_policy": "security-defaults"}, "security defaults policy"),
        ({"smtp_policy": "conditional-access"}, "did not meet the criteria"),
    ],
)
async def test_refused_logons_tell_as_much_as_exchange(
    start: Start, connect: Connect, change: dict[str, Any], reply: str
) -> None:
    """Grant, service principal and mailbox permission look alike; the switches and policies say their name."""
    sim = await start()
    await sim.change(**change)
    dialog = await connect(sim, "tls")
    answer = await dialog.auth(token=await fetch_token(sim))
    assert answer.startswith("535 5.7.") and reply in answer
