"""A draft in the mailbox: created, given its files one after the other, sent or thrown away.

Follows the reference of ``message: send``, ``attachment: createUploadSession`` and "Attach large files to Outlook
messages": files below 3 MB by one POST each; larger ones in an upload session, in chunks below 4 MB, in order, without
a token, since the upload address is itself the right to write. Needs the permission Mail.ReadWrite.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import email.utils
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from relay.deliver.graph.content import Attachment
from relay.deliver.graph.contract import Answer, Http, Lost
from relay.deliver.graph.convert import Converted, in_thread, to_json
from relay.errors import RelayError

POST_LIMIT = 2_999_000
"""Octets up to which a file goes by one POST: with base64 and what describes it, the request stays within 4,000,000."""
SESSION_SURE = 3 * 1024 * 1024
"""Octets from which an upload session is certainly the way ("file size is between 3 MB and 150 MB")."""
CHUNK = 3_276_800
"""Octets of one PUT; each must stay below 4 MB."""
SESSIONS = 3
"""Upload sessions tried for one file when they expire or are lost."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between the tries of one request; progress starts the count anew."""
RETRY_AFTER_LIMIT = 300.0
"""Longest Retry-After that is waited for: the window of the upload bandwidth (facts 6.6). Beyond it the try ends."""
DISCARD_TIME = 10.0
"""Seconds that clearing away may take."""

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_DONE = -1


class GivenUp(Exception):
    """A step that ended without success: Graph's ``answer``, or that none came."""

    def __init__(self, step: str, answer: Answer | None, lost: Lost | None) -> None:
        super().__init__(step)
        self.step = step
        self.answer = answer
        self.lost = lost


def user_path(mailbox: str) -> str:
    """``/users/{mailbox}``, safe in an address."""
    return f"/users/{urllib.parse.quote(mailbox, safe='@')}"


def file_json(attachment: Attachment, data: bytes) -> bytes:
    """A ``fileAttachment``: what describes it, then the octets in base64, without a third copy of them."""
    described: dict[str, Any] = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": attachment.name,
        "contentType": attachment.content_type,
        "isInline": attachment.inline,
    }
    if attachment.content_id:
        described["contentId"] = attachment.content_id
    if attachment.location:
        described["contentLocation"] = attachment.location
    head = to_json(described)[:-1] + b',"contentBytes":"'
    return b"".join((head, binascii.b2a_base64(data, newline=False), b'"}'))


def session_json(attachment: Attachment) -> dict[str, Any]:
    """The parameters of ``createUploadSession``."""
    item: dict[str, Any] = {
        "attachmentType": "file",
        "name": attachment.name,
        "size": attachment.size,
        "contentType": attachment.content_type,
        "isInline": attachment.inline,
    }
    if attachment.content_id:
        item["contentId"] = attachment.content_id
    return {"AttachmentItem": item}


async def pause(seconds: float) -> None:
    """Wait; tests replace it."""
    await asyncio.sleep(seconds)


