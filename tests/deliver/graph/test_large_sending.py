"""Large mail against the simulated Graph: one request, draft with files, upload sessions, and what is left when it fails."""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.deliver.graph import draft as drafts
from relay.deliver.graph.contract import Lost
from relay.message import Result, Scope
from relay.simulator.faults import Fault
from tests.deliver.graph.large_kit import MAILBOX, Office, SimHttp, make_parcel, make_scan, open_office

MB = 1024 * 1024


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; none is made."""
    asked: list[float] = []

    async def pause(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(drafts, "pause", pause)
    return asked


def digests(office: Office) -> list[tuple[str, str]]:
    """(name, SHA-256) of each file of the last message that was accepted."""
    parsed = email.message_from_bytes(office.sim.messages[-1].bytes(), policy=email.policy.default)
    return [
        (part.get_filename() or "", hashlib.sha256(part.get_payload(decode=True)).hexdigest())
        for part in parsed.iter_attachments()
    ]


async def test_what_fits_goes_in_one_request(tmp_path: Path) -> None:
    """2.4 MB of files need no draft, and no more than Mail.Send; the attempt is written down first."""
    async with open_office(tmp_path, {"Mail.Send"}) as office:
        body, parcel = make_scan(2_400_000)
        result = await office.send(parcel)
        assert result.outcome is not None and result.outcome.result is Result.SENT
        assert (result.step, office.begin.calls) == ("sendMail", 1)
        assert [method for method, _, _ in office.http.requests] == ["POST"]
        assert digests(office) == [("scan-0.pdf", hashlib.sha256(body.file(2_400_000)).hexdigest())]
        assert office.sim.messages[0].recipients == ["a@b.example"]


async def test_a_large_message_is_uploaded_in_chunks(office: Office) -> None:
    """Small files by POST, large ones by session, all octets as they were; nothing stays behind."""
    sizes = (9_000_000, 100, 3 * MB, 2_000_000)
    body, parcel = make_scan(*sizes)
    result = await office.send(parcel)
    assert result.outcome is not None and result.outcome.result is Result.SENT, result
    assert (result.step, office.begin.calls) == ("send", 1)
    expected = {
        (f"scan-{n}.pdf", hashlib.sha256(body.file(size)).hexdigest()) for n, size in enumerate(sizes)
    }
    assert set(digests(office)) == expected
    assert office.http.steps("PUT ") == [200, 200, 201, 201]
    assert office.http.authorized_uploads == 0
    assert office.sim.messages[0].message_id == "<scan@contoso.com>"
    assert office.left_behind == []


async def test_a_large_text_is_attached(office: Office) -> None:
    """A text beyond what JSON can carry becomes a file, and the body says so."""
    text = b"Umlaut \xc3\xa4\r\n" * 400_000
    raw = b"Subject: log\r\nTo: a@b.example\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text
    result = await office.send(make_parcel(raw))
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert digests(office) == [("message.txt", hashlib.sha256(text).hexdigest())]
    assert any("too long for a body" in note for note in result.notes)


async def test_without_the_permission_it_is_held(tmp_path: Path) -> None:
    """Mail.Send alone: held with the clicks that mend it, never bounced; nothing was begun."""
    async with open_office(tmp_path, {"Mail.Send"}) as office:
        result = await office.send(make_scan(5_000_000)[1])
        assert result.outcome is not None
        assert (result.outcome.result, result.outcome.scope) == (Result.HELD, Scope.MESSAGE)
        assert (result.outcome.code, result.outcome.counts) == ("mail-readwrite-missing", False)
        for words in (
            "App registrations",
            "API permissions",
            "Mail.ReadWrite",
            "Grant admin consent",
            "SMTP.SendAsApp",
        ):
            assert words in result.outcome.remedy
        assert (office.begin.calls, office.sim.messages) == (0, [])


async def test_permission_by_exchange_role_is_enough(tmp_path: Path) -> None:
    """Exchange's own roles leave no trace in the token, and work."""
    async with open_office(tmp_path, {"rbac-mail-send", "rbac-mail-readwrite"}) as office:
        result = await office.send(make_scan(5_000_000)[1])
        assert result.outcome is not None and result.outcome.result is Result.SENT


