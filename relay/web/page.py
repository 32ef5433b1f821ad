"""What all views share: the desk, who is signed in, and how a page is made."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web

from relay.web.desk import Desk
from relay.web.gate import Gate
from relay.web.saving import Savings
from relay.web.sessions import FormKey, OneTimeLink, Session, Sessions
from relay.web.shown import render

LIVE = "X-Relay-Live"
"""Header of what a page fetches by itself: it does not count as a sign of life, and is never sent to the login page."""


@dataclass(slots=True)
class Page:
    """The page of one relay."""

    desk: Desk
    sessions: Sessions
    gate: Gate
    link: OneTimeLink
    savings: Savings
    secure: bool
    """Whether it is served over TLS."""
    forms: FormKey = field(default_factory=FormKey)

    @property
    def hashed(self) -> str:
        """The password's hash; empty as long as there is none."""
        web_settings = self.desk.settings.web
        password = web_settings.password if web_settings is not None else None
        return password.reveal() if password is not None else ""

    def cookie(self, name: str) -> str:
        """The cookie's full name: under TLS it can be set by this very host alone (RFC 6265bis, 4.1.3.2)."""
        return f"__Host-{name}" if self.secure else name

    def set_cookie(self, response: web.StreamResponse, name: str, value: str) -> None:
        """A cookie that scripts cannot read and other sites' pages cannot make the browser send."""
        response.set_cookie(
            self.cookie(name), value, httponly=True, samesite="Strict", secure=self.secure, path="/"
        )


PAGE: web.AppKey[Page] = web.AppKey("page", Page)
SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)
"""Who is signed in, when somebody is."""
FORM: web.RequestKey[dict[str, list[str]]] = web.RequestKey("form", dict[str, list[str]])
"""The fields of the form that was sent, a list of values by name."""


def page_of(request: web.Request) -> Page:
    """The page that this request is for."""
    return request.app[PAGE]


def session_of(request: web.Request) -> Session | None:
    """Who is signed in, if anybody."""
    return request.get(SESSION)


def text(request: web.Request, name: str, limit: int = 4096) -> str:
    """One field of the form that was sent; empty when it is not there. Control characters are taken out."""
    return fields(request, name, limit)[0]


def fields(request: web.Request, name: str, limit: int = 4096) -> list[str]:
    """All values of one field; one empty text when it is not there."""
    given = request[FORM].get(name, [""])
    return [
        "".join(char for char in one if char.isprintable() or char in "\n\t").strip()[:limit] for one in given
    ]


def secret(request: web.Request, name: str) -> str:
    """A password exactly as it was typed."""
    return request[FORM].get(name, [""])[0]


def asked(request: web.Request, name: str, limit: int = 500) -> str:
    """One parameter of the address; empty when it is not there."""
    return "".join(char for char in request.query.get(name, "") if char.isprintable()).strip()[:limit]


def shown(request: web.Request, template: str, status: int = 200, **context: Any) -> web.Response:
    """A page from a template."""
    page, session = page_of(request), session_of(request)
    cookie = "" if session is not None else request.cookies.get(page.cookie("relay_form"), "")
    fresh = "" if session is not None or cookie else secrets.token_urlsafe(24)
    csrf = session.csrf if session is not None else page.forms.token(cookie or fresh)
    flashes = list(session.flash) if session is not None else []
    if session is not None and LIVE not in request.headers:
        session.flash.clear()
    html = render(
        template,
        csrf=csrf,
        signed_in=session is not None,
        flashes=flashes,
        path=request.path,
        replica=page.desk.spool.replica_name,
        now=page.desk.now(),
        **context,
    )
    response = web.Response(text=html, content_type="text/html", status=status)
    if fresh:
        page.set_cookie(response, "relay_form", fresh)
    return response


def fragment(request: web.Request, template: str, *, done: bool = False, **context: Any) -> web.Response:
    """A part of a page, for live updates; ``done``: nothing will change any more."""
    response = shown(request, template, **context)
    if done:
        response.headers[LIVE] = "done"
    return response


def go(request: web.Request, where: str, *said: tuple[str, str]) -> web.Response:
    """Send the browser on after a form (303), with sentences for the next page."""
    session = session_of(request)
    if session is not None:
        session.flash.extend(said)
    return web.Response(status=303, headers={hdrs.LOCATION: where})


def trouble(request: web.Request, status: int, what: str, remedy: str = "") -> web.Response:
    """A page that says what is wrong, and what to do."""
    return shown(request, "trouble.html", status, what=what, remedy=remedy)


def to_login(request: web.Request) -> web.Response:
    """Ask for the password first; afterwards to where one wanted to go."""
    if LIVE in request.headers:
        return web.Response(status=401, text="Sign in again.")
    where = request.path_qs if request.method == "GET" else "/"
    return web.Response(status=303, headers={hdrs.LOCATION: "/login?next=" + quote(where, safe="")})


def inner(where: str) -> str:
    """A path of our own to go on to; anything else becomes the first page."""
    safe = where.startswith("/") and not where.startswith("//") and where.isprintable() and "\\" not in where
    return where if safe and not where.startswith(("/login", "/first")) else "/"
