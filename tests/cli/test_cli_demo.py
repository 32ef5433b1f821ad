"""`relay demo` shows the whole job and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from relay.demo.letters import Letter, letters
from relay.demo.result import compare
from relay.simulator.store import Accepted


def test_the_demo_delivers_everything(tmp_path: Path) -> None:
    """Exit 0, every step and the closing table shown, senders rewritten, kept files where --keep says."""
    done = subprocess.run(
        [sys.executable, "-m", "relay", "demo", "--keep", str(tmp_path / "kept")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 messages arrived intact" in done.stdout
    assert "sends by graph: the token carries Graph's Mail.Send and not SMTP.SendAsApp" in done.stdout
    assert "took 1 message over Graph, with 0 logins over SMTP" in done.stdout
    assert "Signify Interact <notifications@contoso.com>" in done.stdout
    assert "Scanner 3rd floor <scans@contoso.com>" in done.stdout
    for word in ("accepted, safe on disk", "being submitted", "delivered: 250"):
        assert word in done.stdout
    assert len(list((tmp_path / "kept" / "exchange" / "messages").glob("*.eml"))) == 5
    assert len(list((tmp_path / "kept" / "guide" / "messages").glob("*.eml"))) == 1


def _arrived(letter: Letter, directory: Path, data: bytes, sender: str) -> Accepted:
    path = directory / f"{letter.number}.eml"
    path.write_bytes(data)
    return Accepted(
        id=str(letter.number), mailbox=sender, mail_from=sender, recipients=list(letter.recipients), transport="smtp",
        header_from=sender, subject="", message_id="", size=len(data), path=path, received=0.0,
    )  # fmt: skip


def test_the_demo_would_notice(tmp_path: Path) -> None:
    """A changed octet, a wrong sender, a second copy or a loss is not called intact."""
    cron = letters("n@contoso.com", "s@contoso.com")[2]
    good = cron.data.replace(b"From: root", b"From: root <n@contoso.com>")
    fine = _arrived(cron, tmp_path, good, "n@contoso.com")
    assert compare([cron], [fine])[0].intact
    assert not compare([cron], [])[0].intact
    assert not compare([cron], [fine, fine])[0].intact
    assert not compare([cron], [_arrived(cron, tmp_path, good, "other@contoso.com")])[0].intact
    assert not compare([cron], [_arrived(cron, tmp_path, good.replace(b"412", b"413"), "n@contoso.com")])[
        0
    ].intact
