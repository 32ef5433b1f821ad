"""The side that clients see: ports, who may connect, and the listeners' certificates."""

from __future__ import annotations

import datetime
import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from relay.accept.tls import build
from relay.check import catalogue, certificates
from relay.check.bounds import brief
from relay.check.contract import Status, Step
from relay.check.interfaces import Interface
from relay.check.running import Running
from relay.settings import Listener, Web

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
RENEW = 30
"""Days before its end at which a certificate is worth a word."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What trying to listen on an address came to; ``error`` is None when it can be done."""

    error: OSError | None

    @property
    def remedy(self) -> str:
        """What to do about it."""
        code = self.error.errno if self.error else 0
        if code == errno.EADDRINUSE:
            return (
                "Another program listens there (Postfix, Exim, another relay?). See which: ss -ltnp, or on Windows: "
                "Get-NetTCPConnection -State Listen. Stop it, or choose another port in `bind`."
            )
        if code in (errno.EACCES, errno.EPERM):
            return (
                "Ports below 1024 need a right: in the systemd unit AmbientCapabilities=CAP_NET_BIND_SERVICE (as in "
                "systemd/relay.service), or choose a port such as 2525. Try it as the user that relay runs as."
            )
        if code == errno.EADDRNOTAVAIL:
            return "This machine has no such address: see ip address, and correct `bind`; 0.0.0.0 is all of IPv4."
        return "Correct `bind`."


def try_to_bind(host: str, port: int) -> Bound:
    """Listen there for a moment, as the daemon would. Port 0 is always free. Blocks for a moment (a name in host)."""
    try:
        rows = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, proto, _, address in rows:
            with socket.socket(family, kind, proto) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(1)
    except OSError as error:
        return Bound(error)
    return Bound(None)


def port_step(bind: str, host: str, port: int, relay: Running) -> Step:
    """Free, served by the running relay, or in the way."""
    kind = catalogue.LISTENER
    if relay.binds is not None and bind in relay.binds:
        return kind.step(Status.OK, "the running relay listens here", about=bind)
    result = try_to_bind(host, port)
    if result.error is None and relay.binds is None:
        return kind.step(Status.OK, "free; relay run will listen here", about=bind)
    if result.error is None:
        seen = "free, but the running relay does not listen here: it runs with an older configuration"
        return kind.step(Status.WARN, seen, "Reload it (SIGHUP: systemctl reload relay).", about=bind)
    seen = f"cannot listen here: {brief(result.error)}"
    if relay.hidden and result.error.errno == errno.EADDRINUSE:
        remedy = f"If it is relay itself, run the check as relay's own user: sudo -u relay relay check. {result.remedy}"
        seen += "; perhaps by the running relay, which this user may not ask"
        return kind.step(Status.WARN, seen, remedy, about=bind)
    rights = result.error.errno in (errno.EACCES, errno.EPERM)
    if rights:
        seen += " (for the user of this check; the service may have the right)"
    return kind.step(Status.WARN if rights else Status.FAIL, seen, result.remedy, about=bind)


def networks_step(listener: Listener, own: list[Interface]) -> Step:
    """Who may connect, whether that is everybody, and whether passwords can be overheard."""
    kind, bind = catalogue.NETWORKS, listener.bind
    shown = ", ".join(map(str, listener.allow[:6])) + (" and others" if len(listener.allow) > 6 else "")
    login = {"required": ", with a login", "optional": ", with or without a login"}.get(listener.auth, "")
    seen = f"{shown}{login}"
    everyone = any(network.prefixlen == 0 for network in listener.allow)
    if everyone and listener.auth != "required" and not _loopback(listener):
        public = [one.address for one in _reached(listener, own) if one.public]
        remedy = "List your own networks in `allow`, or set `auth: required`: who can connect can send as your domain."
        where = f"; this machine has the public address {public[0]}" if public else ""
        seen = f"everybody who can reach it{login}{where}: an open relay"
        return kind.step(Status.FAIL if public else Status.WARN, seen, remedy, about=bind)
    if any(network.prefixlen == 0 for network in listener.proxy_protocol_from):
        remedy = "List the load balancers only in `proxy_protocol_from`."
        return kind.step(Status.WARN, f"{seen}; any client may claim any address", remedy, about=bind)
    if listener.auth_in_clear and listener.auth != "none" and not _loopback(listener):
        remedy = "Set `tls` where clients can encrypt, and keep `auth_in_clear` for a listener of those that cannot."
        return kind.step(Status.WARN, f"{seen}; passwords may cross the network readable", remedy, about=bind)
    return _outsiders(listener, own, seen)


