"""The application: its routes, and what every request goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from relay import events
from relay.errors import RelayError
from relay.web import guard, monitor
from relay.web.page import FORM, LIVE, PAGE, SESSION, Page, page_of, session_of, to_login, trouble
from relay.web.sessions import same
from relay.web.shown import STATIC, static
from relay.web.slow import HEAD, KEEPALIVE, hurried
from relay.web.views import activity, entry, message, overview, queue, senders, settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OPEN = ("/login", "/first/", "/static/", *monitor.PATHS)
"""What needs no password."""
_MESSAGES = {
    404: "There is no such page.",
    405: "This page does not take that.",
    413: "That is too much at once.",
}


def build(page: Page) -> web.Application:
    """The application of one page."""
    app = web.Application(middlewares=[_in_time, _errors, _door], client_max_size=guard.BODY)
    app[PAGE] = page
    app.on_response_prepare.append(guard.dress)
    monitor.add_routes(app.router)
    app.router.add_get("/static/{name}", serve_static)
    for view in (entry, overview, settings, senders, queue, message, activity):
        view.add_routes(app.router)
    return app


@web.middleware
async def _in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The head of this request has come; that of the next one gets its time from the answer on."""
    connection = hurried(request)
    if connection is None:
        return await handler(request)
    connection.arrived()
    try:
        return await handler(request)
    finally:
        connection.wait(KEEPALIVE + HEAD)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a page that says what to do; our own faults go to the log, never to the browser."""
    try:
        return await handler(request)
    except guard.Refused as refused:
        if refused.status == 421:  # nothing of ours for who calls us by a name of somebody else
            return web.Response(status=refused.status, text=refused.why + "\n")
        return trouble(request, refused.status, refused.why)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return trouble(request, error.status, _MESSAGES.get(error.status, error.reason))
    except RelayError as error:
        return trouble(request, 503, str(error), error.remedy)
    except ConnectionError:
        raise  # the browser has gone
    except Exception as error:
        events.trouble(where="web", what=f"unexpected error on {request.path}: {error!r}", error=error)
        return trouble(
            request, 500, "Something went wrong inside relay.", "The log of relay says what it was."
        )


@web.middleware
async def _door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Host, session, and for each form its origin and token."""
    page = page_of(request)
    settings_of_web = page.desk.settings.web
    if settings_of_web is not None:
        guard.check_host(request, settings_of_web)
    session = page.sessions.find(
        request.cookies.get(page.cookie("relay_session"), ""), touch=LIVE not in request.headers
    )
    if session is not None and page.hashed:
        request[SESSION] = session
    is_open = request.path.startswith(_OPEN)
    if not is_open and session_of(request) is None:
        return to_login(request)
    if request.method not in ("GET", "HEAD"):
        await _check_form(request, page)
    return await handler(request)


async def _check_form(request: web.Request, page: Page) -> None:
    guard.check_origin(request)
    request[FORM] = await guard.form_of(request)
    session = session_of(request)
    cookie = request.cookies.get(page.cookie("relay_form"), "")
    right = session.csrf if session is not None else page.forms.token(cookie) if cookie else ""
    if not same(request[FORM].get("csrf", [""])[0], right):
        raise guard.Refused("The form is out of date. Go back, reload the page, and send it again.")


async def serve_static(request: web.Request) -> web.Response:
    """Our own style sheet, script and icon."""
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    headers = {hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable"}
    return web.Response(body=static(name), content_type=STATIC[name], charset="utf-8", headers=headers)
