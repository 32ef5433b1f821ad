"""``answer_after: upstream`` and ``redirect_all_to`` from outside."""

from __future__ import annotations

import smtplib
import time

import pytest

from tests.journeys.kit import until
from tests.journeys.sending import mail, send

DIRECT = 'listeners: [{bind: "127.0.0.1:25", answer_after: upstream, answer_within: 20s}]'


def refusal(relay, message) -> tuple[int, str]:
    with pytest.raises(smtplib.SMTPResponseException) as caught:
        send(relay.port, message)
    return caught.value.smtp_code, str(caught.value.smtp_error)


def empty(relay):
    until(lambda: relay.status()["spool"]["messages"] == 0, what="nothing is left behind")


def test_the_250_is_exchanges_own(fast, make_fast_relay):
    relay = make_fast_relay(more=DIRECT).start()
    with smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.ehlo()
        client.mail("app@legacy.local")
        client.rcpt("anna@example.net")
        code, text = client.data(mail(1).as_bytes())
    assert code == 250
    assert b"Hostname=" in text
    assert len(fast.messages()) == 1
    empty(relay)


def test_a_wrong_secret_is_451_with_the_reason_and_mended_it_goes_on(fast, make_fast_relay):
    relay = make_fast_relay(more=DIRECT)
    right = relay.env["RELAY_CLIENT_SECRET"]
    fast.change(client_secret="another~secret")
    relay.start()
    code, text = refusal(relay, mail(1))
    assert code == 451
    assert "secret" in text
    code, text = refusal(relay, mail(2))
    assert (code, "secret" in text) == (451, True)
    empty(relay)
    fast.change(client_secret=right)
    relay.command("queue", "release", "--all", "--yes")
    send(relay.port, mail(3))
    assert [one["message_id"] for one in fast.messages()] == ["<3@legacy.local>"]


@pytest.mark.parametrize("fault", ["data:hang", "token:hang"])
def test_an_exchange_that_hangs_costs_the_clients_patience_and_no_more(fast, make_fast_relay, fault):
    relay = make_fast_relay(more=DIRECT.replace("20s", "2s")).start()
    fast.fault(fault)
    started = time.monotonic()
    code, text = refusal(relay, mail(1))
    assert (code, "nothing kept" in text) == (451, True), text
    assert time.monotonic() - started < 15
    empty(relay)
    fast.clear_faults()
    assert fast.messages() == []


def test_a_permanent_refusal_keeps_exchanges_words(fast, make_fast_relay):
    relay = make_fast_relay(more=DIRECT).start()
    fast.fault("rcpt:reply:550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found")
    code, text = refusal(relay, mail(1))
    assert code == 550
    assert "RecipientNotFound" in text
    empty(relay)


def test_redirected_mail_reaches_nobody_else_and_says_whom_it_was_for(fast, make_fast_relay):
    relay = make_fast_relay(more="recipients: {redirect_all_to: test@contoso.com}").start()
    send(relay.port, mail(1, to="anna@example.net, bert@example.org"))
    (arrived,) = fast.arrived(1)
    assert arrived["recipients"] == ["test@contoso.com"]
    raw = fast.raw(arrived).decode()
    assert "X-Relay-Redirected-From: anna@example.net,\r\n bert@example.org\r\n" in raw
