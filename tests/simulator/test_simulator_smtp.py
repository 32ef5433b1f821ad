"""The simulated smtp.office365.com speaks as the real one: announcements, TLS, AUTH, syntax, order and timers."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import ssl

import pytest

from relay.simulator.faults import Fault
from tests.simulator.kit import GRAPH_SCOPE, MESSAGE, Clock, Connect, Start, fetch_token, xoauth2

HOST = "SIM0PR01CA0001.outlook.office365.com"


async def test_announcements_before_and_after_starttls(start: Start, connect: Connect) -> None:
    """AUTH shows only inside TLS, STARTTLS only outside; the rest is what Exchange Online announces."""
    dialog = await connect(await start(), "raw")
    assert (await dialog.read()).startswith(f"220 {HOST} Microsoft ESMTP MAIL Service ready at ")
    common = ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
    first = (await dialog.say("EHLO relay.test")).split("\n")
    assert first[0] == f"250-{HOST} Hello [127.0.0.1]"
    assert [line[4:] for line in first[1:]] == [
        "SIZE 157286400",
        "PIPELINING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
        *common,
    ]
    await dialog.starttls()
    second = (await dialog.say("EHLO relay.test")).split("\n")
    assert [line[4:] for line in second[5:]] == ["AUTH LOGIN XOAUTH2", *common]
    assert dialog.sim.counters["tls_handshakes"] == 1


async def test_commands_sent_before_the_handshake_are_discarded(start: Start, connect: Connect) -> None:
    """What was pipelined in clear behind STARTTLS is neither answered nor remembered; EHLO is asked for again."""
    dialog = await connect(await start(), "ehlo")
    dialog.raw(b"STARTTLS\r\nEHLO injected.test\r\n")
    assert (await dialog.read()).startswith("220 2.0.0")
    await dialog.writer.start_tls(
        ssl.create_default_context(cafile=dialog.sim.ca_file), server_hostname="localhost"
    )
    assert (await dialog.say("MAIL FROM:<notifications@contoso.com>")).startswith(
        "503 5.5.2 Send hello first"
    )


async def test_auth_in_both_forms(start: Start, connect: Connect) -> None:
    """With an initial response, and after an empty 334."""
    sim = await start()
    first, second = await connect(sim, "tls"), await connect(sim, "tls")
    assert await first.auth() == "235 2.7.0 Authentication successful"
    assert await second.say("AUTH XOAUTH2") == "334 "
    assert (await second.say(xoauth2("Notifications@Contoso.com", await fetch_token(sim)))).startswith(
        "235 2.7.0"
    )
    assert sim.counters["auths"] == 2


async def test_auth_is_refused_in_clear_and_for_other_mechanisms(start: Start, connect: Connect) -> None:
    """504 before STARTTLS and for PLAIN; LOGIN is offered, and refused since basic authentication is off."""
    sim = await start()
    clear, dialog = await connect(sim, "ehlo"), await connect(sim, "tls")
    assert (await clear.auth()).startswith("504 5.7.4")
    assert (await dialog.say("AUTH PLAIN AGEAYg==")).startswith("504 5.7.4")
    assert (await dialog.say("AUTH LOGIN")).startswith("334 VXNlcm5hbWU6")
    assert (await dialog.say("dXNlcg==")).startswith("334 UGFzc3dvcmQ6")
    reply = await dialog.say("cGFzcw==")
    assert reply.startswith("535 5.7.139 Authentication unsuccessful, basic authentication is disabled.")


async def test_every_fault_of_token_or_mailbox_is_the_same_535(
    start: Start, connect: Connect, clock: Clock
) -> None:
    """A Graph token, a forged or expired one, an unknown mailbox and garbage all give 535 5.7.3."""
    sim = await start(clock=clock, logon_failures=0)
    dialog = await connect(sim, "tls")
    good, graph = await fetch_token(sim), await fetch_token(sim, GRAPH_SCOPE)
    mailbox = "notifications@contoso.com"
    forged = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB")
    for answer in (
        xoauth2(mailbox, graph),
        xoauth2(mailbox, forged),
        xoauth2("nobody@contoso.com", good),
        "no-base64!",
        base64.b64encode(b"user=a auth=b").decode(),
    ):
        reply = await dialog.say(f"AUTH XOAUTH2 {answer}")
        assert reply.startswith(f"535 5.7.3 Authentication unsuccessful [{HOST} ")
    clock.now += 3599
    assert (await dialog.say(f"AUTH XOAUTH2 {xoauth2(mailbox, good)}")).startswith("535 5.7.3")
    assert (await dialog.say("AUTH XOAUTH2")) == "334 "
    assert (await dialog.say("*")).startswith("535 5.7.3")
    assert sim.counters["auth_failures"] == 7


async def test_the_right_to_send_comes_from_entra_or_from_exchange(start: Start, connect: Connect) -> None:
    """Without SMTP.SendAsApp only an RBAC grant in scope works; with it, the mailbox permission is asked."""
    sim = await start(permissions={"Mail.Send"}, logon_failures=0)
    dialog = await connect(sim, "tls")
    assert (await dialog.auth()).startswith("535 5.7.3")
    await sim.change(permissions=["rbac-smtp"], rbac_scope=["scans@contoso.com"])
    assert (await dialog.auth()).startswith("535 5.7.3")
    assert (await dialog.auth("scans@contoso.com")).startswith("235 ")
    await sim.change(permissions=["rbac-smtp", "SMTP.SendAsApp"], full_access=[])
    assert (await (await connect(sim, "tls")).auth("scans@contoso.com")).startswith("535 5.7.3")


async def test_the_smtp_auth_switches(start: Start, connect: Connect) -> None:
    """Off for the tenant or the mailbox is 5.7.139 with the place in its text; the mailbox's setting wins."""
    sim = await start(logon_failures=0)
    await sim.change(smtp_auth_disabled_tenant=True)
    dialog = await connect(sim, "tls")
    assert "5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant." in (
        await dialog.auth()
    )
    await sim.change(smtp_auth_enabled_mailboxes=["notifications@contoso.com"])
    assert (await dialog.auth()).startswith("235 ")
    await sim.change(smtp_auth_disabled_mailboxes=["scans@contoso.com"])
    assert "disabled for the Mailbox." in await (await connect(sim, "tls")).auth("scans@contoso.com")