def _outsiders(listener: Listener, own: list[Interface], seen: str) -> Step:
    """A listener for other machines that none of this machine's own networks may use is usually a mistake."""
    kind, bind = catalogue.NETWORKS, listener.bind
    if _loopback(listener):
        return kind.step(Status.OK, f"{seen}; this machine only", about=bind)
    near = [one.network for one in _reached(listener, own)]
    fitting = [
        one for one in near if any(one.version == net.version and one.overlaps(net) for net in listener.allow)
    ]
    if near and not fitting:
        shown = ", ".join(map(str, near[:4]))
        remedy = f"If clients are in one of this machine's networks, add it to `allow`: {shown}."
        return kind.step(Status.WARN, f"{seen}; none of this machine's own networks", remedy, about=bind)
    return kind.step(Status.OK, seen, about=bind)


def tls_step(bind: str, certificate: Path, build_error: OSError | None, now: datetime.datetime) -> Step:
    """A listener's certificate: usable with its key, and not about to end."""
    kind = catalogue.LISTENER_TLS
    renew = "Renew it, put the new files in their place, and reload (SIGHUP)."
    if build_error is not None:
        remedy = (
            "Give a PEM certificate with its chain and the key that belongs to it, readable by relay's user."
        )
        return kind.step(Status.FAIL, brief(build_error), remedy, about=bind)
    try:
        facts = certificates.read_file(certificate)
    except (OSError, ValueError) as error:
        return kind.step(Status.FAIL, brief(error), "Give a PEM certificate.", about=bind)
    days = facts.days_left(now)
    if days < 0:
        return kind.step(Status.FAIL, f"expired: {facts.words}", renew, about=bind)
    return kind.step(
        Status.WARN if days < RENEW else Status.OK, facts.words, renew if days < RENEW else "", about=bind
    )


def listener_steps(
    listeners: tuple[Listener, ...], web: Web | None, own: list[Interface], relay: Running,
    now: datetime.datetime,
) -> list[Step]:  # fmt: skip
    """Every step about every listener, and the page's port. Blocks for some milliseconds."""
    steps = [port_step(one.bind, one.host, one.port, relay) for one in listeners]
    if web is not None and relay.binds is None:
        steps.append(port_step(web.bind, web.host, web.port, relay))
    steps += [networks_step(one, own) for one in listeners]
    for one in listeners:
        if one.tls.certificate is not None:
            steps.append(tls_step(one.bind, one.tls.certificate, _unusable(one), now))
    if web is not None and web.certificate is not None:
        steps.append(tls_step(web.bind, web.certificate, None, now))
    return steps


def _unusable(listener: Listener) -> OSError | None:
    try:
        build(listener.tls)
    except OSError as error:
        return error
    return None


def _loopback(listener: Listener) -> bool:
    return listener.host == "localhost" or listener.host.startswith("127.") or listener.host == "::1"


def _reached(listener: Listener, own: list[Interface]) -> list[Interface]:
    """The addresses of this machine that the listener answers on."""
    if listener.host not in EVERYWHERE:
        return [one for one in own if one.address == listener.host]
    if listener.host == "::":
        return own
    return [one for one in own if one.network.version == 4]