class Draft:
    """One draft; `create` and `attach` raise `GivenUp` when their step fails for good."""

    def __init__(self, http: Http, mailbox: str) -> None:
        self._http = http
        self._messages = f"{user_path(mailbox)}/messages"
        self._path = ""
        self._unanswered = ""  # Message-ID of a draft that may have been made, without its id
        self._session = ""  # the upload address of an open session
        self._files = 0
        self._clearing: asyncio.Task[None] | None = None

    async def create(self, message: Mapping[str, Any]) -> None:
        """Store the message without its files."""
        body = to_json(message)
        self._unanswered = str(message.get("internetMessageId", ""))
        answer = await self._once("draft", "POST", self._messages, body=body, content_type="application/json")
        identity = answer.content.get("id")
        if answer.status != 201 or not isinstance(identity, str) or not identity:
            self._unanswered = ""
            raise GivenUp("draft", answer, None)
        self._path = self._path_of(identity)

    def _path_of(self, identity: str) -> str:
        return f"{self._messages}/{urllib.parse.quote(identity, safe='')}"

    async def attach(self, converted: Converted, attachment: Attachment) -> None:
        """Add one file. Microsoft's "3 MB" is not exact: what is near to it and refused one way goes the other."""
        first, other = self._post, self._upload
        if attachment.size > POST_LIMIT:
            first, other = self._upload, self._post
        try:
            await first(converted, attachment)
        except GivenUp as ended:
            if not _other_way(ended, attachment.size):
                raise
            await other(converted, attachment)
        self._files += 1

    async def send(self) -> Answer:
        """Submit it; any answer but 202 means that it was not sent. Raises Lost when none came."""
        return await self._http.call("POST", f"{self._path}/send")

    async def look(self) -> bool | None:
        """Whether the draft is still there as a draft; False: it has left; None: nobody can say."""
        try:
            answer = await self._http.call("GET", f"{self._path}?$select=id,isDraft")
        except Lost:
            return None
        if answer.status == 200:
            draft = answer.content.get("isDraft")
            return draft if isinstance(draft, bool) else None
        return False if _left(answer) else None

    async def remove(self) -> bool | None:
        """Delete the draft: True when it was there, False when it had left; None: nobody can say."""
        try:
            answer = await self._http.call("DELETE", self._path)
        except Lost:
            return None
        return True if answer.status in (200, 204) else False if _left(answer) else None

    async def discard(self) -> None:
        """Cancel the open session and delete the draft: as well as can be, within `DISCARD_TIME`; raises nothing."""
        self._clearing = asyncio.ensure_future(self._clear())
        await asyncio.shield(self._clearing)

    async def _clear(self) -> None:
        with contextlib.suppress(Lost, RelayError, TimeoutError):
            async with asyncio.timeout(DISCARD_TIME):
                await self._close_session()
                if not self._path and self._unanswered:
                    await self._find()
                if self._path:
                    await self.remove()

    async def _find(self) -> None:
        """The draft whose id never arrived: the one with our Message-ID and without a file."""
        wanted = self._unanswered.replace("'", "''")
        query = urllib.parse.quote(f"internetMessageId eq '{wanted}'", safe="")
        answer = await self._http.call(
            "GET", f"{self._messages}?$filter={query}&$select=id,isDraft,hasAttachments"
        )
        found = answer.content.get("value")
        for item in found if isinstance(found, list) else []:
            if isinstance(item, dict) and item.get("isDraft") is True and item.get("hasAttachments") is False:
                self._path = self._path_of(str(item.get("id")))
                return

    async def _close_session(self) -> None:
        session, self._session = self._session, ""
        if session:
            with contextlib.suppress(Lost):
                await self._http.call("DELETE", session, authorized=False)

    async def _once(self, step: str, method: str, target: str, **given: Any) -> Answer:
        """One exchange of a step before the message is sent: a break there leaves nothing uncertain."""
        try:
            return await self._http.call(method, target, **given)
        except Lost as lost:
            raise GivenUp(step, None, _harmless(lost)) from lost

    async def _post(self, converted: Converted, attachment: Attachment) -> None:
        """One POST; tried again when the service is busy, unless the file has arrived all the same."""
        data = await converted.read(attachment, 0, attachment.size)
        body = await in_thread(lambda: file_json(attachment, data))
        tries = _Tries("attachment")
        while True:
            try:
                answer = await self._http.call(
                    "POST", f"{self._path}/attachments", body=body, content_type="application/json"
                )
            except Lost as lost:
                await tries.failed(None, lost)
            else:
                if answer.status == 201:
                    return
                await tries.failed(answer, None)
            if await self._arrived("attachment"):
                return

    async def _arrived(self, step: str) -> bool:
        """Whether the file at hand is in the draft: its answer may have been lost."""
        answer = await self._once(step, "GET", f"{self._path}/attachments?$select=id&$top=250")
        files = answer.content.get("value")
        if answer.status != 200 or not isinstance(files, list):
            raise GivenUp(step, answer, None)
        return len(files) > self._files

    async def _upload(self, converted: Converted, attachment: Attachment) -> None:
        for _ in range(SESSIONS):
            self._session = await self._open_session(attachment)
            if await self._fill(converted, attachment) or await self._arrived("upload"):
                self._session = ""
                return
        raise GivenUp(
            "upload", None, Lost("The upload session ended too early.", complete=False, code="session-lost")
        )

    async def _open_session(self, attachment: Attachment) -> str:
        """The upload address of a new session."""
        tries = _Tries("session")
        body = to_json(session_json(attachment))
        target = f"{self._path}/attachments/createUploadSession"
        while True:
            try:
                answer = await self._http.call("POST", target, body=body, content_type="application/json")
            except Lost as lost:
                await tries.failed(None, lost)
                continue
            if answer.status in (200, 201):
                return _upload_address(answer)
            await tries.failed(answer, None)

    async def _fill(self, converted: Converted, attachment: Attachment) -> bool:
        """Send the file's chunks: True once Graph says that the file is there; False when the session is gone."""
        offset, tries = 0, _Tries("upload")
        while offset < attachment.size:
            data = await converted.read(attachment, offset, CHUNK)
            reached = await self._put(data, offset, attachment.size, tries)
            if reached == _DONE:
                return True
            if reached is None:
                return False
            if reached > offset:
                tries.renew()
            else:
                tries.idle()
            offset = reached
        return False

    async def _put(self, data: bytes, offset: int, size: int, tries: _Tries) -> int | None:
        """One chunk: where to go on, `_DONE`, or None when the session is gone."""
        stretch = {"Content-Range": f"bytes {offset}-{offset + len(data) - 1}/{size}"}
        try:
            answer = await self._http.call(
                "PUT", self._session, body=data, content_type="application/octet-stream", headers=stretch,
                authorized=False,
            )  # fmt: skip
        except Lost as lost:
            await tries.failed(None, lost)
            return await self._expected(tries)
        if answer.status == 201:
            return _DONE
        if answer.status in (200, 202):
            reached = _next_range(answer)
            return offset + len(data) if reached is None else reached
        if answer.status in _GONE:
            return None
        await tries.failed(answer, None, also=416)
        return await self._expected(tries)

    async def _expected(self, tries: _Tries) -> int | None:
        """What the session waits for, asked after a break; None when it is gone."""
        while True:
            try:
                answer = await self._http.call("GET", self._session, authorized=False)
            except Lost as lost:
                await tries.failed(None, lost)
                continue
            if answer.status == 200:
                return _next_range(answer)
            if answer.status in _GONE:
                return None
            await tries.failed(answer, None)


