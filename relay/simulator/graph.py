"""Microsoft Graph's part: sendMail, drafts, attachments, upload sessions, and reading the app's own registration.

Follows the reference pages of sendMail, message: send, attachment: createUploadSession and application: get.
"""

from __future__ import annotations

import datetime
import json
import re
import urllib.parse
from typing import Any

from aiohttp import web

from relay.simulator import graph_errors as refusal
from relay.simulator import graph_schema
from relay.simulator.graph_gate import Gate
from relay.simulator.graph_mail import Mail, from_json, from_mime
from relay.simulator.graph_store import Draft, GraphStore
from relay.simulator.services import Services
from relay.simulator.store import Incoming

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_APPLICATION = re.compile(r"applications\(appId='([^']*)'\)")
_BY_MESSAGE_ID = re.compile(r"internetMessageId eq '((?:[^']|'')*)'")
_MESSAGES = "/v1.0/users/{user}/messages"
CHUNK_BOUND = 4 * 1024 * 1024  # octets; a chunk stays below


class Graph:
    """The Graph service of the tenant; ``url`` is set once the port is known."""

    def __init__(self, services: Services, store: GraphStore) -> None:
        self._services = services
        self._state = services.state
        self._drafts = store
        self.gate = Gate(services)
        self.url = ""

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self.gate.middleware], client_max_size=0)
        app.router.add_post("/v1.0/users/{user}/sendMail", self._send_mail)
        app.router.add_post(_MESSAGES, self._draft_create)
        app.router.add_get(_MESSAGES, self._draft_list)
        app.router.add_get(_MESSAGES + "/{id}", self._draft_get)
        app.router.add_delete(_MESSAGES + "/{id}", self._draft_delete)
        app.router.add_post(_MESSAGES + "/{id}/send", self._draft_send)
        app.router.add_post(_MESSAGES + "/{id}/attachments", self._attachment_create)
        app.router.add_get(_MESSAGES + "/{id}/attachments", self._attachment_list)
        app.router.add_post(_MESSAGES + "/{id}/attachments/createUploadSession", self._upload_create)
        app.router.add_get("/v1.0/{resource:applications.*}", self._application)
        app.router.add_put("/upload/{token}", self._upload_put)
        app.router.add_get("/upload/{token}", self._upload_get)
        app.router.add_delete("/upload/{token}", self._upload_delete)
        app.router.add_route("*", "/v1.0/me/{rest:.*}", self._me)
        return app

    async def _me(self, request: web.Request) -> web.Response:
        self.gate.claims(request)
        raise refusal.bad_request("/me request is only valid with delegated authentication flow.")

    async def _send_mail(self, request: web.Request) -> web.Response:
        mailbox = self.gate.admit(request, "Mail.Send")
        content = await self.gate.body(request)
        if request.content_type == "text/plain":
            self._submit(mailbox, self._read_mime(mailbox, content), {"saveToSentItems": "true"})
            return web.Response(status=202)
        body = _read_json(request, content)
        graph_schema.check_send_request(body, self._state.limits.graph_headers)
        draft = self._drafts.draft_add(mailbox, body["message"])
        try:
            save = "false" if body.get("saveToSentItems") is False else "true"
            self._submit(mailbox, self._mail(draft), {"saveToSentItems": save})
        finally:
            self._drafts.draft_remove(draft)
        return web.Response(status=202)

    def _read_mime(self, mailbox: str, content: bytes) -> Mail:
        known = self._drafts.known_headers.get(mailbox, set())
        return from_mime(content, mailbox, self._state.display_name(mailbox), known)

    def _mail(self, draft: Draft) -> Mail:
        """The draft as a message; its custom headers become known to the mailbox."""
        if draft.mime is not None:
            return draft.mime
        known = self._drafts.known_headers.setdefault(draft.mailbox, set())
        known.update(item["name"].lower() for item in draft.message.get("internetMessageHeaders", []))
        name = self._state.display_name(draft.mailbox)
        return from_json(draft.message, draft.mailbox, name, draft.attachments)

    def _submit(self, mailbox: str, mail: Mail, parameters: dict[str, str]) -> None:
        """Take the message over, or raise GraphError."""
        self._judge(mailbox, mail)
        incoming = self._services.store.incoming()
        try:
            self._write(incoming, mail)
            if not self._services.ledger.recipients_add(mailbox, len(mail.recipients)):
                raise refusal.quota_exceeded()
            self._services.store.accept(
                incoming,
                mailbox=mailbox,
                mail_from=mailbox,
                recipients=mail.recipients,
                transport="graph",
                header_from=mailbox,
                subject=mail.subject,
                message_id=mail.message_id,
                mail_params=parameters,
                has_bcc=mail.has_bcc,
            )
        finally:
            incoming.discard()

    def _judge(self, mailbox: str, mail: Mail) -> None:
        limits = self._state.limits
        if any(address and address.lower() != mailbox for address in mail.senders):
            raise refusal.send_as_denied()
        if not mail.recipients:
            raise refusal.invalid_recipients("No recipients are specified. At least one is needed.")
        if limits.recipients_per_message and len(mail.recipients) > limits.recipients_per_message:
            raise refusal.invalid_recipients("The message has too many recipients.")
        if mailbox in self._state.mailbox_full:
            raise refusal.mailbox_full()
        if self._services.ledger.message_begin(mailbox, limits.graph_messages_per_minute) is None:
            raise refusal.throttled("The mailbox is over its submission rate.", 60)

    def _write(self, incoming: Incoming, mail: Mail) -> None:
        bound = self._state.limits.message_size
        for piece in mail.pieces():
            incoming.write(piece)
            if bound and incoming.size > bound:
                raise refusal.message_too_large()

    async def _draft_create(self, request: web.Request) -> web.Response:
        mailbox = self.gate.admit(request, "Mail.ReadWrite")
        content = await self.gate.body(request)
        if request.content_type == "text/plain":
            draft = self._drafts.draft_add(mailbox, {}, self._read_mime(mailbox, content))
        else:
            message = _read_json(request, content)
            graph_schema.check_message(message, self._state.limits.graph_headers)
            draft = self._drafts.draft_add(mailbox, message)
        return web.json_response(draft.to_json(self._state.user_id(mailbox)), status=201)

    async def _draft_list(self, request: web.Request) -> web.Response:
        """The drafts of the mailbox; the one filter that is known compares the Message-ID."""
        mailbox = self.gate.admit(request, "Mail.ReadWrite")
        asked = _BY_MESSAGE_ID.fullmatch(request.query.get("$filter", ""))
        if "$filter" in request.query and asked is None:
            raise refusal.bad_request("Invalid filter clause.")
        wanted = asked[1].replace("''", "'") if asked else None
        user = self._state.user_id(mailbox)
        shown = [draft.to_json(user) for draft in self._drafts.drafts.values() if draft.mailbox == mailbox]
        found = [item for item in shown if wanted is None or item.get("internetMessageId") == wanted]
        return web.json_response({"value": found})

    def _draft(self, request: web.Request, permission: str) -> Draft:
        mailbox = self.gate.admit(request, permission)
        return self._drafts.draft_find(mailbox, request.match_info["id"])

    async def _draft_get(self, request: web.Request) -> web.Response:
        draft = self._draft(request, "Mail.ReadWrite")
        return web.json_response(draft.to_json(self._state.user_id(draft.mailbox)))

    async def _draft_delete(self, request: web.Request) -> web.Response:
        self._drafts.draft_remove(self._draft(request, "Mail.ReadWrite"))
        return web.Response(status=204)

    async def _draft_send(self, request: web.Request) -> web.Response:
        draft = self._draft(request, "Mail.Send")
        self._submit(draft.mailbox, self._mail(draft), {"saveToSentItems": "true"})
        self._drafts.draft_remove(draft)
        return web.Response(status=202)

    async def _attachment_create(self, request: web.Request) -> web.Response:
        draft = self._draft(request, "Mail.ReadWrite")
        content = _read_json(request, await self.gate.body(request))
        graph_schema.check_attachment("attachment", content)
        if len(content["contentBytes"]) * 3 // 4 >= self._state.limits.graph_attachment_size:
            raise refusal.request_too_large()
        self.gate.count_upload(draft.mailbox, len(content["contentBytes"]))
        attachment = self._drafts.attachment_add(draft, content)
        return web.json_response(attachment.to_json(), status=201)

    async def _attachment_list(self, request: web.Request) -> web.Response:
        """What is attached so far; ``$select`` and ``$top`` are taken and not needed."""
        draft = self._draft(request, "Mail.ReadWrite")
        return web.json_response({"value": [attachment.to_json() for attachment in draft.attachments]})

    async def _upload_create(self, request: web.Request) -> web.Response:
        draft = self._draft(request, "Mail.ReadWrite")
        content = _read_json(request, await self.gate.body(request))
        item: dict[str, Any] = content.get("AttachmentItem") or content.get("attachmentItem") or {}
        graph_schema.check_attachment_item("AttachmentItem", item)
        limits = self._state.limits
        if item["size"] < limits.graph_attachment_size:
            raise refusal.attachment_too_small()
        if limits.graph_upload_size and item["size"] > limits.graph_upload_size:
            raise refusal.attachment_too_large()
        upload = self._drafts.upload_add(draft, item, self._state.clock())
        return web.json_response(upload.to_json(f"{self.url}/upload/{upload.token}"), status=201)

    async def _upload_put(self, request: web.Request) -> web.Response:
        """A chunk, in its order and without a token: the address itself is the right to write."""
        if "Authorization" in request.headers:
            raise refusal.bad_token("Upload addresses are pre-authenticated: send no Authorization header.")
        upload = self._drafts.upload_find(request.match_info["token"], self._state.clock())
        stated = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if stated is None:
            raise refusal.bad_request("Content-Range: bytes first-last/size is needed.")
        first, last, total = (int(number) for number in stated.groups())
        if last - first + 1 >= CHUNK_BOUND:
            raise refusal.request_too_large()
        if first != upload.received or not first <= last < total or total != upload.attachment.size:
            raise refusal.bad_range(
                f"The next range expected is {upload.received}- of {upload.attachment.size}."
            )
        data = await self.gate.body(request)
        if len(data) != last - first + 1 or upload.received != first:
            raise refusal.bad_range("The length of the chunk is not that of its range.")
        self.gate.count_upload(upload.draft.mailbox, len(data))
        if not self._drafts.upload_write(upload, data):
            return web.json_response(upload.to_json())
        user = self._state.user_id(upload.draft.mailbox)
        message = f"{self.url}/v1.0/users/{user}/messages/{upload.draft.id}"
        return web.Response(status=201, headers={"Location": f"{message}/attachments/{upload.attachment.id}"})

    async def _upload_get(self, request: web.Request) -> web.Response:
        upload = self._drafts.upload_find(request.match_info["token"], self._state.clock())
        return web.json_response(upload.to_json())

    async def _upload_delete(self, request: web.Request) -> web.Response:
        self._drafts.upload_cancel(self._drafts.upload_find(request.match_info["token"], self._state.clock()))
        return web.Response(status=204)

    async def _application(self, request: web.Request) -> web.Response:
        """``applications(appId='..')``: when the secret ends, for who may read it."""
        roles = set(self.gate.claims(request).get("roles", []))
        asked = _APPLICATION.fullmatch(urllib.parse.unquote(request.match_info["resource"]))
        if asked is None:
            raise refusal.no_such_path("applications")
        if not roles & {"Application.Read.All", "Application.ReadWrite.OwnedBy"}:
            raise refusal.directory_denied()
        if asked[1].lower() != self._state.client_id.lower():
            raise refusal.GraphError(
                404, "Request_ResourceNotFound", f"Resource '{asked[1]}' does not exist."
            )
        return web.json_response(self._registration())

    def _registration(self) -> dict[str, Any]:
        state = self._state
        ends = datetime.datetime.fromtimestamp(state.secret_expires, datetime.UTC)
        secret = {
            "customKeyIdentifier": None,
            "displayName": "relay",
            "endDateTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hint": state.client_secret[:3],
            "keyId": state.secret_key_id,
            "secretText": None,
            "startDateTime": None,
        }
        return {
            "@odata.context": f"{self.url}/v1.0/$metadata#applications/$entity",
            "appId": state.client_id,
            "displayName": "relay (simulated)",
            "passwordCredentials": [secret],
            "keyCredentials": [],
        }


def _read_json(request: web.Request, content: bytes) -> dict[str, Any]:
    """The request as an object. Raises GraphError."""
    if not content:
        raise refusal.bad_request("Empty Payload. JSON content expected.")
    if request.content_type != "application/json":
        raise refusal.bad_request(f"The content type {request.content_type} is not expected here.")
    try:
        read = json.loads(content)
    except ValueError as error:
        raise refusal.bad_request("Unable to read JSON request payload.") from error
    if not isinstance(read, dict):
        raise refusal.bad_request("Unable to read JSON request payload.")
    return read
