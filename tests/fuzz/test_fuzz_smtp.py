"""A state machine over SMTP dialogues: whatever is said in whatever order, one well-formed reply, and no mail lost or made up."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.dialogs.submitted import submitted
from tests.fuzz.dialogue import Dialogue

ADDRESSES = st.sampled_from([
    "<a@b.c>", "a@b.c", "<>", "<a@b.c> SIZE=10", "<a@b.c> BODY=8BITMIME SMTPUTF8", "<@x:a@b.c>", '"N" <a@b.c>', "<a@",
    "<a%b@c.d>", "<\u00fc@b.c>", "<\u00fc@b.c> SMTPUTF8", "<a@b.c> NOTIFY=NEVER", "<a@b.c> SIZE=9999999", "<postmaster>",
    "<a b@c>", "<a@[1.2.3.4]>", "<a\tb@c.d>", "<a@b.c> AUTH=<>", '<"a b"@c.d>', "", "<a@b.c><d@e.f>",
])  # fmt: skip
VERBS = st.sampled_from([
    "EHLO x", "HELO", "helo  x y", "RSET", "NOOP", "VRFY a", "EXPN a", "HELP", "DATA", "data ", "DATA x", "STARTTLS",
    "AUTH LOGIN", "AUTH PLAIN", "AUTH login c2Nhbm5lci0z", "AUTH PLAIN AHNjYW5uZXItMwBzZWNyZXQ=", "AUTH PLAIN =", "AUTH",
    "AUTH X", "BDAT", "BDAT 0", "BDAT 0 LAST", "BDAT x", "QUIT", "TURN", "PROXY TCP4 1.2.3.4 1.2.3.4 1 1", "", " ",
])  # fmt: skip
NOISE = st.binary(max_size=40).map(lambda octets: octets.replace(b"\n", b""))
HEADERS = st.lists(st.sampled_from([
    b"From: a@b.c\r\n", b"From: x\r\n", b"Bcc: v@x.y\r\n", b"Subject: \xe9\r\n", b"Subject: s\nT: u\r\n", b"X: \r y\r\n",
    b"no field\r\n", b" folded\r\n", b"From x\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n", b": y\r\n", b"\n",
    b"To: " + b"u@x.example, " * 90 + b"\r\n", b"Message-ID: " + b"i" * 1200 + b"\r\n", b"Content-Type: text/html\r\n",
]), max_size=6).map(b"".join)  # fmt: skip
LINES = st.lists(st.sampled_from([
    b"text\r\n", b".text\r\n", b"..\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\r\n", b"--b\r\n", b"--b--\r\n",
    b"x" * 1500 + b"\r\n", b"\xff\xfe\r\n", b"\0", b"QUIT\r\n", b"MAIL FROM:<evil@x.y>\r\n", b"\n", b"\r", b"y" * 3000,
]), max_size=8).map(b"".join)  # fmt: skip


class Smtp(RuleBasedStateMachine):
    """Commands, challenges, messages and chunks in any order, cut into packets anyhow."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Dialogue()

    def teardown(self) -> None:
        asyncio_errors = [one for one in self.talk.bench.spool.stored if self.faults(one)]
        self.talk.close()
        assert asyncio_errors == []

    def faults(self, stored: object) -> list[str]:
        return self.talk.loop.run_until_complete(submitted(stored)).faults()

    @precondition(lambda self: self.talk.mode == "command")
    @rule(verb=VERBS, cuts=st.integers(0, 3))
    def command(self, verb: str, cuts: int) -> None:
        self.talk.say(verb.encode() + b"\r\n", cuts)

    @precondition(lambda self: self.talk.mode == "command")
    @rule(octets=NOISE)
    def noise(self, octets: bytes) -> None:
        if not octets.startswith((b"\x16", b"\r\n\r\n\0")) and b"BDAT" not in octets.upper():
            self.talk.say(octets + b"\n")

    @precondition(lambda self: self.talk.mode == "command")
    @rule(
        address=ADDRESSES,
        who=st.sampled_from(["MAIL FROM:", "mail  from: ", "MAIL FROM ", "RCPT TO:", "rcpt to : "]),
    )
    def path(self, address: str, who: str) -> None:
        self.talk.say(f"{who}{address}\r\n".encode())

    @precondition(lambda self: self.talk.mode == "command")
    @rule()
    def envelope(self) -> None:
        for line in (b"RSET\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n"):
            self.talk.say(line)

    @precondition(lambda self: self.talk.mode == "answer")
    @rule(text=st.sampled_from([b"*", b"c2Nhbm5lci0z", b"c2VjcmV0", b"", b"!", b"AHNjYW5uZXItMwBzZWNyZXQ="]))
    def answer(self, text: bytes) -> None:
        self.talk.say(text + b"\r\n")

    @precondition(lambda self: self.talk.mode == "data")
    @rule(header=HEADERS, body=LINES, cuts=st.integers(0, 6))
    def message(self, header: bytes, body: bytes, cuts: int) -> None:
        # odd endings inside are content: only what is put behind them ends the message
        content = b"\r\n" + header + b"\r\n" + body + b"end\r\n"
        while b"\r\n.\r\n" in content:
            content = content.replace(b"\r\n.\r\n", b"\r\n..\r\n")
        self.talk.say(content[2:] + b".\r\n", cuts)

    @precondition(lambda self: self.talk.mode == "command")
    @rule(header=HEADERS, body=LINES)
    def mail(self, header: bytes, body: bytes) -> None:
        self.envelope()
        self.talk.say(b"DATA\r\n")
        if self.talk.mode == "data":
            self.message(header, body, 0)

    @precondition(lambda self: self.talk.mode == "command" and self.talk.client is not None)
    @rule(body=LINES, last=st.booleans())
    def chunk(self, body: bytes, last: bool) -> None:
        self.talk.say(b"BDAT %d%s\r\n" % (len(body), b" LAST" if last else b"") + body)

    @rule()
    def leave(self) -> None:
        self.talk.hang_up()

    @invariant()
    def holds(self) -> None:
        self.talk.check()


TestSmtp = Smtp.TestCase
TestSmtp.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def test_the_machine_speaks() -> None:
    """The dialogue under the machine takes a message, so that the machine can find one missing."""
    talk = Dialogue()
    try:
        for line in (b"EHLO x\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n"):
            talk.say(line)
        assert talk.mode == "data"
        assert talk.say(b"Subject: s\r\n\r\n.\r\n").startswith("250")
        assert talk.accepted == 1
        talk.check()
    finally:
        talk.close()
    assert asyncio.get_event_loop_policy() is not None
