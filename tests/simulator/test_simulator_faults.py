"""Misbehaviour on request: the textual form, each action at its place, and the control address."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from relay.simulator.app import Simulator
from relay.simulator.faults import Fault, Faults
from tests.simulator.kit import MESSAGE, Connect, Start

MAILBOX = "notifications@contoso.com"


def test_the_textual_form_keeps_what_belongs_to_the_reply() -> None:
    """Semicolons and colons of an Exchange text stay in the reply; the known keys at the end are taken off."""
    text = "end-of-data:reply:554 5.2.0 STOREDRV.Submission:X; a b;times=3;recipient=a@b.example;seconds=1.5;after=2"
    fault = Fault.parse(text)
    assert (fault.where, fault.action) == ("end-of-data", "reply")
    assert fault.reply == "554 5.2.0 STOREDRV.Submission:X; a b"
    assert (fault.times, fault.recipient, fault.seconds, fault.after) == (3, "a@b.example", 1.5, 2)
    assert Fault.parse("rcpt:drop").times is None
    assert Fault.parse("connect:hang;seconds=2").seconds == 2.0


@pytest.mark.parametrize(
    "text", ["nowhere:drop", "mail:explode", "mail", "mail:drop-after-accept", "mail:drop;times=x"]
)
def test_a_fault_that_cannot_be_is_refused(text: str) -> None:
    """With ValueError, before anything starts."""
    with pytest.raises(ValueError):
        Fault.parse(text)


def test_faults_match_count_down_and_clear() -> None:
    """By mailbox and recipient without case; ``after`` lets matches pass; ``times`` ends it."""
    faults = Faults([Fault("rcpt", "drop", recipient="A@b.example", times=2, after=1)])
    assert faults.take("rcpt", MAILBOX, ["c@d.example"]) is None
    taken = [faults.take("rcpt", MAILBOX, ["a@B.example"]) for _ in range(4)]
    assert [fault is not None for fault in taken] == [False, True, True, False]
    faults.add(Fault("mail", "drop", mailbox="scans@contoso.com", times=None))
    assert faults.take("mail", MAILBOX) is None
    assert faults.take("mail", "Scans@contoso.com") is not None
    faults.clear()
    assert len(faults) == 0


async def test_a_drop_after_accept_keeps_the_message_and_says_nothing(start: Start, connect: Connect) -> None:
    """The uncertain end: Exchange has it, the client cannot know."""
    sim = await start(faults=[Fault("end-of-data", "drop-after-accept")])
    dialog = await connect(sim)
    assert await dialog.message(MESSAGE) == ""
    assert [message.subject for message in sim.messages] == ["hello"]


@pytest.mark.parametrize("place", ["mail", "rcpt", "data", "body", "end-of-data"])
@pytest.mark.parametrize("action", ["drop", "close"])
async def test_a_dropped_connection_keeps_nothing(
    start: Start, connect: Connect, place: str, action: str
) -> None:
    """Cut or closed in any phase of a transaction, the message is not Exchange's, and no file remains."""
    sim = await start(faults=[Fault(place, action)])
    dialog = await connect(sim)
    try:
        reply = await dialog.message(MESSAGE)
    except ConnectionError:
        reply = ""
    assert reply == ""
    assert sim.messages == []
    assert list((sim.directory / "messages").iterdir()) == []


async def test_a_refused_recipient_leaves_the_others(start: Start, connect: Connect) -> None:
    """A reply for one recipient only, until cleared."""
    sim = await start(
        faults=[Fault.parse("rcpt:reply:550 5.1.10 Recipient not found;recipient=gone@b.example")]
    )
    dialog = await connect(sim)
    for _ in range(2):
        assert (await dialog.say(f"MAIL FROM:<{MAILBOX}>")).startswith("250")
        assert (await dialog.say("RCPT TO:<gone@b.example>")).startswith("550 5.1.10 ")
        assert (await dialog.say("RCPT TO:<a@b.example>")).startswith("250 ")
        assert (await dialog.say("RSET")).startswith("250 ")


