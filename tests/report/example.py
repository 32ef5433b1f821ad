"""The notice that docs/notices.md shows; run as a module, it prints it."""

from __future__ import annotations

import sys

from relay.report.notice import Kind
from tests.report.kit import about, fate, written


def example() -> str:
    """A failure with everything a client may have asked for, LF line ends."""
    notice = written(
        Kind.FAILURE,
        about(envid="QQ314159", ret="HDRS"),
        fate(notify="FAILURE,DELAY", orcpt="rfc822;Bob+2Bsales@example.com"),
    )
    return (notice.header + notice.body).decode("ascii").replace("\r\n", "\n")


if __name__ == "__main__":
    sys.stdout.write(example())
