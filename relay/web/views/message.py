"""One message: what it is, what happened to it, its header, and its octets."""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from relay.errors import SpoolError
from relay.spool.contract import Filter, MessageView
from relay.web.page import page_of, shown, trouble

HEADER = 64 * 1024
"""Octets of a header block that are shown; the download has all of it."""
_ID = re.compile(r"[0-9A-Za-z]{13}")


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/queue/{id}", message)
    router.add_get("/queue/{id}/message.eml", download)


async def _find(request: web.Request) -> MessageView | None:
    name = request.match_info["id"].upper()
    if not _ID.fullmatch(name):
        return None
    found = await page_of(request).desk.spool.find(Filter(ids=(name,)), limit=1)
    return found[0] if found else None


async def message(request: web.Request) -> web.Response:
    """Everything about one message."""
    spool = page_of(request).desk.spool
    view = await _find(request)
    if view is None:
        return trouble(
            request, 404, "There is no such message.", "It may be finished and forgotten (spool.history)."
        )
    traces = await spool.trace(view.id, limit=1)
    header, cut = "", False
    try:
        octets = (await spool.content(view.id)).header
        header, cut = (
            octets[:HEADER].decode("utf-8", "backslashreplace").replace("\r\n", "\n"),
            len(octets) > HEADER,
        )
    except SpoolError:
        pass  # finished: its content is gone, its trace is not
    return shown(
        request, "message.html", view=view, trace=traces[0] if traces else None, header=header.strip("\n"), cut=cut,
        unfinished=view.state in ("queued", "active", "deferred", "held"),
    )  # fmt: skip


async def download(request: web.Request) -> web.StreamResponse:
    """The stored octets as a file. Its name comes from our own id, so no sender can choose one."""
    view = await _find(request)
    if view is None:
        return trouble(request, 404, "There is no such message.")
    content = await page_of(request).desk.spool.content(view.id)  # raises before anything is sent
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "message/rfc822",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{view.id}.eml"',
            hdrs.CONTENT_LENGTH: str(content.size),
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
    )
    await response.prepare(request)
    await response.write(content.header)
    async for chunk in content.body.chunks():
        await response.write(chunk)
    await response.write_eof()
    return response
