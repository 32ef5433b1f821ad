"""Upload sessions for large attachments: "Attach large files to Outlook messages or events"."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from relay.simulator import graph_errors as refusal
from relay.simulator.graph_gate import Gate
from relay.simulator.graph_store import Draft, GraphStore, Upload
from relay.simulator.services import Services

CHUNK_BOUND = 4 * 1024 * 1024  # octets; a chunk stays below
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SESSIONS = "/api/v2.0/Users('{owner}')/Messages('{message}')/AttachmentSessions('{session}')"


class Uploads:
    """Opens sessions and takes their chunks, in order and without a token."""

    def __init__(self, services: Services, store: GraphStore, gate: Gate) -> None:
        self._state = services.state
        self._drafts = store
        self._gate = gate

    def add_routes(self, app: web.Application) -> None:
        """The addresses handed out by `address`."""
        self._gate.add_route(app, "PUT", _SESSIONS, self._put, "graph-chunk")
        self._gate.add_route(app, "GET", _SESSIONS, self._get, "graph-get")
        self._gate.add_route(app, "DELETE", _SESSIONS, self._delete, "graph-cancel")

    def create(self, draft: Draft, item: dict[str, Any]) -> Upload:
        """A session for an attachmentItem that has passed the schema. Raises GraphError for its size."""
        limits = self._state.limits
        if item["size"] < limits.graph_attachment_size:
            raise refusal.attachment_too_small()
        if limits.graph_upload_size and item["size"] > limits.graph_upload_size:
            raise refusal.attachment_too_large()
        return self._drafts.upload_add(draft, item, self._state.clock())

    def address(self, url: str, upload: Upload) -> str:
        """The opaque address of a session: whoever knows it may write."""
        path = _SESSIONS.format(
            owner=f"{self._state.user_id(upload.draft.mailbox)}@{self._state.tenant_id}",
            message=upload.draft.id,
            session=upload.attachment.id,
        )
        return f"{url}{path}?authtoken={upload.token}"

    def _upload(self, request: web.Request) -> Upload:
        return self._drafts.upload_find(request.query.get("authtoken", ""), self._state.clock())

    async def _put(self, request: web.Request) -> web.Response:
        if "Authorization" in request.headers:
            raise refusal.bad_token("Upload addresses are pre-authenticated: send no Authorization header.")
        upload = self._upload(request)
        first, size = _stated_range(request, upload)
        data = await self._gate.body(request, upload.draft.mailbox)
        if len(data) != size or upload.received != first:
            raise refusal.bad_range("The length of the chunk is not that of its range.")
        if not self._drafts.upload_write(upload, data):
            return web.json_response(upload.progress_json(_context(request)))
        self._check_size(upload)
        message = request.path.partition("/AttachmentSessions")[0]
        location = f"https://{request.host}{message}/Attachments('{upload.attachment.id}')"
        return web.Response(status=201, headers={"Location": location})

    def _check_size(self, upload: Upload) -> None:
        """A file that makes the draft too large shows only now that it is whole."""
        bound, draft = self._state.limits.graph_draft_size, upload.draft
        if bound and sum(attachment.size for attachment in draft.attachments) > bound:
            draft.attachments.remove(upload.attachment)
            self._drafts.upload_cancel(upload)
            raise refusal.message_too_large()

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._upload(request).progress_json(_context(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        self._drafts.upload_cancel(self._upload(request))
        return web.Response(status=204)


def _context(request: web.Request) -> str:
    return f"https://{request.host}/api/v2.0/$metadata"


def _stated_range(request: web.Request, upload: Upload) -> tuple[int, int]:
    """Where the chunk begins and how long it is, by its headers. Raises GraphError."""
    if request.content_length is None:
        raise refusal.length_required()
    if request.content_type != "application/octet-stream":
        raise refusal.unsupported_media(request.content_type)
    stated = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
    if stated is None:
        raise refusal.bad_request("Content-Range: bytes first-last/size is needed.")
    first, last, total = (int(number) for number in stated.groups())
    size = last - first + 1
    if max(size, request.content_length) >= CHUNK_BOUND:
        raise refusal.request_too_large()
    if first != upload.received or not first <= last < total or total != upload.attachment.size:
        raise refusal.bad_range(f"The next range expected is {upload.received}- of {upload.attachment.size}.")
    return first, size