async def test_a_hang_ends_with_the_client(start: Start, connect: Connect) -> None:
    """Nothing is said; another session is served meanwhile; stopping does not wait for it."""
    sim = await start()
    silent, other = await connect(sim), await connect(sim)
    sim.faults.add(Fault("mail", "hang"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await silent.say(f"MAIL FROM:<{MAILBOX}>")
    assert (await other.message(MESSAGE)).startswith("250 ")


async def test_a_delay_only_delays(start: Start, connect: Connect) -> None:
    """The usual reply comes, later."""
    sim = await start(faults=[Fault("mail", "delay", seconds=0.05)])
    dialog = await connect(sim)
    begun = asyncio.get_running_loop().time()
    assert (await dialog.message(MESSAGE)).startswith("250 ")
    assert asyncio.get_running_loop().time() - begun >= 0.05


async def test_latency_is_paid_once_for_each_round_trip(start: Start, connect: Connect) -> None:
    """Pipelined commands share one."""
    sim = await start()
    dialog = await connect(sim)
    await sim.change(latency=0.05)
    begun = asyncio.get_running_loop().time()
    dialog.raw(b"NOOP\r\n" * 20)
    assert [await dialog.read() for _ in range(20)] == ["250 2.0.0 OK"] * 20
    assert 0.05 <= asyncio.get_running_loop().time() - begun < 0.5


async def control(sim: Simulator, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    """The JSON (or text) of one control request."""
    async with aiohttp.ClientSession() as session:
        given = {"data": body} if isinstance(body, str) else {"json": body}
        async with session.request(method, sim.control_url + path, **given) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json() if "json" in answer.content_type else await answer.read()


async def test_control_lists_and_deletes_mail(start: Start, connect: Connect) -> None:
    """The list as JSON, each message as it came, counters that stay after deleting, and a wait for mail to come."""
    sim = await start()
    waiting = asyncio.ensure_future(control(sim, "GET", "/messages?count=1&timeout=10"))
    await (await connect(sim)).message(MESSAGE)
    (listed,) = await waiting
    assert (listed["subject"], listed["recipients"], listed["transport"]) == (
        "hello",
        ["a@b.example"],
        "smtp",
    )
    assert await control(sim, "GET", f"/messages/{listed['id']}") == MESSAGE + b"\r\n"
    assert await control(sim, "DELETE", "/messages") == {"deleted": 1}
    assert await control(sim, "GET", "/messages") == []
    await control(sim, "GET", f"/messages/{listed['id']}", status=404)
    counters = await control(sim, "GET", "/counters")
    assert (counters["messages"], counters["tls_handshakes"], counters["token_requests"]) == (1, 1, 1)
    limits = await control(sim, "GET", "/limits")
    assert limits["mailboxes"][MAILBOX]["messages_per_minute"] == 1


async def test_control_sets_faults(start: Start, connect: Connect) -> None:
    """As text or as objects, listed with their hits, and cleared."""
    sim = await start()
    await control(sim, "POST", "/faults", "mail:reply:451 4.7.0 not now", 201)
    await control(
        sim, "POST", "/faults", [{"where": "data", "action": "drop", "times": 1}, "rcpt:close"], 201
    )
    await control(sim, "POST", "/faults", {"where": "mail"}, 400)
    await control(sim, "POST", "/faults", "mail:explode", 400)
    assert (await (await connect(sim)).message(MESSAGE)) == "451 4.7.0 not now"
    faults = await control(sim, "GET", "/faults")
    assert [(fault["where"], fault["hits"]) for fault in faults] == [("mail", 1), ("data", 0), ("rcpt", 0)]
    assert (await control(sim, "GET", "/refusals"))[0]["reply"] == "451 4.7.0 not now"
    await control(sim, "DELETE", "/faults", status=204)
    assert len(sim.faults) == 0


async def test_control_changes_the_tenant(start: Start) -> None:
    """PATCH /state takes effect at once, all of it or nothing; what it does not know it refuses."""
    sim = await start()
    state = await control(
        sim,
        "PATCH",
        "/state",
        {"secret": "new", "permissions": [], "limits": {"messages_per_minute": 5}, "idle": 1},
    )
    assert (state["client_secret"], state["permissions"], state["limits"]["idle"]) == ("new", [], 1)
    assert sim.state.limits.messages_per_minute == 5
    for wrong in (
        {"secret": "x", "colour": "red"},
        {"entra_down": "maybe"},
        {"connections": -1},
        {"permissions": ["X"]},
    ):
        await control(sim, "PATCH", "/state", wrong, 400)
    assert (await control(sim, "GET", "/state"))["client_secret"] == "new"
    assert set(await control(sim, "PATCH", "/state", await control(sim, "GET", "/state"))) == set(state)
