"""Lines over 998 octets go by Graph as they go by SMTP: encoded away, the rest untouched."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

from relay.message import Result
from tests.deliver.graph.kit import HEADER, tenant

LONG = b"a report of one line; " * 100 + b"\r\n"


async def test_long_lines_are_encoded(tmp_path: Path) -> None:
    """The message that Graph takes has short lines and reads the same."""
    async with tenant(tmp_path, "Mail.Send") as one:
        report = await one.report(header=HEADER, body=b"short\r\n" + LONG)
        assert {outcome.result for outcome in report.outcomes.values()} == {Result.SENT}
        raw = one.sim.messages[0].bytes()
        assert max(map(len, raw.split(b"\r\n"))) <= 998
        read = email.message_from_bytes(raw, policy=email.policy.SMTP)
        assert read.get_payload(decode=True) == b"short\r\n" + LONG
        assert "encoded as quoted-printable" in report.details["repairs"]
