"""Single letters over a connection that stays open, each marked, so that the sink can say when it came."""

from __future__ import annotations

import smtplib
import time
from email.message import EmailMessage


class Sender:
    """A client of the relay's listener. ``source`` is its From address, by which the relay tells sources apart."""

    def __init__(self, port: int, source: str = "bench@example.org", size: int = 1024) -> None:
        self._smtp = smtplib.SMTP("127.0.0.1", port, timeout=60)
        self._source = source
        self._text = ("x" * 70 + "\r\n") * (size // 72 + 1)
        self._count = 0

    def send(self, mark: str) -> float:
        """When its 250 came, monotonic. Reconnects as often as the listener wants."""
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = (
            self._source,
            "someone@example.net",
            f"letter {mark}",
        )
        letter["X-Bench"] = mark
        letter.set_content(self._text)
        self._smtp.send_message(letter)
        return time.monotonic()

    def close(self) -> None:
        """QUIT."""
        self._smtp.quit()