class _Tries:
    """Patience with one step: bounded tries, each after a pause, and Retry-After obeyed."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._count = 0
        self._idle = 0

    def renew(self) -> None:
        """There was progress."""
        self._count = self._idle = 0

    def idle(self) -> None:
        """An answer that says yes and changes nothing must not go on for ever."""
        self._idle += 1
        if self._idle > len(PAUSES):
            lost = Lost("The upload makes no progress.", complete=False, code="session-lost")
            raise GivenUp(self._step, None, lost)

    async def failed(self, answer: Answer | None, lost: Lost | None, *, also: int = 0) -> None:
        """Wait before the next try. Raises GivenUp when trying again is no use, or has been done enough."""
        hopeless = answer is not None and answer.status not in _BUSY and answer.status != also
        wait = retry_after(answer) if answer is not None else None
        if hopeless or self._count >= len(PAUSES) or (wait or 0) > RETRY_AFTER_LIMIT:
            raise GivenUp(self._step, answer, _harmless(lost) if lost else None)
        await pause(PAUSES[self._count] if wait is None else wait)
        self._count += 1


def retry_after(answer: Answer) -> float | None:
    """Seconds that Retry-After asks for (a number, or a date); None without a usable one."""
    value = next((text for name, text in answer.headers.items() if name.lower() == "retry-after"), "").strip()
    if value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _other_way(ended: GivenUp, size: int) -> bool:
    """Whether a file of that size may go the other way: it is too large for a POST, or too small for a session."""
    if ended.answer is None:
        return False
    if ended.step == "session":
        return size < SESSION_SURE and ended.answer.status in (400, 413)
    return ended.step == "attachment" and size <= POST_LIMIT and ended.answer.status == 413


def _harmless(lost: Lost) -> Lost:
    """Before ``send`` nothing was submitted, however much of the request had been written."""
    return Lost(lost.reason, complete=False, code=lost.code)


def _left(answer: Answer) -> bool:
    """The item is no longer there (and not: the mailbox, or the address)."""
    return answer.status == 404 and answer.code == "ErrorItemNotFound"


def _upload_address(answer: Answer) -> str:
    """The session's address: whole, and over TLS."""
    address = answer.content.get("uploadUrl")
    if isinstance(address, str) and address.startswith("https://"):
        return address
    lost = Lost("Graph named no usable upload address.", complete=False, code="malformed-reply")
    raise GivenUp("session", None, lost)


def _next_range(answer: Answer) -> int | None:
    """The first octet of ``nextExpectedRanges``: ``["3276800-"]`` or ``["3276800-9999999"]``; None when none is named."""
    for name in ("nextExpectedRanges", "NextExpectedRanges"):
        ranges = answer.content.get(name)
        if isinstance(ranges, list) and ranges:
            start = str(ranges[0]).partition("-")[0]
            if start.isdigit():
                return int(start)
    return None