class Meddler(SimHttp):
    """Lets a fault loose at the n-th request whose method and target hold some words."""

    fault: dict[str, Any] = {}
    words = ""
    numbers: tuple[int, ...] = ()
    seen_so_far = 0
    expire = False

    async def call(self, method: str, target: str, **given: Any) -> Any:
        if self.words in f"{method} {target}":
            self.seen_so_far += 1
            if self.seen_so_far in self.numbers:
                if self.expire:
                    for upload in self.sim._graph._drafts.uploads.values():
                        upload.expires = 0
                else:
                    self.sim.faults.add(Fault("graph", **self.fault))
        return await super().call(method, target, **given)


def meddle(office: Office, words: str, *numbers: int, expire: bool = False, **fault: Any) -> Meddler:
    meddler = Meddler(office.sim, office.http.session, office.http.token)
    meddler.words, meddler.numbers, meddler.fault, meddler.expire = words, numbers, fault, expire
    return meddler


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "fault",
    [
        {"action": "drop"},
        {"action": "drop-after-accept"},
        {"action": "reply", "reply": "503 ErrorServerBusy", "seconds": 7},
        {"action": "reply", "reply": "429 ApplicationThrottled", "seconds": 3},
        {"action": "reply", "reply": "500 ErrorInternalServerTransientError"},
    ],
    ids=["dropped", "answer lost", "503", "429", "500"],
)
async def test_a_broken_chunk_is_resumed(
    office: Office, waits: list[float], fault: dict[str, Any], number: int
) -> None:
    """Whatever befalls one chunk, the session is asked and the upload goes on where it stopped."""
    body, parcel = make_scan(8_000_000)
    meddler = meddle(office, "PUT ", number, **fault)
    result = await office.send(parcel, http=meddler)
    assert result.outcome is not None and result.outcome.result is Result.SENT, result
    assert digests(office) == [("scan-0.pdf", hashlib.sha256(body.file(8_000_000)).hexdigest())]
    assert waits == [fault.get("seconds", drafts.PAUSES[0])]
    assert len(meddler.steps("PUT ")) == (3 if fault["action"] == "drop-after-accept" else 4)
    assert len(meddler.steps("createUploadSession")) == 1
    assert office.left_behind == []


async def test_an_expired_session_is_replaced(office: Office) -> None:
    """The file starts again in a new session."""
    body, parcel = make_scan(8_000_000)
    meddler = meddle(office, "PUT ", 2, expire=True)
    result = await office.send(parcel, http=meddler)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert meddler.steps("PUT ") == [200, 404, 200, 200, 201]
    assert digests(office) == [("scan-0.pdf", hashlib.sha256(body.file(8_000_000)).hexdigest())]


async def test_sessions_that_always_expire_are_given_up(office: Office) -> None:
    """Bounded: after three sessions the draft is thrown away and the try has ended without uncertainty."""
    meddler = meddle(office, "PUT ", *range(1, 100), expire=True)
    result = await office.send(make_scan(8_000_000)[1], http=meddler)
    assert result.outcome is None and result.lost is not None
    assert (result.step, result.lost.complete) == ("upload", False)
    assert len(meddler.steps("createUploadSession")) == drafts.SESSIONS
    assert (office.left_behind, office.begin.calls) == ([], 0)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ("createUploadSession", "session"),
        ("PUT ", "upload"),
        ("/attachments", "attachment"),
        ("POST /users", "draft"),
    ],
)
async def test_a_lasting_refusal_ends_the_try_and_clears_away(office: Office, words: str, step: str) -> None:
    """The answer comes back with its step for the table; neither draft nor session nor file is left."""
    sizes = (100, 4_000_000) if step == "attachment" else (4_000_000,)
    meddler = meddle(office, words, 1, action="reply", reply="507 ErrorQuotaExceeded full")
    result = await office.send(make_scan(*sizes)[1], http=meddler)
    assert result.outcome is None and result.answer is not None
    assert (result.step, result.answer.status, result.answer.code) == (step, 507, "ErrorQuotaExceeded")
    assert (office.left_behind, office.begin.calls, office.sim.messages) == ([], 0, [])


async def test_patience_is_bounded(office: Office, waits: list[float]) -> None:
    """A service that stays busy: so many tries with growing pauses, then the try ends and clears away."""
    numbers = range(1, 50)
    meddler = meddle(office, "createUploadSession", *numbers, action="reply", reply="503 ErrorServerBusy")
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.answer is not None and result.answer.status == 503
    assert waits == list(drafts.PAUSES)
    assert office.left_behind == []


