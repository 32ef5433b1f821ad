"""Signing in and out, and the first password."""

from __future__ import annotations

from aiohttp import web

from relay import events
from relay.web.gate import TooMany, weakness
from relay.web.page import Page, asked, go, inner, page_of, secret, session_of, shown, text


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/login", login)
    router.add_post("/login", sign_in)
    router.add_post("/logout", sign_out)
    router.add_get("/first/{token}", first)
    router.add_post("/first/{token}", set_first)
    router.add_get("/password", password)
    router.add_post("/password", change_password)


def client_of(request: web.Request) -> str:
    """Whose wrong passwords are counted together."""
    return request.remote or "?"


async def login(request: web.Request) -> web.Response:
    """The password, please."""
    page = page_of(request)
    if session_of(request) is not None:
        return go(request, inner(asked(request, "next") or "/"))
    if not page.hashed:
        return shown(request, "first_needed.html")
    return shown(request, "login.html", next=inner(asked(request, "next") or "/"), error="")


async def sign_in(request: web.Request) -> web.Response:
    """Check it."""
    page, where = page_of(request), inner(text(request, "next") or "/")
    if not page.hashed:
        return go(request, "/login")
    try:
        right = await page.gate.check(client_of(request), secret(request, "password"), page.hashed)
    except TooMany as error:
        response = shown(
            request, "login.html", 429, next=where, error=f"Too many tries. {_again(error.seconds)}"
        )
        response.headers["Retry-After"] = str(max(1, round(error.seconds)))
        return response
    if not right:
        events.advice(where="web", what="wrong password for the admin page", client=client_of(request))
        return shown(request, "login.html", 403, next=where, error="That is not the password.")
    return _signed_in(request, page, where)


def _again(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"Try again in {whole} seconds." if whole < 120 else f"Try again in {-(-whole // 60)} minutes."


def _signed_in(request: web.Request, page: Page, where: str, *said: tuple[str, str]) -> web.Response:
    token, session = page.sessions.begin()
    session.flash.extend(said)
    response = go(request, where)
    page.set_cookie(response, "relay_session", token)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """End the session here, not only in the browser."""
    page = page_of(request)
    page.sessions.end(request.cookies.get(page.cookie("relay_session"), ""))
    response = go(request, "/login")
    response.del_cookie(
        page.cookie("relay_session"), path="/", secure=page.secure, httponly=True, samesite="Strict"
    )
    return response


async def first(request: web.Request) -> web.Response:
    """The one-time link: choose a password. Looking at it does not spend it, a mail scanner might."""
    page = page_of(request)
    if page.hashed or not page.link.fits(request.match_info["token"]):
        return shown(request, "first_over.html", 410)
    return shown(request, "first.html", token=request.match_info["token"], error="")


async def set_first(request: web.Request) -> web.Response:
    """Set it, and spend the link."""
    page, token = page_of(request), request.match_info["token"]
    if page.hashed or not page.link.fits(token):
        return shown(request, "first_over.html", 410)
    new, again = secret(request, "password"), secret(request, "again")
    error = weakness(new, again)
    if error:
        return shown(request, "first.html", 422, token=token, error=error)
    page.link.spend()
    hashed = await page.gate.make(new)
    where = await page.desk.store_password(hashed)
    events.notice(what="the password of the admin page was set", stored=where, client=client_of(request))
    return _signed_in(request, page, "/", ("ok", f"The password is set. It is stored as a hash in {where}."))


async def password(request: web.Request) -> web.Response:
    """Change it."""
    return shown(request, "password.html", error="")


async def change_password(request: web.Request) -> web.Response:
    """The old one once more, so that an open browser is not enough."""
    page = page_of(request)
    try:
        right = await page.gate.check(client_of(request), secret(request, "old"), page.hashed)
    except TooMany as many:
        return shown(request, "password.html", 429, error=f"Too many tries. {_again(many.seconds)}")
    if not right:
        return shown(request, "password.html", 403, error="The present password is not right.")
    new, again = secret(request, "password"), secret(request, "again")
    error = weakness(new, again)
    if error:
        return shown(request, "password.html", 422, error=error)
    where = await page.desk.store_password(await page.gate.make(new))
    page.sessions.clear()
    events.notice(what="the password of the admin page was changed", stored=where, client=client_of(request))
    return _signed_in(
        request, page, "/", ("ok", "The password is changed, and every other browser is signed out.")
    )
