"""A small scripted stand-in for Exchange's SMTP endpoint: STARTTLS, XOAUTH2, and misbehaviour on request.

For the deliver room's tests. It answers as the facts' sections 1.1 and 4 say unless its `Script` says otherwise.
The full simulator is `relay.simulator`; this one is for what no well-behaved server would do.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Answer = bytes | None
Choose = Callable[["Talk", str], Answer]
"""Given the dialogue and the whole command line, the reply (without CRLF), or None for the usual one."""

HANG_UP = b"<hang up>"
"""As a reply: close the connection without a word."""
SILENCE = b"<silence>"
"""As a reply: say nothing, and nothing more, until the client goes away."""


@dataclass
class Message:
    """What one end of data delivered. ``data`` is undotted and kept up to 1 MB; ``digest`` covers all of it."""

    mail: str
    recipients: list[str]
    data: bytes = b""
    size: int = 0
    digest: str = ""


@dataclass
class Script:
    """How the server behaves. ``answers`` maps a verb (or ``GREETING``, ``BODY``) to replies, used up in order."""

    extensions: tuple[str, ...] = (
        "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING",
    )  # fmt: skip
    starttls: bool = True
    mechanisms: str = "LOGIN XOAUTH2"
    tokens: set[str] = field(default_factory=lambda: {"TOKEN"})
    auth_form: str = "A"
    """A: takes the initial response; B: ignores it and asks with an empty challenge."""
    refuse_with_challenge: bool = False
    """Refuses a token with a 334 of JSON first, and wants an empty line before the 535."""
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    choose: Choose | None = None
    hang_up_after_body: bool = False
    hang_up_in_body: int | None = None
    """Octets of the body after which the connection is cut."""
    speak_in_body: tuple[int, bytes] | None = None
    """After that many octets: a reply nobody asked for, then close."""
    slip_in: bytes = b""
    """Clear text sent together with the 220 of STARTTLS."""


class Talk:
    """One connection."""

    def __init__(
        self, server: FakeExchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.script = server.script
        self.reader = reader
        self.writer = writer
        self.lines: list[str] = []
        self.secure = False
        self.user = ""
        self.mail: str | None = None
        self.recipients: list[str] = []
        self.most_waiting = 0
        """Most commands that lay unread when one was taken: above 0 only when the client pipelines."""

    async def run(self) -> None:
        await self.say(
            self._scripted("GREETING", "")
            or b"220 fake.outlook.office365.com Microsoft ESMTP MAIL Service ready"
        )
        while True:
            line = await self.line()
            if line is None:
                return
            reply = await self.command(line)
            if reply is not None:
                await self.say(reply)
            if line.upper().startswith("QUIT"):
                return

    async def line(self) -> str | None:
        buffered = bytes(self.reader._buffer)
        self.most_waiting = max(self.most_waiting, buffered.count(b"\r\n") - 1)
        try:
            raw = await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line = raw[:-2].decode("utf-8", "replace")
        self.lines.append(line)
        self.server.heard.set()
        return line

    async def say(self, reply: bytes) -> None:
        if reply == HANG_UP:
            raise ConnectionAbortedError
        if reply == SILENCE:
            while await self.reader.read(65536):
                pass
            raise ConnectionAbortedError
        self.writer.write(reply + b"\r\n")
        await self.writer.drain()

    def _scripted(self, verb: str, line: str) -> Answer:
        if self.script.choose is not None:
            found = self.script.choose(self, line or verb)
            if found is not None:
                return found
        waiting = self.script.answers.get(verb)
        return waiting.pop(0) if waiting else None

    async def command(self, line: str) -> Answer:
        verb = line.split(" ", 1)[0].upper()
        if verb == "DATA":
            return await self.do_data(line)
        scripted = self._scripted(verb, line)
        if scripted is not None:
            return scripted
        method = getattr(self, f"do_{verb.lower()}", None)
        return b"500 5.3.3 Unrecognized command" if method is None else await method(line)

    async def do_ehlo(self, line: str) -> Answer:
        offered = list(self.script.extensions)
        if not self.secure and self.script.starttls:
            offered.append("STARTTLS")
        if self.secure and self.script.mechanisms:
            offered.append(f"AUTH {self.script.mechanisms}")
        lines = ["fake.outlook.office365.com Hello [127.0.0.1]", *offered]
        return "\r\n".join(f"250{' ' if one is lines[-1] else '-'}{one}" for one in lines).encode()

    async def do_starttls(self, line: str) -> Answer:
        self.writer.write(b"220 2.0.0 SMTP server ready\r\n" + self.script.slip_in)
        await self.writer.drain()
        await self.writer.start_tls(self.server.context)
        self.secure = True
        return None

    async def do_auth(self, line: str) -> Answer:
        words = line.split(" ")
        initial = words[2] if len(words) > 2 else ""
        if self.script.auth_form == "B" or not initial:
            await self.say(b"334 ")
            initial = await self.line() or ""
        found = re.fullmatch(r"user=(.*?)\x01auth=Bearer (.*?)\x01\x01", base64.b64decode(initial).decode())
        self.server.logins.append((found[1], found[2]) if found else ("", ""))
        if found and found[2] in self.script.tokens:
            self.user = found[1]
            return b"235 2.7.0 Authentication successful"
        if self.script.refuse_with_challenge:
            await self.say(b"334 eyJzdGF0dXMiOiI0MDEifQ==")
            if await self.line() != "":
                return b"501 5.5.2 Expected an empty line"
        return b"535 5.7.3 Authentication unsuccessful [FAKE.EURPRD.PROD.OUTLOOK.COM 2026-11-23 0123]"

    async def do_mail(self, line: str) -> Answer:
        if not self.user:
            return b"530 5.7.57 Client not authenticated to send mail."
        if self.mail is not None:
            return b"503 5.5.1 Sender already specified"
        self.mail, self.recipients = line, []
        return b"250 2.1.0 Sender OK"

    async def do_rcpt(self, line: str) -> Answer:
        if self.mail is None:
            return b"503 5.5.2 Need mail command"
        self.recipients.append(line)
        return b"250 2.1.5 Recipient OK"

    async def do_rset(self, line: str) -> Answer:
        self.mail, self.recipients = None, []
        return b"250 2.0.0 Resetting"

    async def do_noop(self, line: str) -> Answer:
        return b"250 2.0.0 OK"

    async def do_quit(self, line: str) -> Answer:
        return b"221 2.0.0 Service closing transmission channel"

    async def do_data(self, line: str) -> Answer:
        reply = self._scripted("DATA", line)
        if reply is None and not (self.mail and self.recipients):
            reply = b"503 5.5.2 Need rcpt command"
        reply = reply or b"354 Start mail input; end with <CRLF>.<CRLF>"
        if not reply.startswith(b"354"):
            return reply
        await self.say(reply)
        message = await self._body()
        if self.script.hang_up_after_body:
            raise ConnectionAbortedError
        answer = self._scripted("BODY", "")
        self.mail, self.recipients = None, []
        if not message.recipients:
            return answer or b"554 5.5.1 no valid recipients"
        if answer is None or answer.startswith(b"2"):
            self.server.messages.append(message)
        return answer or b"250 2.0.0 OK <id@fake> [Hostname=FAKE]"

    async def _body(self) -> Message:
        message, digest, kept = Message(self.mail or "", self.recipients), hashlib.sha256(), bytearray()
        while (line := await self.reader.readuntil(b"\r\n")) != b".\r\n":
            assert line.count(b"\r") == line.count(b"\n") == 1, "bare CR or LF on the wire"
            line = line[1:] if line.startswith(b".") else line
            digest.update(line)
            message.size += len(line)
            if len(kept) < 1_000_000:
                kept += line
            await self._misbehave(message.size)
        message.data, message.digest = bytes(kept), digest.hexdigest()
        return message

    async def _misbehave(self, size: int) -> None:
        if self.script.hang_up_in_body is not None and size >= self.script.hang_up_in_body:
            raise ConnectionAbortedError
        if self.script.speak_in_body is not None and size >= self.script.speak_in_body[0]:
            await self.say(self.script.speak_in_body[1])
            while await self.reader.read(65536):
                pass
            raise ConnectionAbortedError


class FakeExchange:
    """The server: ``async with FakeExchange(certificate) as server``; ``port`` is the system's choice."""

    def __init__(self, certificate: Path, script: Script | None = None) -> None:
        self.script = script or Script()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)
        self.talks: list[Talk] = []
        self.messages: list[Message] = []
        self.logins: list[tuple[str, str]] = []
        """Mailbox and token of each AUTH."""
        self.heard = asyncio.Event()
        self.closed = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeExchange:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        talk = Talk(self, reader, writer)
        self.talks.append(talk)
        try:
            await talk.run()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.closed += 1
            writer.close()

    @property
    def lines(self) -> list[str]:
        """The commands of the newest connection."""
        return self.talks[-1].lines

    def verbs(self) -> list[str]:
        """Their verbs, upper case."""
        return [line.split(" ")[0].upper() for line in self.lines]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A CA (returned first, PEM) and a server's certificate with key for localhost and 127.0.0.1."""
    ca_key, ca = _certificate("Fake CA", None, None, ca=True)
    key, server = _certificate("localhost", ca, ca_key, ca=False)
    ca_file, server_file = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    server_file.write_bytes(
        server.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return ca_file, server_file


def _certificate(
    name: str, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey | None, *, ca: bool
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signer = issuer_key or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if not ca:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return key, builder.sign(signer, hashes.SHA256())
