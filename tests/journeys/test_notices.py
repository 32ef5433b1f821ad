"""Notices and alerts from outside: one correct notice for each failure, one alert for each cause and one when it is over."""

from __future__ import annotations

import email
import email.policy
import http.server
import json
import re
import smtplib
import threading

import pytest

from tests.journeys.kit import until
from tests.journeys.sending import mail, send

NOT_FOUND = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"


def notices(microsoft, count: int) -> list[email.message.EmailMessage]:
    """The notices that Exchange has received; waits for ``count``."""

    def found():
        return [
            one
            for one in microsoft.messages()
            if one["subject"].startswith(("Not delivered", "Delayed", "Relayed"))
        ]

    until(lambda: len(found()) >= count, what=f"{count} notices")
    return [email.message_from_bytes(microsoft.raw(one), policy=email.policy.default) for one in found()]


def machine_part(notice) -> str:
    (part,) = [one for one in notice.walk() if one.get_content_type() == "message/delivery-status"]
    return part.as_string()


def test_each_failure_yields_exactly_one_correct_notice(fast, fast_relay):
    fast.fault(f"rcpt:reply:{NOT_FOUND};recipient=nobody@example.net")
    send(fast_relay.port, mail(1, sender="boss@contoso.com", to="nobody@example.net, anna@example.net"))
    (notice,) = notices(fast, 1)
    assert notice["To"].addresses[0].addr_spec == "boss@contoso.com"
    assert notice["From"].addresses[0].addr_spec == "notifications@contoso.com"
    assert notice["Auto-Submitted"] == "auto-replied"
    text = notice.get_body(("plain",)).get_content()
    assert "nobody@example.net" in text and "anna@example.net" not in text
    status = machine_part(notice)
    assert re.search(r"Final-Recipient: rfc822; ?nobody@example.net", status)
    assert "Action: failed" in status and "Status: 5.1.10" in status
    assert "RecipientNotFound" in status
    until(lambda: fast_relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    assert len(fast.messages()) == 2
    assert [one["kind"] for one in fast_relay.events("notified")] == ["failure"]


def test_a_device_that_cannot_read_leaves_it_to_the_postmaster(fast, make_fast_relay):
    relay = make_fast_relay(more="postmaster: it@contoso.com").start()
    fast.fault(f"rcpt:reply:{NOT_FOUND};recipient=nobody@example.net")
    send(relay.port, mail(1, sender="scanner@floor2.local", to="nobody@example.net"))
    (notice,) = notices(fast, 1)
    assert notice["To"].addresses[0].addr_spec == "it@contoso.com"


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS"])
def test_notify_is_honoured(fast, fast_relay, notify):
    fast.fault(f"rcpt:reply:{NOT_FOUND};recipient=nobody@example.net")
    with smtplib.SMTP("127.0.0.1", fast_relay.port) as client:
        client.ehlo()
        client.mail("boss@contoso.com")
        client.rcpt("nobody@example.net", [f"NOTIFY={notify}"])
        assert client.data(b"From: boss@contoso.com\r\nSubject: x\r\n\r\nhello\r\n")[0] == 250
    until(lambda: fast_relay.events("failed"), what="the message has failed")
    until(lambda: fast_relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    assert fast_relay.events("notified") == []
    assert fast.messages() == []


def test_a_notice_that_fails_causes_no_other(fast, fast_relay):
    fast.fault(f"rcpt:reply:{NOT_FOUND}")
    send(fast_relay.port, mail(1, sender="gone@contoso.com", to="nobody@example.net"))
    until(lambda: len(fast_relay.events("failed")) == 2, what="the mail and its notice have failed")
    until(lambda: fast_relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    assert len(fast_relay.events("notified")) == 1


def test_a_notice_that_is_refused_goes_to_the_postmaster_once(fast, make_fast_relay):
    relay = make_fast_relay(more="postmaster: it@contoso.com").start()
    fast.fault(f"rcpt:reply:{NOT_FOUND};recipient=nobody@example.net")
    fast.fault(f"rcpt:reply:{NOT_FOUND};recipient=gone@contoso.com")
    send(relay.port, mail(1, sender="gone@contoso.com", to="nobody@example.net"))
    (notice,) = notices(fast, 1)
    assert notice["To"].addresses[0].addr_spec == "it@contoso.com"
    assert notice["Subject"] == "Not delivered: Not delivered: number 1"
    assert "nobody@example.net" in notice.as_string()
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    assert relay.status()["spool"]["bytes"] == 0  # everybody has been told: no content is kept
    assert [one["to"] for one in relay.events("notified")] == ["gone@contoso.com", "it@contoso.com"]


def test_success_is_told_where_the_return_path_was_rewritten(fast, fast_relay):
    with smtplib.SMTP("127.0.0.1", fast_relay.port) as client:
        client.ehlo()
        client.mail("boss@contoso.com", ["ENVID=QQ314159", "RET=HDRS"])
        client.rcpt("anna@example.net", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Anna+2Bx@example.net"])
        assert client.data(mail(1, sender="boss@contoso.com").as_bytes())[0] == 250
    (notice,) = notices(fast, 1)
    status = machine_part(notice)
    assert "Original-Envelope-Id: QQ314159" in status
    assert re.search(r"Original-Recipient: rfc822; ?Anna\+x@example.net", status)
    assert "Action: relayed" in status and "Status: 2." in status
    assert notice["To"].addresses[0].addr_spec == "boss@contoso.com"
    assert len(fast.messages()) == 2


def test_a_delay_is_told_once(fast, make_fast_relay):
    relay = make_fast_relay()
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("spool: {", "spool: {delay_notice: 2s, "))
    relay.start()
    fast.fault("rcpt:reply:450 4.2.1 Try again;recipient=slow@example.net")
    send(relay.port, mail(1, sender="boss@contoso.com", to="slow@example.net"))
    (notice,) = notices(fast, 1)
    assert "Action: delayed" in machine_part(notice)
    until(lambda: len(relay.events("deferred")) >= 3, what="more tries")
    assert len(relay.events("notified")) == 1
    fast.clear_faults()
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")


class Hook:
    """A webhook on loopback that keeps what is posted."""

    def __init__(self) -> None:
        heard = self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def test_a_hold_is_told_once_and_once_when_it_is_over(fast, make_fast_relay):
    hook = Hook()
    relay = make_fast_relay(more=f"alerts: {{webhook: '{hook.url}'}}\npostmaster: it@contoso.com").start()
    fast.change(smtp_auth_disabled_tenant=True)
    send(relay.port, mail(1))
    until(lambda: hook.heard, 60, what="the alert")
    assert not hook.heard[0]["over"]
    assert "SmtpClientAuthenticationDisabled" in hook.heard[0]["remedy"]
    fast.change(smtp_auth_disabled_tenant=False)
    relay.command("queue", "release", "--all", "--yes")
    until(lambda: len(hook.heard) == 2, 60, what="the end of the alert")
    assert hook.heard[1]["over"]
    hook.server.shutdown()
    until(lambda: any("Over" in one["subject"] for one in fast.messages()), what="the postmaster's mail")
