"""The effective configuration for people and programs, without secrets; and the JSON Schema for editors."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from relay import settings as of
from relay.config.model import Config
from relay.dburl import shown_url


def show(settings: of.Settings) -> dict[str, Any]:
    """The settings in the shape of the file; sizes in octets, durations in seconds, secrets as their source."""
    return {
        "upstreams": [_upstream(one) for one in settings.upstreams],
        "listeners": [_listener(one) for one in settings.listeners],
        "clients": [
            {
                "username": one.username,
                "password": _secret(one.password),
                "may_send_as": list(one.may_send_as),
            }
            for one in settings.clients
        ],
        "senders": [_sender(one) for one in settings.senders],
        "default_sender": settings.default_sender,
        "recipients": _plain(settings.recipients),
        "spool": {**_plain(settings.spool), "url": shown_url(settings.spool.url)},
        "postmaster": settings.postmaster,
        "alerts": {"webhook": _origin(settings.alerts.webhook), "command": settings.alerts.command},
        "web": _web(settings.web),
        "log": _plain(settings.log),
        "workers": settings.workers,
    }


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the configuration file, a description with every key."""
    body = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": "relay configuration"}


def _upstream(upstream: of.Upstream) -> dict[str, Any]:
    shown = _plain(upstream)
    for name in ("credential", "smtp_scope", "graph_scope", "next_credential", "next_secret_expires"):
        del shown[name]
    order = {"server_name": shown.pop("name"), "from_email": shown.pop("from_email"),
             "tenant_id": shown.pop("tenant_id"), "client_id": shown.pop("client_id")}  # fmt: skip
    return {
        **order,
        **_credential(upstream.credential),
        "next_credential": _next(upstream),
        **shown,
        "proxy": _url(upstream.proxy),
    }


def _next(upstream: of.Upstream) -> dict[str, Any] | None:
    if upstream.next_credential is None:
        return None
    shown = _credential(upstream.next_credential)
    if isinstance(upstream.next_credential, of.ClientSecret):
        shown["client_secret_expires"] = _plain(upstream.next_secret_expires)
    return shown


def _credential(credential: of.Credential) -> dict[str, Any]:
    if isinstance(credential, of.ClientSecret):
        return {"client_secret": _secret(credential.secret)}
    if isinstance(credential, of.Certificate):
        return {"certificate": _certificate(credential)}
    if isinstance(credential, of.ManagedIdentity):
        return {"managed_identity": credential.client_id or "system"}
    if isinstance(credential, of.UserLogin):
        return {"user_login": {"file": str(credential.file), "key": _secret(credential.key)}}
    return {"federated_token_file": str(credential.file)}


def _certificate(certificate: of.Certificate) -> dict[str, Any]:
    shown = {"file": str(certificate.file), "passphrase": _secret(certificate.passphrase)}
    if certificate.rotation is None:
        return shown
    rotation = _plain(certificate.rotation)
    return {**shown, "rotate": rotation.pop("automatic"), **rotation}


def _listener(listener: of.Listener) -> dict[str, Any]:
    shown = _plain(listener)
    return {key: value for key, value in shown.items() if key not in ("host", "port")}


def _sender(rule: of.SenderRule) -> dict[str, Any]:
    match = f"/{rule.match.pattern}/" if isinstance(rule.match, re.Pattern) else rule.match
    client = f"user:{rule.user}" if rule.user is not None else rule.network
    return {
        "match": match,
        "client": str(client) if client is not None else None,
        "from": rule.from_address or "keep",
        "login": list(rule.login),
        "name": rule.name,
        "reply_to": rule.reply_to,
        "upstream": rule.upstream,
    }


def _web(web: of.Web | None) -> dict[str, Any] | None:
    if web is None:
        return None
    tls = {"certificate": str(web.certificate), "key": str(web.key)} if web.certificate else None
    return {
        "bind": web.bind,
        "password": _secret(web.password),
        "tls": tls,
        "names": list(web.names),
        "metrics_from": [str(one) for one in web.metrics_from],
    }


def _secret(secret: of.Secret | None) -> str | None:
    if secret is None:
        return None
    return f"{secret.source} ({'set' if secret.reveal() else 'empty'})"


def _plain(value: Any) -> Any:
    """A slice of the settings as what JSON and YAML know."""
    if isinstance(value, of.Secret):
        return _secret(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Path | datetime.date) or hasattr(value, "network_address"):
        return str(value)
    return value


def _url(url: str | None) -> str | None:
    """The address with its password, when it has one, taken out."""
    parts = urlsplit(url or "")
    if url is None or parts.password is None:
        return url
    user, host = parts.netloc.rpartition("@")[::2]
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


def _origin(url: str | None) -> str | None:
    """Scheme and host alone: the rest of a webhook's address is its key."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.hostname}/... (set)" if url else None