async def test_a_second_334_is_answered_by_an_empty_line(start: Start, connect: Connect) -> None:
    """With ``second_334`` a failure comes as Google's challenge first."""
    dialog = await connect(await start(second_334=True, permissions=set()), "tls")
    challenge = await dialog.auth()
    assert challenge.startswith("334 ")
    assert b'"status"' in base64.b64decode(challenge[4:])
    assert (await dialog.say("")).startswith("535 5.7.3")


async def test_three_failed_logons_close_the_connection(start: Start, connect: Connect) -> None:
    """As Exchange Server does; MAIL meanwhile names the inner error."""
    dialog = await connect(await start(permissions=set()), "tls")
    assert (await dialog.auth()).startswith("535 ")
    assert (await dialog.say("MAIL FROM:<notifications@contoso.com>")).startswith(
        "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful"
    )
    assert (await dialog.auth()).startswith("535 ")
    assert (await dialog.auth()).startswith("535 ")
    assert (await dialog.read()).startswith("421 4.7.0")
    assert await dialog.closed()


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM: <notifications@contoso.com>", "501 5.5.4"),
        ("MAIL FROM:notifications@contoso.com", "501 5.5.4"),
        ("MAIL FROM:<notifications@contoso.com>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<notifications@contoso.com> SIZE=abc", "501 5.5.4"),
        ("MAIL FROM:<notifications@contoso.com> COLOUR=red", "555 5.5.4"),
        ("MAIL FROM:<notifications contoso.com>", "501 5.1.7"),
        ("MAIL FROM:<@contoso.com>", "501 5.1.7"),
        ("MAIL FROM:<>", "550 5.7.60"),
        ("MAIL FROM:<jörg@contoso.com>", "553 5.6.7"),
        ("MAIL FROM:<notifications@contoso.com> SIZE=36700161", "552 5.3.4"),
        ("RCPT TO:<a@b.example>", "503 5.5.2"),
        ("DATA", "503 5.5.2"),
        ("NONSENSE", "500 5.3.3"),
        ("VRFY someone", "252 "),
        ("HELP", "214 "),
        ("NOOP whatever", "250 2.0.0"),
        ("STARTTLS", "503 5.5.2"),
        ("EHLO bad name!", "501 5.5.4"),
        ("NOOP " + "x" * 5000, "500 5.5.2"),
    ],
)
async def test_strict_answers(start: Start, connect: Connect, command: str, reply: str) -> None:
    """Syntax is read strictly, and every refusal has its code."""
    dialog = await connect(await start())
    assert (await dialog.say(command)).startswith(reply)


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("TO:<a@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b.example", "250 2.1.5"),
        ('TO:<"john > doe"@b.example>', "250 2.1.5"),
        ("TO:<a@[192.0.2.1]>", "250 2.1.5"),
        ("TO:<a@b.example> NOTIFY=SOMETIMES", "501 5.5.4"),
        ("TO:<a..b@b.example>", "501 5.1.3"),
        ("TO:<postmaster>", "501 5.1.3"),
        ("TO:<>", "501 5.1.3"),
        ("TO: <a@b.example>", "501 5.5.4"),
    ],
)
async def test_recipients_are_read_strictly(
    start: Start, connect: Connect, recipient: str, reply: str
) -> None:
    """RFC 5321 addresses with DSN parameters pass, anything else is 501."""
    dialog = await connect(await start())
    mail = (
        "MAIL FROM:<notifications@contoso.com> RET=HDRS ENVID=x+2B1 BODY=8BITMIME SMTPUTF8 SIZE=100 AUTH=<>"
    )
    assert await dialog.say(mail) == "250 2.1.0 Sender OK"
    assert (await dialog.say(f"RCPT {recipient}")).startswith(reply)


