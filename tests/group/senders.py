"""Mail clients of a group: they try one relay after the other until one says 250, and remember exactly what each said."""

from __future__ import annotations

import itertools
import smtplib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage

_AGAIN = 0.2
"""Seconds before the next try of a message that nobody took."""
_PATIENCE = 12.0
"""Seconds that a client waits for an answer."""
_GIVE_UP = 120.0
"""Seconds after which a message that nobody takes makes the test fail."""


@dataclass(frozen=True)
class Door:
    """A replica as clients see it."""

    name: str
    host: str
    port: int


@dataclass(frozen=True)
class Letter:
    """What is to be sent: through which mailbox it will go, to how many people, how large (octets)."""

    box: str
    recipients: int = 1
    size: int = 2000


@dataclass
class Try:
    """One attempt of a client. Every one has a Message-ID of its own: what arrives twice was sent twice by a relay."""

    message_id: str
    box: str
    door: str
    began: float
    """Seconds, monotonic."""
    size: int = 0
    """Octets that the message has at least."""
    took: float = 0.0
    """Seconds until the answer, or until the connection broke."""
    answer: str = ""
    """The reply's code, ``refused`` (no connection) or ``broken`` (it ended without a reply)."""
    answered: float = 0.0
    """When the answer came; seconds since 1970."""
    sent: bool = False
    """The whole message had left: without a 250 it may have been stored all the same (RFC 1047)."""

    @property
    def taken(self) -> bool:
        """A 250 after the message: from here on it is the relay's."""
        return self.answer == "250" and self.sent


class Senders:
    """Clients at work, each in a thread: they send their letters, or send until told to stop."""

    _runs = itertools.count(1)

    def __init__(self, doors: list[Door], enter: Callable[[], None] = lambda: None) -> None:
        """``enter`` is called in each client's thread: it may go into a network namespace."""
        self.doors = doors
        self.tries: list[Try] = []
        self._enter = enter
        self._stop = threading.Event()
        self._abandoned = False
        self._threads: list[threading.Thread] = []
        self._failed: list[str] = []

    def start(self, letters: Iterable[Letter], pause: float = 0.0) -> Senders:
        """One more client with these letters (an endless iterable: until `finish`), ``pause`` seconds between two."""
        number = next(self._runs)
        # every client has another relay that it asks first
        doors = itertools.cycle(
            self.doors[number % len(self.doors) :] + self.doors[: number % len(self.doors)]
        )
        thread = threading.Thread(target=self._run, args=(number, letters, doors, pause), daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def _run(self, client: int, letters: Iterable[Letter], doors: Iterator[Door], pause: float) -> None:
        try:
            self._enter()
            for number, letter in enumerate(letters):
                if self._stop.is_set():
                    return
                self._send(f"{client}.{number}", letter, doors)
                self._stop.wait(pause)
        except Exception as error:
            self._failed.append(repr(error))

    def _send(self, name: str, letter: Letter, doors: Iterator[Door]) -> None:
        deadline = time.monotonic() + _GIVE_UP
        for number in itertools.count():
            door = next(doors)
            one = Try(f"<{name}.{number}@legacy.local>", letter.box, door.name, time.monotonic(), letter.size)
            _attempt(one, door, letter)
            one.took, one.answered = time.monotonic() - one.began, time.time()
            self.tries.append(one)
            if one.taken or self._abandoned:
                return
            assert time.monotonic() < deadline, f"nobody takes {name}: {one}"
            time.sleep(_AGAIN)

    def wait(self, seconds: float = _GIVE_UP) -> Senders:
        """Until every client has sent its letters."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"a client is not done after {seconds} s"
        assert not self._failed, self._failed
        return self

    def finish(self) -> Senders:
        """No new letters; those begun are sent to the end."""
        self._stop.set()
        return self.wait()

    def abandon(self) -> None:
        """No more tries either: the test is over."""
        self._abandoned = True
        self._stop.set()

    def taken(self, box: str | None = None) -> set[str]:
        """The Message-IDs that got a 250 (of one mailbox)."""
        return {one.message_id for one in list(self.tries) if one.taken and box in (None, one.box)}

    def unclear(self) -> set[str]:
        """Those that were sent whole and got another answer, or none: they may arrive."""
        return {one.message_id for one in list(self.tries) if one.sent and not one.taken}

    def failures(self) -> list[Try]:
        """Tries without a 250."""
        return [one for one in list(self.tries) if not one.taken]


def _attempt(one: Try, door: Door, letter: Letter) -> None:
    """Fills in ``one``."""
    try:
        with smtplib.SMTP(door.host, door.port, local_hostname="client.local", timeout=_PATIENCE) as client:
            one.answer = "broken"
            _talk(one, client, letter)
    except smtplib.SMTPResponseException as error:
        one.answer = one.answer if one.taken else str(error.smtp_code)
    except (OSError, smtplib.SMTPException):
        one.answer = one.answer or "refused"


def _talk(one: Try, client: smtplib.SMTP, letter: Letter) -> None:
    message = _message(one, letter)
    client.ehlo()
    _expect(client.mail(message["From"]))
    for address in message["To"].split(", "):
        _expect(client.rcpt(address))
    client.putcmd("data")
    _expect(client.getreply(), 354)
    text = smtplib._quote_periods(message.as_bytes().replace(b"\n", b"\r\n"))  # type: ignore[attr-defined]
    client.send(text + b"\r\n.\r\n")
    one.sent = True
    one.answer = str(client.getreply()[0])


def _expect(reply: tuple[int, bytes], code: int = 250) -> None:
    if reply[0] != code:
        raise smtplib.SMTPResponseException(*reply)


def _message(one: Try, letter: Letter) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"app@{letter.box}.local"
    message["To"] = ", ".join(f"r{number}@example.net" for number in range(letter.recipients))
    message["Subject"] = one.message_id.strip("<>")
    message["Message-ID"] = one.message_id
    line = "." * 60 + "\n"
    message.set_content(line * (letter.size // len(line) + 1))
    return message
