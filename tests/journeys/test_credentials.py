"""The credential changes while mail flows: a second secret, a certificate that is replaced, a user who signs in."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.tokens import keypair
from tests.journeys.kit import Microsoft, Relay, until
from tests.journeys.sending import mail, send

CONFIG = """
upstreams:
  - from_email: notifications@contoso.com
    tenant_id: {RELAY_TENANT_ID}
    client_id: {RELAY_CLIENT_ID}
    transport: smtp
    limits: {{messages_per_minute: 0, recipients_per_day: 0}}
    {credential}
spool: {{retry: [1s], url: "sqlite:///{folder}/spool.db"}}
"""
DAY = 86400.0
Make = Callable[[str], Relay]


@pytest.fixture
def make(tmp_path: Path, fast: Microsoft) -> Iterator[Make]:
    """A relay with that credential alone; not started."""
    made: list[Relay] = []

    def build(credential: str) -> Relay:
        env = {name: value for name, value in fast.env.items() if name != "RELAY_CLIENT_SECRET"}
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(**env, credential=credential, folder=tmp_path))
        made.append(Relay(tmp_path, env, config))
        return made[-1]

    yield build
    for one in made:
        one.close()


def held(relay: Relay) -> dict[str, object] | None:
    lane = relay.lane()
    return lane if lane["state"] == "held" else None


def test_a_second_secret_carries_on_without_a_gap(fast: Microsoft, make: Make) -> None:
    """The old one is deleted before the restart: not one message waits, and status says which is dead."""
    fast.change(extra_secrets=["coming~secret~value"])
    relay = make('client_secret: "gone~secret~value"\n    next_credential: {client_secret: file:next.txt}')
    (relay.folder / "next.txt").write_text("coming~secret~value\n")
    relay.start()
    send(relay.port, mail(1))
    fast.arrived(1)
    first, second = relay.status()["credentials"]
    assert (first["slot"], first["in_use"]) == ("credential", False)
    assert first["error"].startswith("secret-wrong: ")
    assert (second["slot"], second["in_use"], second["error"]) == ("next_credential", True, None)
    assert relay.events("held") == []
    assert any("next_credential works and is used" in one["what"] for one in relay.events("advice"))
    assert "secret~value" not in relay.log.read_text()


def test_a_certificate_replaces_itself_while_mail_flows(fast: Microsoft, make: Make, tmp_path: Path) -> None:
    """65 of 365 days are left: due. The daemon registers a new one, and mail flows when the old one is gone."""
    pair = keypair.make("relay", 365 * DAY, time.time() - 300 * DAY)
    keypair.write_private(tmp_path / "app.pem", keypair.to_pem(pair))
    fast.change(certificates=[pair.leaf_pem()], permissions=["SMTP.SendAsApp", "Application.Read.All"])
    relay = make("certificate: {file: app.pem, rotate: true, remove_old: true}")
    relay.start()
    send(relay.port, mail(1))
    fast.arrived(1)
    until(
        lambda: [one for one in relay.events("notice") if "was replaced" in one["what"]],
        what="a new certificate",
    )
    (left,) = fast.call("/state")["certificates"]
    assert left != pair.leaf_pem()
    (row,) = relay.status()["credentials"]
    assert (row["days_left"], row["rotates"], row["error"]) == (365, True, None)
    assert relay.stop() == 0
    relay.start()
    send(relay.port, mail(2))
    fast.arrived(2)


def test_a_user_signs_in_and_must_sign_in_again(fast: Microsoft, make: Make) -> None:
    """Held with the remedy until `relay login`; flows; a changed password holds it again, another login frees it."""
    fast.change(public_client=True, auto_sign_in="notifications@contoso.com", device_code_interval=1)
    relay = make("user_login: {file: user.json}").start()
    send(relay.port, mail(1))
    lane = until(lambda: held(relay), what="held")
    assert "relay login" in lane["remedy"]
    done = relay.command("login")
    assert "Signed in as notifications@contoso.com" in done.stdout
    assert "The running relay uses it from now on." in done.stderr
    fast.arrived(1)
    fast.call("/revoke", {"user": "notifications@contoso.com"}, "POST")
    assert relay.stop() == 0
    relay.start()
    send(relay.port, mail(2))
    lane = until(lambda: held(relay), what="held again")
    assert ("sign-in has ended" in lane["reason"], "AADSTS50173" in lane["reason"]) == (True, True)
    assert "Run `relay login` again" in lane["remedy"]
    relay.command("login")
    fast.arrived(2)
    assert "eyJ" not in relay.log.read_text()


def test_a_reminder_is_told_once_across_a_restart(fast: Microsoft, make: Make, tmp_path: Path) -> None:
    """Five days are left: one line in the log, one call of the command; after the restart neither again."""
    day = datetime.datetime.fromtimestamp(time.time() + 5 * DAY, datetime.UTC).date()
    told = tmp_path / "told.jsonl"
    relay = make(f"client_secret: {fast.env['RELAY_CLIENT_SECRET']}\n    client_secret_expires: {day}")
    with (tmp_path / "config.yaml").open("a") as config:
        config.write(f"alerts: {{command: 'tee -a {told}'}}\n")
    relay.start()
    until(lambda: told.exists() and told.read_text().endswith("}\n"), what="the command is run")
    (alert,) = [json.loads(line) for line in told.read_text().splitlines()]
    assert (alert["event"], alert["over"]) == ("expiry", False)
    assert f"ends in 5 days, on {day}" in alert["title"]
    assert "New client secret" in alert["remedy"]
    (row,) = relay.status()["credentials"]
    assert (row["days_left"], row["source"]) == (5, "configuration")
    assert relay.stop() == 0
    relay.start()
    send(relay.port, mail(1))
    fast.arrived(1)
    said = [one for one in relay.events("advice") if "ends in 5 days" in one["what"]]
    assert len(said) == 1
    assert told.read_text().count('"event"') == 1
