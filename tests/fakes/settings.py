"""Typed settings for tests of single rooms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from relay.settings import (
    Alerts,
    ClientSecret,
    Log,
    MailboxLimits,
    RecipientPolicy,
    Secret,
    Settings,
    SpoolSettings,
    Upstream,
)
from tests.fakes.spool import spool_settings

LIMITS = MailboxLimits(
    connections=2,
    messages_per_minute=0,
    recipients_per_day=0,
    recipients_per_message=500,
    message_size=35 * 1024**2,
)


def upstream(**changes: object) -> Upstream:
    """One upstream with harmless values."""
    base = Upstream(
        name="Microsoft 365",
        from_email="notifications@contoso.com",
        tenant_id="11111111-1111-1111-1111-111111111111",
        client_id="22222222-2222-2222-2222-222222222222",
        credential=ClientSecret(Secret("secret~value")),
        host="127.0.0.1",
        port=587,
        timeout=10.0,
        batch_size=30,
        transport="smtp",
        cloud="public",
        authority="https://login.microsoftonline.com",
        graph_url="https://graph.microsoft.com",
        smtp_scope="https://outlook.office365.com/.default",
        graph_scope="https://graph.microsoft.com/.default",
        ca_file=None,
        proxy=None,
        limits=LIMITS,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def settings(path: Path, spool: SpoolSettings | None = None, **changes: object) -> Settings:
    """Settings with one upstream, no listener, and a spool below ``path``."""
    base = Settings(
        upstreams=(upstream(),),
        listeners=(),
        clients=(),
        senders=(),
        default_sender="rewrite",
        recipients=RecipientPolicy(("*",), (), None),
        spool=spool or spool_settings(path),
        postmaster=None,
        alerts=Alerts(None, None),
        web=None,
        log=Log("info", "json"),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]
