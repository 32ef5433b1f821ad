"""The steps of an SMTP submission, as the reply table names them."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """Where in the dialogue a reply (or the silence in its place) came; RFC 5321 section 3."""

    CONNECT = "connect"
    """Dialling, and the greeting."""
    EHLO = "ehlo"
    STARTTLS = "starttls"
    """The command and the handshake after it."""
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """The command itself, before any octet of the message."""
    BODY = "body"
    """The reply to the final dot."""
    QUIT = "quit"


LOGIN = frozenset({Phase.CONNECT, Phase.EHLO, Phase.STARTTLS, Phase.AUTH})
"""Before any message is under way: nothing here can be a message's fault."""

MAILING = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY})

ANY = frozenset(Phase)
