"""Drafts, their attachments and the upload sessions of Graph, with every file kept on disk."""

from __future__ import annotations

import base64
import datetime
import secrets
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.simulator import graph_errors as refusal
from relay.simulator.graph_mail import NESTED, Attachment, Mail, nested, new_message_id

SESSION_LIFE = 3600.0  # seconds an upload session stays open (unverified)


@dataclass
class Draft:
    """A message in the Drafts folder: JSON with attachments, or a MIME message as it was posted."""

    id: str
    mailbox: str
    message: dict[str, Any]
    mime: Mail | None = None
    attachments: list[Attachment] = field(default_factory=list)

    def to_json(self, user_id: str) -> dict[str, Any]:
        """The resource as Graph returns it."""
        shown = {key: value for key, value in self.message.items() if key != "attachments"}
        return {
            "@odata.context": f"$metadata#users('{user_id}')/messages/$entity",
            "id": self.id,
            "isDraft": True,
            "hasAttachments": bool(self.attachments),
            **(
                {"subject": self.mime.subject, "internetMessageId": self.mime.message_id} if self.mime else {}
            ),
            **shown,
        }

    def to_control(self, uploads: list[Upload]) -> dict[str, Any]:
        """What a test wants to know of a draft that is left over; ``uploads`` are its open sessions."""
        return {
            "id": self.id,
            "mailbox": self.mailbox,
            "subject": self.mime.subject if self.mime else self.message.get("subject"),
            "message_id": self.mime.message_id if self.mime else self.message.get("internetMessageId"),
            "attachments": [{"name": one.name, "size": one.size} for one in self.attachments],
            "uploads": [
                {
                    "name": upload.attachment.name,
                    "size": upload.attachment.size,
                    "received": upload.received,
                    "expires": upload.expires,
                }
                for upload in uploads
            ],
        }


@dataclass
class Upload:
    """An upload session of one file. ``expires`` in Unix time."""

    token: str
    draft: Draft
    attachment: Attachment
    expires: float
    received: int = 0

    def created_json(self, context: str, url: str) -> dict[str, Any]:
        """The session as Graph returns it at its creation."""
        return {
            "@odata.context": f"{context}#microsoft.graph.uploadSession",
            "uploadUrl": url,
            "expirationDateTime": self._expiration(),
            "nextExpectedRanges": ["0-"],
        }

    def progress_json(self, context: str) -> dict[str, Any]:
        """The session as the upload address returns it: no ``uploadUrl``, and only the start of what is missing."""
        return {
            "@odata.context": f"{context}#AttachmentSessions/$entity",
            "ExpirationDateTime": self._expiration(),
            "nextExpectedRanges": [str(self.received)],
        }

    def _expiration(self) -> str:
        moment = datetime.datetime.fromtimestamp(self.expires, datetime.UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class GraphStore:
    """All drafts and upload sessions. ``known_headers`` are the X- names each mailbox has stored."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "drafts"
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        self.drafts: dict[str, Draft] = {}
        self.uploads: dict[str, Upload] = {}
        self.known_headers: dict[str, set[str]] = {}

    def draft_add(self, mailbox: str, message: dict[str, Any], mime: Mail | None = None) -> Draft:
        """A new draft with a Message-ID; the attachments within the JSON move to disk."""
        if mime is None and not message.get("internetMessageId"):
            message = {**message, "internetMessageId": new_message_id()}
        identity = base64.urlsafe_b64encode(b"AAMk" + secrets.token_bytes(44)).decode()
        draft = Draft(identity, mailbox, message, mime)
        for attachment in message.get("attachments") or []:
            self.attachment_add(draft, attachment)
        self.drafts[identity] = draft
        return draft

    def draft_find(self, mailbox: str, identity: str) -> Draft:
        """The draft of this mailbox. Raises GraphError."""
        draft = self.drafts.get(identity)
        if draft is None or draft.mailbox != mailbox:
            raise refusal.not_found()
        return draft

    def draft_remove(self, draft: Draft) -> None:
        """Forget a draft with its files and upload sessions."""
        self.drafts.pop(draft.id, None)
        for upload in [upload for upload in self.uploads.values() if upload.draft is draft]:
            self.upload_cancel(upload)
        for attachment in draft.attachments:
            attachment.path.unlink(missing_ok=True)

    def attachment_add(self, draft: Draft, content: dict[str, Any]) -> Attachment:
        """Store a fileAttachment or itemAttachment that has passed the schema."""
        if "item" in content:
            data = nested(content["item"])
            content = {**content, "contentType": NESTED}
        else:
            data = base64.b64decode(content.get("contentBytes") or "")
        attachment = self._attachment(content, len(data))
        attachment.path.write_bytes(data)
        draft.attachments.append(attachment)
        return attachment

    def _attachment(self, content: dict[str, Any], size: int) -> Attachment:
        identity = uuid.uuid4().hex
        return Attachment(
            id=identity,
            name=content["name"],
            content_type=content.get("contentType") or "application/octet-stream",
            path=self._directory / identity,
            size=size,
            inline=bool(content.get("isInline")),
            content_id=content.get("contentId") or "",
        )

    def upload_add(self, draft: Draft, item: dict[str, Any], now: float) -> Upload:
        """Open an upload session for an attachmentItem that has passed the schema."""
        attachment = self._attachment(item, item["size"])
        attachment.path.touch()
        upload = Upload(secrets.token_urlsafe(32), draft, attachment, now + SESSION_LIFE)
        self.uploads[upload.token] = upload
        return upload

    def upload_find(self, token: str, now: float) -> Upload:
        """The session of this address. Raises GraphError when it is unknown or has expired."""
        upload = self.uploads.get(token)
        if upload is None or now >= upload.expires:
            raise refusal.session_over()
        return upload

    def upload_write(self, upload: Upload, data: bytes) -> bool:
        """Append a chunk; True when the file is complete and attached to its draft."""
        with upload.attachment.path.open("ab") as file:
            file.write(data)
        upload.received += len(data)
        if upload.received < upload.attachment.size:
            return False
        upload.draft.attachments.append(upload.attachment)
        del self.uploads[upload.token]
        return True

    def to_control(self) -> list[dict[str, Any]]:
        """Every draft that has neither been sent nor deleted, with its open upload sessions."""
        return [
            draft.to_control([upload for upload in self.uploads.values() if upload.draft is draft])
            for draft in self.drafts.values()
        ]

    def upload_cancel(self, upload: Upload) -> None:
        """Forget a session and what it received."""
        self.uploads.pop(upload.token, None)
        upload.attachment.path.unlink(missing_ok=True)
