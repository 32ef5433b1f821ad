"""The log as operating.md describes it, in a real run: JSON lines, each event with its level and fields."""

from __future__ import annotations

import json
import re
import smtplib

import pytest

from tests.docs.blocks import ROOT
from tests.journeys.conftest import FAST, UNLIMITED
from tests.journeys.kit import Microsoft, Relay, running, until
from tests.journeys.sending import mail, send

ROW = re.compile(r"^\| `(\w+)` \| (debug|info|warning|error) \|.*\| `([^`]+)` \|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "operating.md").read_text().split("## The log\n", 1)[1]
EVENTS = {name: (level, fields.split()) for name, level, fields in ROW.findall(PAGE)}
"""Event -> its level and the fields it always has, as the page says."""
SEEN = {
    "accepted", "rejected", "connection", "login", "transport", "attempted", "delivered", "deferred", "held", "released",
    "failed", "notified", "notice", "trouble",
}  # fmt: skip
"""What the run below brings about. The rest needs Graph (requested), a crash (uncertain) or a library that complains."""


DENIED = "554 5.2.252 SendAsDenied; notifications@contoso.com not allowed to send as x"


@pytest.fixture
def microsoft(tmp_path):
    """Exchange without limits."""
    (tmp_path / "microsoft").mkdir()
    one = Microsoft(tmp_path / "microsoft", *FAST)
    yield one
    one.stop()


@pytest.fixture
def relay(tmp_path, microsoft):
    """With everything in its log."""
    config = tmp_path / "config.yaml"
    more = "log: {level: debug}"
    config.write_text(UNLIMITED.format(**microsoft.env, more=more, upstream="", folder=tmp_path))
    with running(Relay(tmp_path, microsoft.env, config)) as one:
        yield one


def test_every_line_of_a_real_run_is_as_the_page_says(relay, microsoft) -> None:
    """Mail that goes, is put off, refused, held and released; a client that is refused; a reload that fails."""
    send(relay.port, mail(1))
    microsoft.arrived(1)
    microsoft.fault("rcpt:reply:550 5.1.10 Recipient not found;recipient=gone@example.com")
    send(relay.port, mail(2, sender="boss@contoso.com", to="gone@example.com"))
    until(lambda: relay.events("notified"), what="the notice of failure")
    microsoft.fault("mail:reply:451 4.3.2 Temporary server error;times=1")
    send(relay.port, mail(3))
    until(lambda: relay.events("deferred"), what="a temporary refusal")
    microsoft.fault(f"end-of-data:reply:{DENIED};times=1")
    send(relay.port, mail(4))
    until(lambda: relay.events("held"), what="a hold")
    relay.command("queue", "release", "--all", "--yes")
    until(lambda: relay.events("released"), what="its end")
    with smtplib.SMTP("127.0.0.1", relay.port) as client:
        assert client.mail("not an address at all")[0] >= 500
    (relay.folder / "config.yaml").write_text("senders: none of them\n")
    relay.reload()
    until(lambda: relay.events("trouble"), what="a reload that fails")
    assert relay.stop() == 0
    lines = [json.loads(line) for line in relay.log.read_text().splitlines()]
    for line in lines:
        level, fields = EVENTS[line["event"]]
        assert line["level"] == level, line
        assert set(fields) <= set(line), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert {line["event"] for line in lines} >= SEEN