async def test_a_long_retry_after_is_left_to_the_queue(office: Office, waits: list[float]) -> None:
    """An hour is not waited for with a draft in hand."""
    meddler = meddle(office, "PUT ", 1, action="reply", reply="429 ApplicationThrottled", seconds=3600)
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.answer is not None and result.answer.headers["Retry-After"] == "3600"
    assert (waits, office.left_behind) == ([], [])


async def test_a_file_whose_answer_was_lost_is_not_attached_twice(office: Office) -> None:
    """The draft is asked what it holds before a POST is repeated."""
    meddler = meddle(office, "/attachments", 1, action="drop-after-accept")
    result = await office.send(make_scan(100, 4_000_000)[1], http=meddler)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert [name for name, _ in digests(office)] == ["scan-0.pdf", "scan-1.pdf"]


async def test_a_draft_whose_id_was_lost_is_found_and_deleted(office: Office) -> None:
    """The answer to its creation never came: it is known by its Message-ID, and other mail is left alone."""
    other = {"subject": "a person's own draft", "internetMessageId": "<other@contoso.com>"}
    await office.http.call("POST", f"/users/{MAILBOX}/messages", json=other)
    (own,) = office.left_behind
    meddler = meddle(office, "POST ", 1, action="drop-after-accept")
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.lost is not None and not result.lost.complete
    assert (result.step, office.left_behind) == ("draft", [own])


async def test_a_lost_answer_to_send_is_cleared_up_by_the_draft(office: Office, waits: list[float]) -> None:
    """The draft has left Drafts, so the message was sent: no second copy, no uncertainty."""
    meddler = meddle(office, "/send", 1, action="drop-after-accept")
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert any("left the Drafts folder" in note for note in result.notes)
    assert (len(office.sim.messages), waits) == (1, [1.0])


async def test_a_send_that_never_arrived_is_told_apart(office: Office) -> None:
    """The draft is still a draft after a while: not sent, deleted, and not uncertain."""
    meddler = meddle(office, "/send", 1, action="drop")
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.outcome is None and result.lost is not None
    assert (result.step, result.lost.complete) == ("send", False)
    assert (office.sim.messages, office.left_behind, office.begin.calls) == ([], [], 1)


async def test_when_the_draft_cannot_be_asked_it_is_left_alone(office: Office) -> None:
    """Nobody knows: the attempt is uncertain, and the draft is not deleted under a message that may be going out."""
    meddler = meddle(office, "/send", 1, action="drop", times=None)
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    office.sim.faults.clear()
    assert result.lost is not None and result.lost.complete
    assert not meddler.steps("DELETE ")
    assert office.left_behind != []


async def test_throttled_at_send_the_upload_is_not_thrown_away(office: Office, waits: list[float]) -> None:
    """503 and 429 are definite: the same draft is sent a little later, and the attempt is written down once."""
    meddler = meddle(office, "/send", 1, action="reply", reply="429 ApplicationThrottled", seconds=5)
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert (waits, office.begin.calls, meddler.steps("/send")) == ([5.0], 1, [429, 202])


async def test_send_as_denied_comes_back_for_the_table(office: Office) -> None:
    """A refusal at send: the answer, its step, and no draft left."""
    office.sim.state.limits.message_size = 1 * MB
    result = await office.send(make_scan(4_000_000)[1])
    assert result.outcome is None and result.answer is not None
    assert (result.step, result.answer.code) == ("send", "ErrorMessageSizeExceeded")
    assert office.left_behind == []


async def test_a_gateway_error_at_send_is_looked_into(office: Office) -> None:
    """504 says little; the draft is still there, so it was not sent."""
    meddler = meddle(office, "/send", 1, action="reply", reply="504 UnknownError")
    result = await office.send(make_scan(4_000_000)[1], http=meddler)
    assert result.outcome is None and result.answer is not None and result.answer.status == 504
    assert office.left_behind == []


