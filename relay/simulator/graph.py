"""Microsoft Graph's part of sending mail: sendMail, drafts and small attachments.

Follows the reference pages of user: sendMail, user: create message, message: send and message: add attachment.
Upload sessions are in `graph_uploads`, the app's own registration in `graph_directory`.
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from relay.simulator import csdl, graph_schema
from relay.simulator import graph_errors as refusal
from relay.simulator.graph_directory import Directory
from relay.simulator.graph_gate import Caller, Gate, Handler, read_json
from relay.simulator.graph_store import Draft, GraphStore
from relay.simulator.graph_submit import Submission
from relay.simulator.graph_uploads import Uploads
from relay.simulator.services import Services

_ONE = "/messages/{id}"
_MIME = "text/plain"
_BY_MESSAGE_ID = re.compile(r"internetMessageId eq '((?:[^']|'')*)'")


class Graph:
    """The Graph service of the tenant; ``url`` is set once the port is known."""

    def __init__(self, services: Services, store: GraphStore) -> None:
        self._services = services
        self._state = services.state
        self._drafts = store
        self.gate = Gate(services, store)
        self._submission = Submission(services, store)
        self._uploads = Uploads(services, store, self.gate)
        self._directory = Directory(services, self.gate)
        self.url = ""

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self.gate.middleware], client_max_size=0)
        self._add(app, "POST", "/sendMail", self._send_mail, "graph-send")
        self._add(app, "POST", "/messages", self._draft_create, "graph-draft")
        self._add(app, "GET", "/messages", self._draft_list, "graph-get")
        self._add(app, "GET", _ONE, self._draft_get, "graph-get")
        self._add(app, "GET", _ONE + "/attachments", self._attachment_list, "graph-get")
        self._add(app, "DELETE", _ONE, self._draft_delete, "graph-delete")
        self._add(app, "POST", _ONE + "/send", self._draft_send, "graph-draft-send")
        self._add(app, "POST", _ONE + "/attachments", self._attachment_create, "graph-attach")
        create = _ONE + "/attachments/createUploadSession"
        self._add(app, "POST", create, self._upload_create, "graph-session")
        self._uploads.add_routes(app)
        self._directory.add_routes(app)
        return app

    def _add(self, app: web.Application, method: str, path: str, handler: Handler, place: str) -> None:
        """The same call for a named user and for the one who is signed in."""
        for owner in ("/v1.0/users/{user}", "/v1.0/me"):
            self.gate.add_route(app, method, owner + path, handler, place)

    async def _send_mail(self, request: web.Request) -> web.Response:
        caller = self.gate.admit(request, "Mail.Send")
        try:
            content = await self.gate.body(request, caller.mailbox)
        except refusal.GraphError as error:
            return self._oversized(error)
        if request.content_type == _MIME:
            self._submission.submit(
                caller, self._submission.read_mime(caller.mailbox, content), saved=True
            )  # MIME leaves no place for saveToSentItems
            return web.Response(status=202)
        limit = self._state.limits.graph_headers
        message, saved = graph_schema.check_send_request(read_json(request, content), limit)
        draft = self._drafts.draft_add(caller.mailbox, message)
        try:
            self._submission.submit(caller, self._submission.mail(draft), saved=saved)
        finally:
            self._drafts.draft_remove(draft)
        return web.Response(status=202)

    def _oversized(self, error: refusal.GraphError) -> web.Response:
        """Graph has refused too large posts in two ways, and pretended to take them in a third: all were seen."""
        manner = self._state.graph_oversize
        if error.status == 413 and manner == "200":
            return web.Response(status=200)
        if error.status == 413 and manner == "400":
            raise refusal.message_too_large()
        raise error

    async def _draft_create(self, request: web.Request) -> web.Response:
        caller = self.gate.admit(request, "Mail.ReadWrite")
        content = await self.gate.body(request, caller.mailbox)
        if request.content_type == _MIME:
            mime = self._submission.read_mime(caller.mailbox, content)
            draft = self._drafts.draft_add(caller.mailbox, {}, mime)
        else:
            message = read_json(request, content)
            graph_schema.check_message(message, self._state.limits.graph_headers)
            draft = self._drafts.draft_add(caller.mailbox, message)
        return web.json_response(draft.to_json(self._state.user_id(caller.mailbox)), status=201)

    async def _draft_list(self, request: web.Request) -> web.Response:
        """The drafts of the mailbox; the one filter that is stood in for compares the Message-ID."""
        caller = self.gate.admit(request, "Mail.ReadWrite")
        asked = _BY_MESSAGE_ID.fullmatch(request.query.get("$filter", ""))
        if "$filter" in request.query and asked is None:
            raise refusal.bad_request("Invalid filter clause: the simulator knows internetMessageId eq '..'.")
        wanted = asked[1].replace("''", "'") if asked else None
        user = self._state.user_id(caller.mailbox)
        found = [one.to_json(user) for one in self._drafts.drafts.values() if one.mailbox == caller.mailbox]
        chosen = [one for one in found if wanted in (None, one.get("internetMessageId"))]
        return web.json_response({"value": [_selected(request, "message", one) for one in chosen]})

    def _draft(self, request: web.Request, permission: str) -> tuple[Caller, Draft]:
        caller = self.gate.admit(request, permission)
        return caller, self._drafts.draft_find(caller.mailbox, request.match_info["id"])

    async def _draft_get(self, request: web.Request) -> web.Response:
        _, draft = self._draft(request, "Mail.ReadWrite")
        shown = draft.to_json(self._state.user_id(draft.mailbox))
        return web.json_response(_selected(request, "message", shown))

    async def _draft_delete(self, request: web.Request) -> web.Response:
        self._drafts.draft_remove(self._draft(request, "Mail.ReadWrite")[1])
        return web.Response(status=204)

    async def _draft_send(self, request: web.Request) -> web.Response:
        if request.content_length is None:
            raise refusal.length_required()
        caller, draft = self._draft(request, "Mail.Send")
        self._submission.submit(caller, self._submission.mail(draft), saved=True)
        self._drafts.draft_remove(draft)
        return web.Response(status=202)

    async def _attachment_create(self, request: web.Request) -> web.Response:
        caller, draft = self._draft(request, "Mail.ReadWrite")
        _check_json_draft(draft)
        content = read_json(request, await self.gate.body(request, caller.mailbox))
        graph_schema.check_attachment("attachment", content)
        limit = self._state.limits.graph_attachment_size
        if limit and len(content.get("contentBytes") or "") * 3 // 4 >= limit:
            raise refusal.request_too_large()
        return web.json_response(self._drafts.attachment_add(draft, content).to_json(), status=201)

    async def _attachment_list(self, request: web.Request) -> web.Response:
        """What is attached so far."""
        _, draft = self._draft(request, "Mail.ReadWrite")
        found = [_selected(request, "fileAttachment", one.to_json()) for one in draft.attachments]
        return web.json_response({"value": found})

    async def _upload_create(self, request: web.Request) -> web.Response:
        caller, draft = self._draft(request, "Mail.ReadWrite")
        _check_json_draft(draft)
        content = read_json(request, await self.gate.body(request, caller.mailbox))
        upload = self._uploads.create(draft, graph_schema.check_upload_request(content))
        shown = upload.created_json(f"{self.url}/v1.0/$metadata", self._uploads.address(self.url, upload))
        return web.json_response(shown, status=201)


def _selected(request: web.Request, kind: str, shown: dict[str, Any]) -> dict[str, Any]:
    """What ``$select`` leaves; Outlook's items keep their id. Raises GraphError for a property that is none."""
    wanted = [name for name in request.query.get("$select", "").split(",") if name]
    for name in wanted:
        if name not in csdl.load().properties(kind):
            raise refusal.bad_request(
                f"Could not find a property named '{name}' on type 'microsoft.graph.{kind}'."
            )
    kept = {*wanted, "id"} if wanted else set(shown)
    return {key: value for key, value in shown.items() if key.startswith("@") or key in kept}


def _check_json_draft(draft: Draft) -> None:
    """What Exchange would make of a file added to a MIME draft is not stood in for; better said than guessed."""
    if draft.mime is not None:
        raise refusal.bad_request("The simulator adds attachments to drafts made from JSON only.")
