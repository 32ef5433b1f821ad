"""What the tests of this room share: settings made by hand, a route, and a short way to rewrite."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from relay.message import Client
from relay.rewrite.contract import Rewritten, Route
from relay.rewrite.pipeline import rewrite
from relay.settings import ClientSecret, MailboxLimits, Secret, SenderRule, Settings, Upstream

CLIENT = Client(address="127.0.0.1", port=40000, helo="app")
SCANS = "scans@contoso.com"
WHEN = 1795514400.0
SPOOL_ID = "0k3v9s2f7q8zc"


def upstream(name: str = "M365", from_email: str = "notifications@contoso.com") -> Upstream:
    return Upstream(
        name=name, from_email=from_email, tenant_id="t", client_id="c", credential=ClientSecret(Secret("s")),
        host="smtp.office365.com", port=587, timeout=120, batch_size=30, transport="auto", cloud="public",
        authority="https://login.microsoftonline.com", graph_url="https://graph.microsoft.com",
        smtp_scope="", graph_scope="", ca_file=Path("ca.pem"), proxy=None,
        limits=MailboxLimits(2, 30, 10000, 500, 35 << 20),
    )  # fmt: skip


def rule(match: str, to: str | None = SCANS, **more: object) -> SenderRule:
    """A sender rule; ``/.../`` is a regular expression, ``network`` a text."""
    pattern = re.compile(match[1:-1], re.IGNORECASE) if match.startswith("/") else match
    network = more.get("network")
    return SenderRule(
        match=pattern,
        network=ip_network(str(network)) if network else None,
        user=cast("str | None", more.get("user")),
        from_address=to,
        login=cast("tuple[str, ...]", more.get("login", ())),
        name=str(more.get("name", "keep")),
        reply_to=str(more.get("reply_to", "original")),
        upstream=str(more.get("upstream", "M365")),
    )


def settings(*rules: SenderRule, default_sender: str = "rewrite") -> Settings:
    """The slice of the settings that routing reads."""
    slice_ = SimpleNamespace(
        senders=rules, default_sender=default_sender, upstreams=(upstream(), upstream("Second"))
    )
    return cast(Settings, slice_)


def route(from_address: str | None = SCANS, *, name: str = "keep", reply_to: str = "original") -> Route:
    return Route("M365", (SCANS,), from_address, name, reply_to, 0)


def rewritten(
    header: bytes, to: Route | None = None, *, sender: str = "", smtputf8: bool = False, mailbox: str = SCANS
) -> Rewritten:
    return rewrite(
        header, to or route(), mailbox, sender=sender, client=CLIENT, message_id=SPOOL_ID, received=WHEN,
        smtputf8=smtputf8,
    )  # fmt: skip


def field(header: bytes, name: str) -> bytes | None:
    """The one field of that name, on one line; None when there is none."""
    found = re.findall(rb"(?im)^" + name.encode() + rb":[ ]?((?:.*\r\n)(?:[ \t].*\r\n)*)", header)
    assert len(found) <= 1, found
    return found[0].replace(b"\r\n", b"") if found else None