@pytest.mark.parametrize("words", ["createUploadSession", "PUT ", "/attachments"])
async def test_cancelled_before_sending_everything_is_cleared_away(office: Office, words: str) -> None:
    """A shutdown in the middle leaves neither draft nor session in the mailbox."""
    reached = asyncio.Event()

    class Stuck(SimHttp):
        async def call(self, method: str, target: str, **given: Any) -> Any:
            if words in f"{method} {target}" and not reached.is_set():
                reached.set()
                await asyncio.Event().wait()
            return await super().call(method, target, **given)

    stuck = Stuck(office.sim, office.http.session, office.http.token)
    task = asyncio.create_task(office.send(make_scan(100, 5_000_000)[1], http=stuck))
    await asyncio.wait_for(reached.wait(), 30)
    assert office.left_behind != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (office.left_behind, office.begin.calls) == ([], 0)


async def test_cancelled_while_sending_the_draft_is_left_alone(office: Office) -> None:
    """It may be going out this moment."""
    reached = asyncio.Event()

    class Stuck(SimHttp):
        async def call(self, method: str, target: str, **given: Any) -> Any:
            if target.endswith("/send"):
                reached.set()
                await asyncio.Event().wait()
            return await super().call(method, target, **given)

    stuck = Stuck(office.sim, office.http.session, office.http.token)
    task = asyncio.create_task(office.send(make_scan(5_000_000)[1], http=stuck))
    await asyncio.wait_for(reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not stuck.steps("DELETE ")


async def test_when_the_attempt_cannot_be_written_down_nothing_is_sent(office: Office) -> None:
    """A spool that fails at `begin`: the error goes on, the draft goes away."""

    async def begin() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await office.send(make_scan(4_000_000)[1], begin=begin)
    assert (office.left_behind, office.sim.messages) == ([], [])


async def test_addresses_and_ids_are_quoted(office: Office) -> None:
    """What has a meaning in an address does not get one by a mailbox's name."""

    class Listener:
        targets: list[str] = []

        async def call(self, method: str, target: str, **given: Any) -> Any:
            self.targets.append(target)
            raise Lost("off", complete=True)

    listener = Listener()
    result = await office.send(make_scan(4_000_000)[1], http=listener, mailbox="o'neil/../x?#@contoso.com")
    assert result.lost is not None and not result.lost.complete
    assert listener.targets[0] == "/users/o%27neil%2F..%2Fx%3F%23@contoso.com/messages"
    assert all(target.startswith(listener.targets[0]) for target in listener.targets)


async def test_a_full_disk_defers(office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No room for the temporary file is nobody's fault but the disk's: tried again, not counted."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    result = await office.send(make_scan(4_000_000)[1])
    assert result.outcome is not None
    assert (result.outcome.result, result.outcome.code) == (Result.DEFERRED, "no-temporary-space")
    assert not result.outcome.counts


async def test_more_parts_than_anybody_takes(office: Office) -> None:
    """Refused before anything is asked of Graph."""
    raw = b"To: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1001
    result = await office.send(make_parcel(raw))
    assert result.outcome is not None and result.outcome.code == "too-many-parts"
    assert office.http.requests == []


async def test_a_page_with_its_picture_arrives_as_one(office: Office) -> None:
    """HTML, inline picture and nested message, seen from the recipient's side."""
    raw = (
        b"To: a@b.example\r\nSubject: page\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n"
        b"Content-Type: multipart/related; boundary=r\r\n\r\n--r\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        b"<p>\xc3\xa4 <img src='cid:pic@x'>\r\n--r\r\nContent-Type: image/png; name=pic.png\r\n"
        b"Content-ID: <pic@x>\r\n\r\nPNG\r\n--r--\r\n--m\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: inner\r\n\r\ninner text\r\n--m--\r\n"
    )
    result = await office.send(make_parcel(raw))
    assert result.outcome is not None and result.outcome.result is Result.SENT
    parsed = email.message_from_bytes(office.sim.messages[0].bytes(), policy=email.policy.default)
    text, picture, nested = parsed.iter_parts()
    assert text.get_content().strip() == "<p>ä <img src='cid:pic@x'>"
    assert (picture["Content-ID"], picture.get_content_disposition()) == ("<pic@x>", "inline")
    assert picture.get_content() == b"PNG"
    assert (nested.get_filename(), nested.get_content_type()) == ("inner.eml", "message/rfc822")


async def test_three_hundred_files_arrive(office: Office) -> None:
    """250 are allowed: the last ones come in one archive, and the trace says so."""
    parts = b"".join(
        b"--b\r\nContent-Type: application/pdf; name=f%d.pdf\r\n\r\nfile %d\r\n" % (number, number)
        for number in range(300)
    )
    raw = b"To: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + parts + b"--b--\r\n"
    result = await office.send(make_parcel(raw))
    assert result.outcome is not None and result.outcome.result is Result.SENT
    names = [name for name, _ in digests(office)]
    assert (len(names), names[-1]) == (250, "further-attachments.zip")
    assert any("the last 51 are in" in note for note in result.notes)


async def test_recipients_are_those_of_the_attempt(office: Office) -> None:
    """To and Cc as far as they are in the envelope, the rest hidden; nobody else gets it."""
    raw = (
        b"From: notifications@contoso.com\r\nTo: =?utf-8?q?=C3=84nne?= <A@B.example>, stranger@x.example\r\n"
        b'Cc: "Doe, John" <j@d.example>\r\nSubject: s\r\n\r\nbody\r\n'
    )
    result = await office.send(make_parcel(raw, "a@b.example", "j@d.example", "hidden@h.example"))
    assert result.outcome is not None and result.outcome.result is Result.SENT
    accepted = office.sim.messages[0]
    assert sorted(accepted.recipients) == ["a@b.example", "hidden@h.example", "j@d.example"]
    parsed = email.message_from_bytes(accepted.bytes(), policy=email.policy.default)
    assert (str(parsed["To"]), str(parsed["Cc"])) == ("Änne <a@b.example>", '"Doe, John" <j@d.example>')
    assert any("stranger@x.example" in note for note in result.notes)
    assert parsed["Message-ID"]


async def test_no_mail_fails_for_its_x_fields(office: Office) -> None:
    """A mailbox that takes no more custom header names still gets the message out, with a note."""
    office.sim.state.limits.graph_headers = 1
    fields = b"To: a@b.example\r\nX-One: 1\r\nX-Two: 2\r\n"
    for text in (b"short", b"long " * 800_000):
        result = await office.send(make_parcel(fields + b"\r\n" + text))
        assert result.outcome is not None and result.outcome.result is Result.SENT
        assert any("without them" in note for note in result.notes)
    assert [b"X-One" in accepted.bytes() for accepted in office.sim.messages] == [False, False]
    assert office.begin.calls == 2


async def test_one_request_that_is_too_large_after_all_becomes_a_draft(office: Office) -> None:
    """Microsoft's 4 MB are not exact: 413 leads to the draft, with the attempt written down once."""
    office.sim.state.limits.graph_request_size = 2 * MB
    office.sim.state.limits.graph_attachment_size = 1 * MB
    body, parcel = make_scan(900_000, 900_000)
    result = await office.send(parcel)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert (result.step, office.begin.calls) == ("send", 1)
    assert {digest for _, digest in digests(office)} == {hashlib.sha256(body.file(900_000)).hexdigest()}
    assert office.left_behind == []


@pytest.mark.parametrize(
    ("smallest", "steps"), [(3_000_000, [201, 201, 202]), (3 * 2**20, [201, 400, 201, 202])]
)
async def test_a_file_of_about_three_megabytes_goes_by_the_way_that_takes_it(
    office: Office, smallest: int, steps: list[int]
) -> None:
    """No request above 4,000,000 octets where a session takes the file; else by POST."""
    office.sim.state.limits.graph_attachment_size = smallest
    body, parcel = make_scan(3_100_000)
    result = await office.send(parcel)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert office.http.steps("POST ") == steps
    assert digests(office) == [("scan-0.pdf", hashlib.sha256(body.file(3_100_000)).hexdigest())]
    assert office.left_behind == []


async def test_a_file_just_too_large_for_a_post_gets_a_session(office: Office) -> None:
    """413 for a file below 3 MB leads to an upload session."""
    office.sim.state.limits.graph_request_size = 3_800_000
    office.sim.state.limits.graph_attachment_size = 2_800_000
    body, parcel = make_scan(2_900_000)
    result = await office.send(parcel)
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert office.http.steps("POST ") == [201, 413, 201, 202]
    assert digests(office) == [("scan-0.pdf", hashlib.sha256(body.file(2_900_000)).hexdigest())]
