"""Activity: the last events, live."""

from __future__ import annotations

from aiohttp import web

from relay.web.page import LIVE, asked, fragment, page_of, shown

SHOWN = 100


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/activity", activity)


async def activity(request: web.Request) -> web.Response:
    """The last events, newest first; only what needs a look with ``?level=warning``."""
    desk = page_of(request).desk
    level = "warning" if asked(request, "level") == "warning" else "all"
    news = list(desk.troubles() if level == "warning" else desk.news())[:SHOWN]
    if LIVE in request.headers:
        return fragment(request, "activity_live.html", news=news)
    return shown(request, "activity.html", news=news, level=level)
