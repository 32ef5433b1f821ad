"""Mail that is too large for MIME, or must go to other people than its header says: sent as JSON.

What fits into one request goes by ``sendMail`` (files cost a third less there than within base64 MIME, and Mail.Send is
enough). The rest becomes a draft that gets its files one by one and is sent; that needs Mail.ReadWrite as well.
Nothing is submitted before ``send``: whatever breaks earlier is no uncertainty, and the draft is thrown away.

After a break at ``send`` the draft tells what happened: one that has left Drafts was sent; one that is still there
after a few seconds was not, and is deleted before anybody tries again (its deletion is the last proof). When neither
can be learnt the draft stays, and the attempt is uncertain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

from relay.deliver.graph import draft as drafts
from relay.deliver.graph.contract import Answer, Http, Lost, WriteDown
from relay.deliver.graph.convert import Converted, convert, to_json
from relay.deliver.graph.draft import Draft, GivenUp, file_json, retry_after, user_path
from relay.deliver.graph.structure import NoRoom, TooManyParts
from relay.deliver.parcel import Parcel
from relay.message import Outcome, Recipient, Reply, Result, Scope
from relay.settings import Upstream, UserLogin

DIRECT_LIMIT = 3_500_000
"""Octets of a request that goes by ``sendMail``; Graph takes about 4 MB (facts 6.2)."""
SETTLE = (1.0, 4.0)
"""Seconds after a broken ``send`` at which the draft is looked at."""
SEND_TRIES = 3
PROBE = 900.0
"""Seconds until a message held for the permission is tried again."""

_DENIED = frozenset({"ErrorAccessDenied", "AccessDenied", "Authorization_RequestDenied", ""})
_TOO_LARGE = frozenset({"ErrorMessageSizeExceeded", "RequestEntityTooLarge"})
_REMEDY = (
    "In the Entra admin center: App registrations, the app {app}, API permissions, Add a permission, Microsoft Graph,"
    " Application permissions, Mail.ReadWrite, Add permissions, then Grant admin consent; or assign the Exchange role:"
    " New-ManagementRoleAssignment -Role 'Application Mail.ReadWrite' -App {app}. Or let the app send over SMTP, which"
    " takes large mail without it: grant SMTP.SendAsApp and what relay setup --print-powershell classic shows. Then"
    " reload; changes take up to 2 hours."
)
_USERS_REMEDY = (
    "A user's sign-in is asked for Mail.Send only. Let it allow SMTP.Send as well (relay login), since SMTP takes large mail;"
    " or give the app a credential of its own and the application permission Mail.ReadWrite."
)


@dataclass(frozen=True, slots=True)
class LargeResult:
    """What came of it. Without an ``outcome``, ``answer`` or ``lost`` is for the table to judge."""

    outcome: Outcome | None
    answer: Answer | None
    lost: Lost | None
    step: str
    """Where it ended: convert, sendMail, draft, attachment, session, upload or send."""
    notes: tuple[str, ...] = ()
    """What the JSON does not keep exactly, for the trace."""


async def send_large(
    http: Http,
    mailbox: str,
    parcel: Parcel,
    recipients: Sequence[Recipient],
    begin: WriteDown,
    settings: Upstream,
) -> LargeResult:
    """Send the message as JSON to exactly these recipients; ``begin`` is awaited once, before it is submitted.

    Raises what ``begin`` and reading the stored body raise; draft, session and temporary file are gone then.
    """
    try:
        async with convert(parcel, mailbox, recipients) as converted:
            return await _Sending(http, mailbox, converted, begin, settings).run()
    except TooManyParts:
        return LargeResult(_too_many_parts(), None, None, "convert")
    except NoRoom as error:
        return LargeResult(_no_room(str(error)), None, None, "convert")


class _Sending:
    """One message on its way, one method per step."""

    def __init__(
        self, http: Http, mailbox: str, converted: Converted, begin: WriteDown, settings: Upstream
    ) -> None:
        self._http = http
        self._mailbox = mailbox
        self._converted = converted
        self._begin = begin
        self._settings = settings
        self._begun = False

    async def run(self) -> LargeResult:
        """With the x- fields, and without them where Graph takes exception to one: no mail fails for those."""
        result = await self._attempt()
        refused = result.answer is not None and result.answer.code.startswith("InvalidInternetMessageHeader")
        if refused and self._converted.message.pop("internetMessageHeaders", None):
            result = await self._attempt()
            result = replace(result, notes=(*result.notes, "Graph refused the x- fields: sent without them"))
        return result

    async def _attempt(self) -> LargeResult:
        """By one request where it fits, else by a draft."""
        if _weight(self._converted) <= DIRECT_LIMIT:
            result = await self._at_once()
            if result is not None:
                return result
        draft = Draft(self._http, self._mailbox)
        try:
            await draft.create(self._converted.message)
            for attachment in self._converted.attachments:
                await draft.attach(self._converted, attachment)
            await self._write_down()
        except GivenUp as ended:
            await draft.discard()
            return self._ended(ended.step, ended.answer, ended.lost)
        except BaseException:
            await draft.discard()
            raise
        return await self._send(draft)

    async def _write_down(self) -> None:
        """The attempt is on disk before anything is submitted."""
        if not self._begun:
            self._begun = True
            await self._begin()

    async def _at_once(self) -> LargeResult | None:
        """``sendMail`` with everything in one request; None when Graph finds it too large for that."""
        body = await self._whole()
        await self._write_down()
        target = f"{user_path(self._mailbox)}/sendMail"
        try:
            answer = await self._http.call("POST", target, body=body, content_type="application/json")
        except Lost as lost:
            return self._ended("sendMail", None, lost)
        if answer.status in (200, 413) or answer.code in _TOO_LARGE:
            return None  # 200 has been seen for mail that was too large, and was not sent (facts 6.2)
        return self._sent(answer, "sendMail") or self._ended("sendMail", answer, None)

    async def _whole(self) -> bytes:
        """The parameters of ``sendMail``, files included."""
        files = []
        for attachment in self._converted.attachments:
            data = await self._converted.read(attachment, 0, attachment.size)
            files.append(file_json(attachment, data))
        head = to_json({"message": self._converted.message})[:-2]
        return b"".join((head, b',"attachments":[', b",".join(files), b']},"saveToSentItems":true}'))

    async def _send(self, draft: Draft) -> LargeResult:
        """Submit the draft. Cancelled here nothing is cleared away: it may be on its way."""
        for number in range(1, SEND_TRIES + 1):
            try:
                answer = await draft.send()
            except Lost as lost:
                return await self._broken(draft, lost)
            sent = self._sent(answer, "send")
            if sent is not None:
                return sent
            wait = retry_after(answer) or drafts.PAUSES[number - 1]
            if answer.status not in (429, 503) or number == SEND_TRIES or wait > drafts.RETRY_AFTER_LIMIT:
                break
            await self._rest(draft, wait)
        return await self._refused(draft, answer)

    async def _rest(self, draft: Draft, seconds: float) -> None:
        """Before the next try; the draft has been refused, so it is cleared away when this is cut short."""
        try:
            await drafts.pause(seconds)
        except BaseException:
            await draft.discard()
            raise

    async def _refused(self, draft: Draft, answer: Answer) -> LargeResult:
        """An answer that is no success; one of a gateway says little about what was done behind it."""
        if answer.status not in (408, 500, 502, 504):
            await draft.discard()
        elif await self._still_there(draft) is False:
            return self._found_sent(answer)
        return self._ended("send", answer, None)

    async def _broken(self, draft: Draft, lost: Lost) -> LargeResult:
        """No answer to ``send``: ask the draft."""
        if not lost.complete:
            await draft.discard()
            return self._ended("send", None, lost)
        there = await self._still_there(draft)
        if there is False:
            return self._found_sent(None)
        if there:
            lost = Lost(lost.reason, complete=False, code=lost.code)
        return self._ended("send", None, lost)

    async def _still_there(self, draft: Draft) -> bool | None:
        """True: it was still there, was not sent, and is deleted now; False: it was sent; None: not known, untouched."""
        there = None
        for seconds in SETTLE:
            await drafts.pause(seconds)
            there = await draft.look()
            if there is False:
                return False
        return await draft.remove() if there else None

    def _sent(self, answer: Answer, step: str) -> LargeResult | None:
        """202 alone is success (facts 0)."""
        if answer.status != 202:
            return None
        outcome = Outcome(Result.SENT, reply=Reply(202, text="Accepted"))
        return LargeResult(outcome, answer, None, step, self._converted.notes)

    def _found_sent(self, answer: Answer | None) -> LargeResult:
        reason = (
            "The answer to the last request was lost; the draft has left the Drafts folder, so it was sent."
        )
        outcome = Outcome(Result.SENT, reason=reason)
        return LargeResult(outcome, answer, None, "send", (*self._converted.notes, reason))

    def _ended(self, step: str, answer: Answer | None, lost: Lost | None) -> LargeResult:
        outcome = None
        if step == "draft" and answer is not None and answer.status == 403 and answer.code in _DENIED:
            outcome = _permission_missing(answer, self._mailbox, self._settings)
        return LargeResult(outcome, answer, lost, step, self._converted.notes)


def _weight(converted: Converted) -> int:
    """About how many octets one request with everything has."""
    files = sum((file.size + 2) // 3 * 4 + 1200 for file in converted.attachments)
    return files if files > DIRECT_LIMIT else files + len(to_json(converted.message))


def _permission_missing(answer: Answer, mailbox: str, settings: Upstream) -> Outcome:
    """Kept until the permission is there; no mail of usual size waits for it."""
    user = isinstance(settings.credential, UserLogin)
    return Outcome(
        Result.HELD,
        Scope.MESSAGE,
        Reply(answer.status, text=f"{answer.code}: {answer.text}".strip(": ")),
        f"The message is too large for one request to Graph, and the app may not write drafts in {mailbox}, which"
        " larger mail needs: the permission Mail.ReadWrite is missing, or does not reach this mailbox.",
        _USERS_REMEDY if user else _REMEDY.format(app=settings.client_id),
        "mail-readwrite-missing",
        wait=PROBE,
        counts=False,
    )


def _too_many_parts() -> Outcome:
    text = "The message has more parts than Exchange takes (250)."
    return Outcome(
        Result.FAILED,
        Scope.MESSAGE,
        Reply(554, "5.6.0", text),
        text,
        "Send fewer files in one message, or pack them into one archive.",
        "too-many-parts",
    )


def _no_room(why: str) -> Outcome:
    return Outcome(
        Result.DEFERRED,
        Scope.MESSAGE,
        None,
        f"There is no room for the temporary file that large mail needs: {why}.",
        f"Free space in {tempfile.gettempdir()}, or point the variable TMPDIR to a folder with more.",
        "no-temporary-space",
        counts=False,
    )
