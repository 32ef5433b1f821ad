"""The mail that the demo sends: what different old senders really produce."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP

SCAN_SIZE = 8 * 1024 * 1024
GUIDED = "signify@guide.local"
"""The sender whose mail goes to the tenant that was set up by the guide to the letter."""
MARK = "X-Relay-Demo"
"""The field by which a message is known again when it arrives."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message: the envelope, and the octets that a client would send (before dot-stuffing)."""

    number: int
    title: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes
    expected_from: str
    """The address that Exchange must see."""

    @property
    def guided(self) -> bool:
        """Whether it goes to the tenant where the app has Mail.Send only."""
        return self.sender == GUIDED

    @property
    def body(self) -> bytes:
        """Everything after the header block."""
        return body_of(self.data)


def body_of(data: bytes) -> bytes:
    """The octets after the empty line that closes the header block."""
    return data.partition(b"\r\n\r\n")[2]


def fingerprint(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def letters(default: str, scans: str) -> list[Letter]:
    """All of them; ``default`` and ``scans`` are the mailboxes that the rules should choose."""
    made = [
        ("Signify notification", "signify@legacy.local", ("facility@contoso.com",), _signify(), default),
        ("Printer, 8 MB scan", "scanner@scanners.local", ("accounts@contoso.com",), _scan(), scans),
        (
            "Unknown sender, bare bones",
            "root@nas.lan",
            ("it@contoso.com", "night-shift@contoso.com"),
            _cron(),
            default,
        ),
        ("UTF-8 subject and names", "buero@legacy.local", ("kunde@example.com",), _names(), default),
        ("Dot lines and 8-bit text", "erp@legacy.local", ("orders@example.com",), _dots(), default),
        (
            "Signify, guide to the letter",
            GUIDED,
            ("facility@contoso.com",),
            _signify(GUIDED, "4-118"),
            default,
        ),
    ]
    return [
        Letter(number, title, sender, to, f"{MARK}: {number}\r\n".encode() + data, mailbox)
        for number, (title, sender, to, data, mailbox) in enumerate(made, 1)
    ]


def _message(sender: str, to: str, subject: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = "Mon, 23 Nov 2026 08:00:00 +0100"
    message["Message-ID"] = f"<{hashlib.sha256(subject.encode()).hexdigest()[:16]}@legacy.local>"
    return message


def _signify(sender: str = "signify@legacy.local", place: str = "4-117") -> bytes:
    message = _message(
        f'"Signify Interact" <{sender}>',
        "facility@contoso.com",
        f"Alert: luminaire {place} does not answer",
    )
    message.set_content(f"Luminaire {place}, floor 4, has not answered since 07:41.\nSeverity: warning\n")
    message.add_alternative(
        f"<p>Luminaire <b>{place}</b>, floor 4, has not answered since 07:41.</p>\n", subtype="html"
    )
    return message.as_bytes()


def _scan() -> bytes:
    message = _message(
        "Scanner 3rd floor <scanner@scanners.local>", "accounts@contoso.com", "Scan_20261123_0801.pdf"
    )
    message.set_content("Please find the scan attached.\n")
    pages = random.Random(1).randbytes(SCAN_SIZE)  # noqa: S311 - the same "scan" each time
    message.add_attachment(b"%PDF-1.4\n" + pages, maintype="application", subtype="pdf", filename="scan.pdf")
    return message.as_bytes()


def _cron() -> bytes:
    """No Date, no Message-ID, no To: what a script on a storage box writes."""
    return b"From: root\r\nSubject: backup finished\r\n\r\n412 files, 0 errors\r\n"


def _names() -> bytes:
    message = _message(
        "Büro Köln <buero@legacy.local>",
        "Zoë Ångström <kunde@example.com>",
        "Grüße aus Köln ☕ – Angebot Nº 7",
    )
    message.set_content("Sehr geehrte Frau Ångström,\nanbei unser Angebot über 1.200 €.\n")
    return message.as_bytes()


def _dots() -> bytes:
    """Lines of dots must survive dot-stuffing twice, and 8-bit octets stay the octets they are."""
    head = (
        b"From: erp@legacy.local\r\nTo: orders@example.com\r\nSubject: Order 4711\r\n"
        b"Message-ID: <order-4711@legacy.local>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    lines = [b".", b"..", b"...end?", b". leading dot", "Größe: 30 cm, Menge: 5".encode("latin-1"), b"", b"."]
    return head + b"\r\n".join(lines) + b"\r\n"
