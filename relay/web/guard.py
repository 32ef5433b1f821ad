"""What stands in front of every page: the Host field, the origin, the token of a form, and the headers of an answer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import cache

from aiohttp import hdrs, web

from relay.settings import Web
from relay.web import slow

BODY = 256 * 1024
"""Octets of a request body; a form with fifty ids has some thousand."""
FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # not no-referrer: browsers then send `Origin: null` with our own forms
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
}
"""Of every answer."""
_HSTS = "max-age=31536000"


class Refused(Exception):
    """The request is not one that our own pages make; ``why`` may be shown."""

    def __init__(self, why: str, status: int = 403) -> None:
        super().__init__(why)
        self.why = why
        self.status = status


async def dress(request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer its headers (a signal of aiohttp, so that errors are covered, too)."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers[hdrs.SERVER] = "relay"
    if request.secure:
        response.headers["Strict-Transport-Security"] = _HSTS


def check_host(request: web.Request, settings: Web) -> None:
    """Refuse a Host that is not ours: a page of another site may make its own name lead here (DNS rebinding)."""
    host = _host_of(request.headers.get(hdrs.HOST, ""))
    if not is_known(host, settings):
        raise Refused(
            "This page does not know the name it was called by. Use the address of the machine, or add the name "
            "to web.names in the configuration.",
            status=421,
        )


def is_known(host: str, settings: Web) -> bool:
    """Whether a host name is this machine's, or configured. An address as such is: nobody can rebind that."""
    if host in ("localhost", settings.host.lower(), *settings.names) or host in own_names():
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@cache
def own_names() -> frozenset[str]:
    """What this machine calls itself. Asks the resolver the first time."""
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], socket.getfqdn().lower()} - {""})


def _host_of(field: str) -> str:
    """The name or address of a Host field, without port and brackets, lower case."""
    text = field.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def check_origin(request: web.Request) -> None:
    """Refuse a POST that another site's page makes, as far as the browser says so. The form's token is the real wall."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refused("The form was sent by another site's page.")
    origin = request.headers.get(hdrs.ORIGIN)
    if (
        origin is not None
        and origin.partition("://")[2].lower() != request.headers.get(hdrs.HOST, "").lower()
    ):
        raise Refused("The form was sent by another site's page.")


async def form_of(request: web.Request) -> dict[str, list[str]]:
    """The fields of a form, within bounds. Raises Refused, or aiohttp's HTTPRequestEntityTooLarge."""
    if request.content_type != _FORM:
        raise Refused("The request is not a form.", status=415)
    try:
        async with asyncio.timeout(slow.BODY):
            sent = await request.post()
    except TimeoutError:
        raise Refused("The form did not arrive in time. Send it again.", status=408) from None
    fields: dict[str, list[str]] = {}
    for count, (name, value) in enumerate(sent.items()):
        if count >= FIELDS:
            raise Refused("The form has too many fields.", status=413)
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    return fields
