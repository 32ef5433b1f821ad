"""What monitoring systems ask: alive, ready (and why not), metrics. No password; what is told depends on who asks.

Anybody may hear whether relay is alive and ready. Reasons and figures name mailboxes, so they are for this machine, for
``web.metrics_from``, and for who is signed in. A request that came through a proxy is judged as anybody's: behind one on
this machine, the whole world would look like loopback.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from aiohttp import hdrs, web

from relay.web.page import page_of, session_of

PATHS = ("/healthz", "/readyz", "/metrics")
"""What needs no session."""
_PROXIED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the three."""
    router.add_get("/healthz", healthz)
    router.add_get("/readyz", readyz)
    router.add_get("/metrics", metrics)


async def healthz(_request: web.Request) -> web.Response:
    """200 while the process answers at all: what a restart could mend is not here."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """200 while mail is taken, else 503; with ``?strict=1`` also 503 while it cannot leave. JSON with the reasons."""
    health = await page_of(request).desk.health()
    strict = request.query.get("strict", "") not in ("", "0", "false", "no")
    well = bool(health["ok"]) and not (strict and health["warnings"])
    shown: dict[str, Any] = {"ok": well}
    if trusted(request):
        shown = {**health, **shown}
    return web.json_response(shown, status=200 if well else 503)


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text format."""
    if not trusted(request):
        return web.Response(
            status=403,
            text="Metrics are for this machine and the networks of web.metrics_from in relay's configuration.\n",
        )
    body = await page_of(request).desk.metrics()
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: _TEXT})


def trusted(request: web.Request) -> bool:
    """Whether mailboxes and reasons may be told: this machine itself, a network of ``web.metrics_from``, or a session."""
    if session_of(request) is not None:
        return True
    if any(name in request.headers for name in _PROXIED):
        return False
    try:
        address = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    settings = page_of(request).desk.settings.web
    networks = settings.metrics_from if settings is not None else ()
    return address.is_loopback or any(address in one for one in networks)
