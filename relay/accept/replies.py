"""What clients are told: fixed replies as octets, and a safe way to make the others.

Codes follow RFC 5321 section 4.2, enhanced codes RFC 3463 and RFC 5248; every reply but the banner, EHLO's and
354/334 carries one (RFC 2034).
"""

from __future__ import annotations

from relay.message import Reply

LONGEST = 450
"""Octets of text in one reply line; RFC 5321 section 4.5.3.1.5 allows 512 for the whole line."""

OK = b"250 2.0.0 Ok\r\n"
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
BYE = b"221 2.0.0 Bye\r\n"
HELP = b"214 2.0.0 This is a mail relay; its administrator knows more\r\n"
VRFY = b"252 2.1.5 Cannot verify, but will take the message and try\r\n"
NOT_IMPLEMENTED = b"502 5.5.1 Command not implemented\r\n"
UNKNOWN = b"500 5.5.2 Command not recognised\r\n"
CONTROL = b"500 5.5.2 Control characters are not allowed in commands\r\n"
NOT_ASCII = b"500 5.5.2 Not ASCII, and not UTF-8 either\r\n"
TOO_LONG = b"500 5.5.2 Line too long\r\n"
NO_ARGUMENT = b"501 5.5.4 No argument is allowed here\r\n"
NESTED = b"503 5.5.1 Sender already given; RSET starts again\r\n"
NEED_MAIL = b"503 5.5.1 MAIL comes first\r\n"
NEED_RCPT = b"503 5.5.1 No valid recipient yet\r\n"
IN_BDAT = b"503 5.5.1 A BDAT message is under way; finish it or RSET\r\n"
MAIL_SYNTAX = b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n"
RCPT_SYNTAX = b"501 5.5.4 Syntax: RCPT TO:<address>\r\n"
BDAT_SYNTAX = b"501 5.5.4 Syntax: BDAT size [LAST]; closing, since the size is unknown\r\n"
WRONG_PARAMETER = b"501 5.5.4 A parameter has no valid value\r\n"
UNKNOWN_PARAMETER = b"555 5.5.4 Parameter not recognised\r\n"
NEED_UTF8 = b"553 5.6.7 The address is not ASCII and SMTPUTF8 was not given\r\n"
TOO_MANY_RECIPIENTS = b"452 4.5.3 Too many recipients; send the rest in another message\r\n"
TOO_BIG = b"552 5.3.4 Message is larger than this relay takes\r\n"
HEADER_TOO_BIG = b"552 5.3.4 The header block is larger than 256 kB\r\n"
HEADERS_FULL = b"452 4.3.1 Too many large header blocks are under way; try again later\r\n"
HAS_NUL = b"550 5.6.0 The message holds a NUL octet\r\n"
SIGNED_TOO_LONG = (
    b"550 5.6.0 A line of the signed text is over 998 octets, and signed text cannot be re-encoded:"
    b" let the signing program use quoted-printable or base64\r\n"
)
LOOP = b"554 5.4.6 Mail loop: more than 50 Received fields\r\n"
NO_ROOM = b"452 4.3.1 The spool has no room at present; try again later\r\n"
SPOOL_TROUBLE = b"451 4.3.0 The message cannot be stored at present; try again later\r\n"
INTERNAL = b"451 4.3.0 Something went wrong here; try again later\r\n"
NO_POSTMASTER = b"550 5.1.1 No postmaster is configured here\r\n"
RECIPIENT_DENIED = b"550 5.7.1 The recipient policy of this relay does not allow this address\r\n"
SENDER_DENIED = b"550 5.7.1 This login may not send as that address (clients: may_send_as)\r\n"
AUTH_REQUIRED = b"530 5.7.0 Authentication required\r\n"
AUTH_REQUIRED_TLS = b"530 5.7.0 Authentication required; give STARTTLS first\r\n"
AUTH_OFF = b"502 5.5.1 AUTH is not enabled here\r\n"
AUTH_NEEDS_TLS = b"538 5.7.11 AUTH needs TLS here; give STARTTLS first\r\n"
AUTH_TWICE = b"503 5.5.1 Already authenticated\r\n"
AUTH_IN_MAIL = b"503 5.5.1 AUTH is not allowed inside a message\r\n"
AUTH_MECHANISM = b"504 5.5.4 Mechanism not offered; PLAIN and LOGIN are\r\n"
AUTH_SYNTAX = b"501 5.5.2 Not valid base64, or not what the mechanism asks for\r\n"
AUTH_CANCELLED = b"501 5.7.0 Authentication cancelled\r\n"
AUTH_OK = b"235 2.7.0 Authentication succeeded\r\n"
AUTH_FAILED = b"535 5.7.8 Authentication failed\r\n"
ASK_EMPTY = b"334 \r\n"
ASK_USER = b"334 VXNlcm5hbWU6\r\n"
ASK_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"
TLS_READY = b"220 2.0.0 Ready to start TLS\r\n"
TLS_OFF = b"502 5.5.1 STARTTLS is not enabled here\r\n"
TLS_TWICE = b"503 5.5.1 TLS is already active\r\n"
CLOSE_IDLE = b"421 4.4.2 Nothing (or too little) came for too long; closing\r\n"
CLOSE_STOPPING = b"421 4.3.2 The relay is stopping; try again shortly\r\n"
CLOSE_ERRORS = b"421 4.7.0 Too many errors; closing\r\n"
CLOSE_GUESSING = b"421 4.7.0 Too many wrong passwords from your address; try again in 10 minutes\r\n"
CLOSE_HTTP = b"421 4.7.0 This is a mail relay, not a web server; closing\r\n"
CLOSE_PROXY = b"421 4.7.0 A PROXY header is expected from this address; closing\r\n"
CLOSE_IDLE_COMMANDS = b"421 4.7.0 Too many commands without a message; closing\r\n"
CLOSE_FULL = b"421 4.7.0 Too many connections (listeners: limits.connections); try again later\r\n"
CLOSE_CLIENT_FULL = (
    b"421 4.7.0 Too many connections from your address (listeners: limits.connections_per_client)\r\n"
)
CLOSE_NETWORK = b"554 5.7.1 Your address is not among the networks of this listener (listeners: allow)\r\n"
LF_ONLY = (
    b"521 5.6.11 Lines must end with CRLF, yours end with LF only; mend the client,"
    b" or set newlines: tolerant on this listener\r\n"
)


def encode(reply: Reply) -> bytes:
    """A reply as one line; control characters and non-ASCII can neither break nor extend it."""
    text = "".join(char if " " <= char <= "~" else "?" for char in reply.text)[:LONGEST]
    return " ".join(part for part in (str(reply.code), reply.enhanced, text) if part).encode() + b"\r\n"


def show(line: bytes) -> str:
    """A reply line for the log."""
    return line.decode("ascii", "replace").strip()


def clean(text: str, limit: int = 300) -> str:
    """A client's text for the log: control characters as escapes, bounded, so that it cannot forge a line."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
