"""Listeners and clients: never an open relay, and nothing that could not work."""

from __future__ import annotations

from collections.abc import Sequence

from relay.config.findings import Findings
from relay.config.model import Config, ListenerSection
from relay.config.values import is_loopback, split_bind
from relay.settings import Network


def check(config: Config, findings: Findings) -> None:
    """Every check of this section."""
    _unique_binds(config, findings)
    _unique_clients(config, findings)
    for index, listener in enumerate(config.listeners):
        path = f"listeners[{index}]"
        _open_relay(listener, path, findings)
        _whole_internet(listener, path, findings)
        _tls_files(listener, path, findings)
        _login(listener, path, bool(config.clients), findings)
        _sizes(listener, path, config, findings)


def _unique_binds(config: Config, findings: Findings) -> None:
    seen: dict[tuple[str, int], str] = {}
    places = [(listener.bind, f"listeners[{index}].bind") for index, listener in enumerate(config.listeners)]
    if config.web is not None:
        places.append((config.web.bind, "web.bind"))
    for bind, path in places:
        first = seen.setdefault(split_bind(bind), path)
        if first != path and split_bind(bind)[1] != 0:
            findings.fault(
                path, f"is {bind}, which {first} uses already", "choose another port", involves=(first,)
            )


def _unique_clients(config: Config, findings: Findings) -> None:
    seen: dict[str, int] = {}
    for index, client in enumerate(config.clients):
        first = seen.setdefault(client.username, index)
        if first != index:
            findings.fault(
                f"clients[{index}].username",
                f"is `{client.username}`, which clients[{first}] is called already",
                "give each client a username of its own",
                involves=(f"clients[{first}].username",),
            )


def _open_relay(listener: ListenerSection, path: str, findings: Findings) -> None:
    host, _ = split_bind(listener.bind)
    if is_loopback(host) or listener.allow or listener.auth == "required":
        return
    findings.fault(
        f"{path}.bind",
        f"{listener.bind} can be reached from other machines, and neither `allow` nor `auth: required` says who may "
        "send: it would be an open relay",
        "list the networks that may connect in `allow` (RELAY_ALLOW), or set `auth: required`, or bind 127.0.0.1",
        involves=(f"{path}.allow", f"{path}.auth"),
    )


def _whole_internet(listener: ListenerSection, path: str, findings: Findings) -> None:
    if listener.auth != "required" and _everyone(listener.allow):
        findings.warn(
            f"{path}.allow",
            "every address of the Internet may send mail as your organisation; list your own networks only",
        )
    if _everyone(listener.proxy_protocol_from):
        findings.warn(
            f"{path}.proxy_protocol_from", "any client may claim any address; list the load balancers only"
        )


def _everyone(networks: Sequence[Network]) -> bool:
    return any(network.prefixlen == 0 for network in networks)


def _tls_files(listener: ListenerSection, path: str, findings: Findings) -> None:
    if listener.tls.mode == "none":
        return
    for name in ("certificate", "key"):
        if getattr(listener.tls, name) is None:
            findings.fault(
                f"{path}.tls.{name}",
                f"is missing, and tls.mode is {listener.tls.mode}",
                "name the PEM file, or set mode: none",
                involves=(f"{path}.tls.mode",),
            )


def _login(listener: ListenerSection, path: str, has_clients: bool, findings: Findings) -> None:
    if listener.auth == "none":
        return
    local = is_loopback(split_bind(listener.bind)[0])
    if not has_clients:
        findings.warn(f"{path}.auth", "there are no `clients`, so nobody can log in", involves=("clients",))
    if listener.auth_in_clear and not local:
        findings.warn(
            f"{path}.auth_in_clear",
            "passwords may cross the network readable by others; use tls where clients can",
        )
    elif listener.tls.mode == "none" and not local:
        findings.warn(
            f"{path}.auth",
            "AUTH is offered over TLS only and tls.mode is none, so nobody can log in; set tls, or auth_in_clear",
            involves=(f"{path}.tls",),
        )


def _sizes(listener: ListenerSection, path: str, config: Config, findings: Findings) -> None:
    for index, upstream in enumerate(config.upstreams):
        where = f"upstreams[{index}].limits.message_size"
        if listener.limits.message_size > upstream.limits.message_size:
            findings.warn(
                f"{path}.limits.message_size",
                f"larger messages are accepted here than {where} lets through; they will come back as failures",
                involves=(where,),
            )
