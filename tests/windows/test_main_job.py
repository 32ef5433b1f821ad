"""Without uvloop and without anything that only Unix has: mail comes in, leaves, and the commands reach the daemon."""

from __future__ import annotations

import json
import smtplib
import sys
from pathlib import Path

from tests.journeys import kit
from tests.journeys.conftest import fast  # noqa: F401 (a fixture)
from tests.journeys.kit import Relay, running, until

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def test_the_main_job_needs_nothing_of_unix(tmp_path, fast, monkeypatch):  # noqa: F811
    """Accepted, delivered; status, queue, reload and health over the channel that Windows has, a loopback port."""
    monkeypatch.setattr(kit, "PYTHON", [sys.executable, str(BOOTSTRAP)])
    monkeypatch.setenv("PYTHONPATH", str(Path(kit.__file__).parents[2]))
    with running(Relay(tmp_path, fast.env)) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
            client.sendmail(
                "erp@legacy.local", ["you@contoso.com"], "From: erp@legacy.local\r\nSubject: w\r\n\r\nx\r\n"
            )
        (message,) = fast.arrived(1)
        assert b"Subject: w" in fast.raw(message)
        large = "From: erp@legacy.local\r\nSubject: large\r\n\r\n" + ("y" * 76 + "\r\n") * 20_000
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
            client.sendmail("erp@legacy.local", ["you@contoso.com"], large)
        assert any(fast.raw(one).endswith(large[-1_000_000:].encode()) for one in fast.arrived(2))
        channel = json.loads((tmp_path / "spool.db.control").read_text())
        assert set(channel) == {"port", "key"}
        until(lambda: relay.status()["counters"]["delivered"] == 2, what="it is counted")
        assert relay.command("health").returncode == 0
        assert relay.command("reload").returncode == 0
        assert json.loads(relay.command("queue", "list", "--json").stdout) == []
        second = relay.command("run", check=False)
        assert second.returncode == 1
        assert "another relay" in relay.log.read_text() + second.stderr
