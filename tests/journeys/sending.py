"""A plain SMTP client for tests under load: it knows exactly which messages were answered with 250."""

from __future__ import annotations

import contextlib
import smtplib
import threading
from email.message import EmailMessage


def mail(
    number: int, size: int = 2000, sender: str = "app@legacy.local", to: str = "anna@example.net"
) -> EmailMessage:
    """A message whose subject is its number."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = f"number {number}"
    message["Message-ID"] = f"<{number}@legacy.local>"
    line = f"line of message {number} " + "." * 40 + "\n"
    message.set_content(line * (size // len(line) + 1))
    return message


def send(port: int, message: EmailMessage) -> None:
    """One message over one connection; raises what smtplib raises."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.send_message(message)


class Load:
    """Clients that send until told to stop (or their share is done), and remember what was accepted."""

    def __init__(self, port: int, clients: int = 4, each: int = 1000, size: int = 2000) -> None:
        self._port = port
        self._size = size
        self.accepted: set[str] = set()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(n * 1_000_000, each), daemon=True)
            for n in range(clients)
        ]

    def start(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, first: int, each: int) -> None:
        for number in range(first, first + each):
            if self._stop.is_set():
                return
            message = mail(number, self._size)
            # a killed relay refuses or breaks connections: such a message was never accepted
            with contextlib.suppress(OSError, smtplib.SMTPException):
                send(self._port, message)
                self.accepted.add(message["Message-ID"])

    def finish(self) -> set[str]:
        """Stop, and the Message-IDs that got a 250."""
        self._stop.set()
        self.wait()
        return self.accepted

    def wait(self) -> set[str]:
        """Until every client has sent its share."""
        for thread in self._threads:
            thread.join(120)
        return self.accepted