async def test_lines_must_end_in_crlf(start: Start, connect: Connect) -> None:
    """A command that ends in a bare LF, or holds a control character, is no command."""
    dialog = await connect(await start())
    dialog.raw(b"NOOP\n")
    assert (await dialog.read()).startswith("500 5.3.3")
    assert (await dialog.say(b"NOOP \x01")).startswith("500 5.3.3")


async def test_pipelined_commands_are_answered_in_order(start: Start, connect: Connect) -> None:
    """A whole transaction in one write, the next one behind its body."""
    sim = await start()
    dialog = await connect(sim)
    one = b"MAIL FROM:<notifications@contoso.com>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
    dialog.raw(one + MESSAGE + b"\r\n.\r\n" + one + MESSAGE + b"\r\n.\r\nQUIT\r\n")
    codes = [(await dialog.read())[:3] for _ in range(9)]
    assert codes == ["250", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert [message.connection for message in sim.messages] == [1, 1]


async def test_five_protocol_errors_close_the_connection(start: Start, connect: Connect) -> None:
    """The fifth is answered 421."""
    dialog = await connect(await start(), "ehlo")
    replies = [(await dialog.say("NONSENSE"))[:3] for _ in range(5)]
    assert replies == ["500", "500", "500", "500", "421"]
    assert await dialog.closed()


@pytest.mark.parametrize("limits", [{"idle": 0.05}, {"session": 0.05}])
async def test_idle_and_old_sessions_are_closed(
    start: Start, connect: Connect, limits: dict[str, float]
) -> None:
    """With 421 4.4.1, said before the connection closes."""
    sim = await start(**limits)
    dialog = await connect(sim, "raw")
    assert (await dialog.read()).startswith("220 ")
    assert await dialog.read() == "421 4.4.1 Connection timed out"
    assert await dialog.closed()
    assert sim.counters["timeouts"] == 1


async def test_exchange_can_be_down_and_back_on_its_port(start: Start, connect: Connect) -> None:
    """Open connections are cut, new ones refused, until it is up again."""
    sim = await start()
    dialog = await connect(sim)
    await sim.change(exchange_down=True)
    assert await dialog.closed()
    with pytest.raises(ConnectionRefusedError):
        await connect(sim)
    await sim.change(exchange_down=False)
    assert (await (await connect(sim)).say("NOOP")).startswith("250")


@pytest.mark.parametrize(
    "place", ["connect", "banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "end-of-data"]
)
async def test_a_reply_can_be_replaced_at_every_place(start: Start, connect: Connect, place: str) -> None:
    """Python's own client meets the given reply there, once, and succeeds the next time."""
    sim = await start()
    sim.faults.add(Fault(place, "reply", "421 4.3.2 Service not active"))
    token = await fetch_token(sim)

    def submit() -> None:
        client = smtplib.SMTP("localhost", sim.smtp_port, timeout=10)
        try:
            client.starttls(context=ssl.create_default_context(cafile=sim.ca_file))
            client.ehlo()
            text = f"user=notifications@contoso.com\x01auth=Bearer {token}\x01\x01"
            client.auth("XOAUTH2", lambda challenge=None: "" if challenge else text)
            client.sendmail("notifications@contoso.com", ["a@b.example"], MESSAGE)
        finally:
            client.close()

    with pytest.raises((smtplib.SMTPException, ConnectionError)):
        await asyncio.to_thread(submit)
    assert sim.messages == []
    await asyncio.to_thread(submit)
    assert [message.subject for message in sim.messages] == ["hello"]
