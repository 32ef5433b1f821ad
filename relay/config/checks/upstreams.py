"""Upstreams: names, ids, credentials, addresses, and limits that would provoke Exchange."""

from __future__ import annotations

from urllib.parse import urlsplit

from relay.config.fields import MB
from relay.config.findings import Findings
from relay.config.model import Config, UpstreamSection
from relay.config.values import GUID, ZERO_GUID

CREDENTIALS = ("client_secret", "certificate", "managed_identity", "federated_token_file", "user_login")
# What Exchange Online takes from one mailbox (facts 3.1); more than this gets throttled.
_EXCHANGE_TAKES = {"connections": 3, "messages_per_minute": 30, "recipients_per_day": 10_000}


def check(config: Config, findings: Findings) -> None:
    """Every check of this section."""
    _unique_names(config, findings)
    for index, upstream in enumerate(config.upstreams):
        path = f"upstreams[{index}]"
        _one_credential(upstream, path, findings)
        _next_credential(upstream, path, findings)
        _ids(upstream, path, findings)
        _addresses(upstream, path, findings)
        _limits(upstream, path, findings)


def _unique_names(config: Config, findings: Findings) -> None:
    seen: dict[str, int] = {}
    for index, upstream in enumerate(config.upstreams):
        first = seen.setdefault(upstream.server_name, index)
        if first != index:
            findings.fault(
                f"upstreams[{index}].server_name",
                f"is `{upstream.server_name}`, which upstreams[{first}] is called already",
                "give each upstream a server_name of its own",
                involves=(f"upstreams[{first}].server_name",),
            )


def _one_credential(upstream: UpstreamSection, path: str, findings: Findings) -> None:
    given = [kind for kind in CREDENTIALS if getattr(upstream, kind) is not None]
    involved = tuple(f"{path}.{kind}" for kind in CREDENTIALS)
    if not given:
        findings.fault(
            f"{path}.client_secret",
            "no credential is given",
            "set RELAY_CLIENT_SECRET or client_secret (the guide's step 5), or one of: "
            + ", ".join(CREDENTIALS[1:]),
            involves=involved,
        )
    elif len(given) > 1:
        findings.fault(
            f"{path}.{given[1]}",
            f"more than one credential is given: {', '.join(given)}",
            "keep exactly one of them",
        )
    if upstream.client_secret_expires and "client_secret" not in given:
        findings.warn(f"{path}.client_secret_expires", "there is no client_secret here that could expire")


def _next_credential(upstream: UpstreamSection, path: str, findings: Findings) -> None:
    following = upstream.next_credential
    if following is None:
        return
    where = f"{path}.next_credential"
    given = [kind for kind in ("client_secret", "certificate") if getattr(following, kind) is not None]
    if len(given) != 1:
        problem = "names no credential" if not given else "more than one credential is given"
        findings.fault(where, problem, "give either client_secret or certificate, or remove the section")
    if upstream.client_secret is None and upstream.certificate is None:
        findings.fault(
            where,
            "goes with client_secret or certificate alone",
            "remove it: the credential above it does not end",
            involves=tuple(f"{path}.{kind}" for kind in CREDENTIALS),
        )
    if following.client_secret_expires and following.client_secret is None:
        findings.warn(f"{where}.client_secret_expires", "there is no client_secret here that could expire")


def _ids(upstream: UpstreamSection, path: str, findings: Findings) -> None:
    tenant, client = f"{path}.tenant_id", f"{path}.client_id"
    if upstream.tenant_id == upstream.client_id != ZERO_GUID:
        findings.fault(
            client,
            "is the same as tenant_id",
            "copy both again from the Overview page: Application (client) ID and Directory (tenant) ID are different "
            "(the guide's step 6)",
            involves=(tenant,),
        )
    for where, value in ((tenant, upstream.tenant_id), (client, upstream.client_id)):
        if value == ZERO_GUID:
            findings.warn(
                where, "this is still the placeholder of the example; put the real id in (the guide's step 6)"
            )
    if not GUID.fullmatch(upstream.tenant_id):
        findings.warn(
            tenant, "this is a domain; the Directory (tenant) ID keeps working when a domain is removed"
        )


def _addresses(upstream: UpstreamSection, path: str, findings: Findings) -> None:
    if upstream.from_email.lower().endswith(".onmicrosoft.com"):
        findings.warn(
            f"{path}.from_email",
            "Exchange lets onmicrosoft.com senders reach only 100 outside recipients a day; use a domain of your own",
        )
    if upstream.port == 465:
        findings.warn(f"{path}.port", "Exchange Online does not answer on port 465; use 587")
    if upstream.authority and urlsplit(upstream.authority).path.strip("/"):
        findings.fault(
            f"{path}.authority",
            "holds more than the host",
            "leave the tenant out: it has its own key, tenant_id",
        )
    if upstream.graph_url and urlsplit(upstream.graph_url).path.endswith(("/v1.0", "/beta")):
        findings.fault(f"{path}.graph_url", "holds the API version", "leave /v1.0 out: relay adds it")


def _limits(upstream: UpstreamSection, path: str, findings: Findings) -> None:
    for name, most in _EXCHANGE_TAKES.items():
        value = getattr(upstream.limits, name)
        if value > most or value == 0:
            shown = "no limit" if value == 0 else str(value)
            findings.warn(
                f"{path}.limits.{name}",
                f"{shown} is more than the {most} that Exchange takes from one mailbox",
            )
    if upstream.limits.message_size > 35 * MB:
        findings.warn(
            f"{path}.limits.message_size", "mailboxes take 35MB unless an administrator raised MaxSendSize"
        )
