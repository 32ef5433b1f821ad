"""The set-up guide to the letter: an app with Graph's Mail.Send, the eight fields, and nothing else said."""

from __future__ import annotations

import email
import smtplib
from email.message import EmailMessage

import pytest

from tests.journeys.kit import Microsoft, Relay, running, until
from tests.journeys.sending import mail, send


@pytest.fixture
def tenant(tmp_path):
    """Makes a Microsoft 365 whose app has just these permissions."""
    made = []

    def make(*permissions: str) -> Microsoft:
        folder = tmp_path / "microsoft"
        folder.mkdir()
        words = [word for one in permissions for word in ("--permission", one)]
        made.append(Microsoft(folder, *words))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def transports(relay: Relay) -> dict:
    """How the one upstream sends, and what its lane shows."""
    status = relay.status()
    return {**status["transports"][0], "lane": status["lanes"][0]["transport"]}


def submit(relay: Relay, message: EmailMessage, *to: str) -> None:
    """A message with an envelope of its own."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        client.send_message(message, "app@legacy.local", list(to))


def test_the_guide_as_written_simply_works(tenant, tmp_path):
    microsoft = tenant("Mail.Send")
    with running(Relay(tmp_path, microsoft.env)) as relay:
        assert transports(relay)["transport"] == transports(relay)["lane"] == "auto"
        send(relay.port, mail(1))
        text = microsoft.arrived(1)[0]
        assert (text["transport"], text["recipients"]) == ("graph", ["anna@example.net"])

        big = mail(2)
        content = bytes(range(256)) * 8000  # 2 MB, about 2.8 MB as MIME
        big.add_attachment(content, maintype="application", subtype="octet-stream", filename="scan.pdf")
        submit(relay, big, "anna@example.net")
        arrived = email.message_from_bytes(microsoft.raw(microsoft.arrived(2)[1]))
        assert [part.get_payload(decode=True) for part in arrived.walk() if part.get_filename()] == [content]

        shown = mail(3, to='Anna <anna@example.net>, "Bob Example" <bob@other.example>')
        shown["Bcc"] = "secret@example.net"
        submit(relay, shown, "ANNA@example.net", "carl@example.net")
        hidden = microsoft.arrived(3)[2]
        assert sorted(one.lower() for one in hidden["recipients"]) == ["anna@example.net", "carl@example.net"]
        raw = microsoft.raw(hidden)
        assert b'"Bob Example (bob at other.example)":;' in raw
        assert b"secret" not in raw
        assert b"carl" not in raw

        state = transports(relay)
        assert (state["transport"], state["configured"], state["lane"]) == ("graph", "auto", "graph")
        assert "Mail.Send" in state["why"]
        assert state["since"]
        relay.stop()
        assert transports(relay)["transport"] == "graph"  # read from the spool
        relay.start()
        assert transports(relay)["since"] == state["since"]
        send(relay.port, mail(4))
        microsoft.arrived(4)
        assert len(relay.events("transport")) == 1
        assert microsoft.counters().get("connections", 0) == 0


def test_weather_over_graph(tenant, tmp_path):
    microsoft = tenant("Mail.Send")
    env = {**microsoft.env, "RELAY_LOG_LEVEL": "debug"}
    with running(Relay(tmp_path, env)) as relay:
        microsoft.fault("graph:reply:429 ApplicationThrottled slow;seconds=1;times=1")
        send(relay.port, mail(1))
        microsoft.arrived(1)
        microsoft.fault("graph:reply:401 InvalidAuthenticationToken expired;times=1")
        send(relay.port, mail(2))
        microsoft.arrived(2)
        deferred = relay.events("deferred")
        assert len(deferred) == 1
        microsoft.fault("graph:drop-after-accept;times=1")
        send(relay.port, mail(3))
        uncertain = until(lambda: relay.events("uncertain"), what="the break is reported as uncertain")
        assert len(uncertain) == 1
        assert [one["status"] for one in relay.events("requested")][:2] == ["429 ApplicationThrottled", "202"]
        assert all(one["client_request_id"] for one in relay.events("requested"))
        assert "eyJ" not in relay.log.read_text()


def test_consent_given_later_lets_the_mail_go(tenant, tmp_path):
    microsoft = tenant("Application.Read.All")
    with running(Relay(tmp_path, microsoft.env)) as relay:
        send(relay.port, mail(1))
        lane = until(lambda: (one := relay.lane())["state"] == "held" and one, what="the lane is held")
        assert "Mail.Send" in lane["remedy"]
        assert "SMTP.SendAsApp" in lane["remedy"]
        assert microsoft.messages() == []
        microsoft.change(permissions=["Mail.Send"])
        relay.reload()
        microsoft.arrived(1)
        until(lambda: relay.lane()["state"] == "open", what="the hold ends")
        assert transports(relay)["transport"] == "graph"


@pytest.mark.parametrize(
    ("permissions", "transport"),
    [(("SMTP.SendAsApp", "Mail.Send"), "smtp"), (("rbac-smtp",), "smtp"), (("rbac-mail-send",), "graph")],
)
def test_auto_finds_the_way(tenant, tmp_path, permissions, transport):
    microsoft = tenant(*permissions)
    with running(Relay(tmp_path, microsoft.env)) as relay:
        send(relay.port, mail(1))
        assert microsoft.arrived(1)[0]["transport"] == transport
        until(lambda: transports(relay)["transport"] == transport, what="the choice is shown")
