"""The log: one line per event, nothing forged, nothing secret, and the event loop never waits for it."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import events, logs
from relay.settings import Log

TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL291dGxvb2sub2ZmaWNlMzY1LmNvbSJ9.c2lnbmF0dXJl"
)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """A writer for JSON lines at level debug."""
    stream = io.StringIO()
    writer = logs.Writer("debug", "json", stream)
    events.plug(writer)
    yield stream
    events.plug(None)
    writer.close()


@pytest.fixture
def configured() -> Iterator[None]:
    """`logs.configure` as the daemon calls it, undone afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    hook, thread_hook = logs.sys.excepthook, threading.excepthook
    yield
    logs.close()
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logs.sys.excepthook, threading.excepthook = hook, thread_hook


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    sink = events._sink
    assert isinstance(sink, logs.Writer)
    assert sink.flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def text_of(level: str, event: str, fields: dict[str, object]) -> str:
    stream = io.StringIO()
    writer = logs.Writer("debug", "text", stream)
    writer(level, event, fields)
    writer.close()
    return stream.getvalue()


def test_one_line_per_event_with_the_same_id(written: io.StringIO) -> None:
    """Time (ISO 8601, UTC), level, event and id lead each line; the fields follow."""
    events.accepted(id="0AB", client="10.0.0.7", sender="a@b.de", recipients=1, size=9, lane="M/x")
    events.delivered(id="0AB", lane="M/x", recipients=1, reply="250 OK")
    first, second = lines(written)
    assert list(first)[:4] == ["time", "level", "event", "id"]
    assert str(first["time"]).endswith("Z")
    assert "T" in str(first["time"])
    assert (first["event"], first["size"]) == ("accepted", 9)
    assert first["id"] == second["id"] == "0AB"


@pytest.mark.parametrize(
    "forged", ["a\nb", "a\r\nERROR held id=1", "\x1b[2J", "\u2028x", "\x85x", "\u202ex", "\udce9"]
)
def test_no_value_can_forge_a_line(forged: str) -> None:
    """Line breaks of any kind, escape sequences and overrides are escaped in both formats."""
    for form in ("text", "json"):
        stream = io.StringIO()
        writer = logs.Writer("debug", form, stream)
        writer("info", "rejected", {"client": forged, forged: "name"})
        writer.close()
        shown = stream.getvalue()
        assert len(shown.splitlines()) == 1
        assert shown.endswith("\n")
        assert shown[:-1].isprintable()


def test_text_values_cannot_pass_for_other_fields() -> None:
    """In text, values with blanks, quotes or equals signs are quoted."""
    shown = text_of("warning", "failed", {"id": "0AB", "reason": 'no" id=0CD', "empty": "", "n": 3})
    assert shown.rstrip().endswith('WARNING failed id=0AB reason="no\\" id=0CD" empty="" n=3')


def test_a_field_cannot_pass_for_the_lines_own(written: io.StringIO) -> None:
    """A field named level or time does not replace the line's."""
    events.notice(what="x", level="error", time="never")
    (line,) = lines(written)
    assert (line["level"], line["level_"]) == ("info", "error")


@pytest.mark.parametrize(
    "leak",
    [
        f"the server said {TOKEN}",
        f"Authorization: Bearer {TOKEN}",
        "auth=Bearer opaque-t0ken-value\x01\x01",
        "grant_type=client_credentials&client_secret=opaque-t0ken-value&scope=x",
        '{"access_token": "opaque-t0ken-value", "expires_in": 3599}',
        "AUTH XOAUTH2 dXNlcj1hQGIuZGUBYXV0aD1CZWFyZXIgb3BhcXVlLXQwa2VuLXZhbHVlAQE=",
        TOKEN[:40],
    ],
)
def test_nothing_secret_is_written(written: io.StringIO, leak: str) -> None:
    """Tokens and named secrets are redacted wherever they stand: in a field, in a list, in a mapping."""
    events.trouble(where="x", what=leak, more=[leak], deep={"password": "hunter2", "text": leak})
    lines(written)
    shown = written.getvalue()
    assert logs.REDACTED in shown
    for secret in ("opaque-t0ken-value", TOKEN[:30], "hunter2", "b3BhcXVl", "dXNlcj1hQGIu"):
        assert secret not in shown


def test_sentences_about_secrets_stay_readable() -> None:
    """Only values are redacted, not talk about them."""
    sentence = "The client secret is expired; password and bearer authentication are off."
    assert logs.without_secrets(sentence) == sentence


def test_lower_levels_cost_nothing() -> None:
    """An event below the level never reaches the writer's list."""
    stream = io.StringIO()
    writer = logs.Writer("warning", "json", stream)
    writer("info", "accepted", {"id": "1"})
    writer("warning", "deferred", {"id": "2"})
    writer.close()
    assert [json.loads(line)["id"] for line in stream.getvalue().splitlines()] == ["2"]


class Stuck(io.StringIO):
    """An output that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.go.wait(20)
        return super().write(text)


def test_a_stuck_output_drops_debug_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written callers do not wait; debug lines beyond the bound go, warnings stay, and it is said."""
    monkeypatch.setattr(logs, "ROOM", 10)
    stream = Stuck()
    writer = logs.Writer("debug", "json", stream)
    writer("warning", "deferred", {"id": "first"})
    assert stream.entered.wait(20)
    for number in range(30):
        writer("debug", "attempted", {"id": number})
        writer("warning", "deferred", {"id": number})
    stream.go.set()
    writer.close()
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["id"] for line in found if line["event"] == "deferred"] == ["first", *range(30)]
    kept = sum(line["event"] == "attempted" for line in found)
    assert kept == 5
    assert any(
        line["event"] == "trouble" and f"{30 - kept} lines were dropped" in line["what"] for line in found
    )


def test_an_output_that_breaks_harms_nobody() -> None:
    """A closed pipe is survived; the writer goes on."""
    stream = io.StringIO()
    stream.close()
    writer = logs.Writer("debug", "json", stream)
    writer("error", "trouble", {"what": "x"})
    assert writer.flush()
    writer.close()
    assert not writer._thread.is_alive()


def test_a_value_that_cannot_be_shown_costs_its_line_only() -> None:
    """An object whose text raises does not end the log."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    stream = io.StringIO()
    writer = logs.Writer("debug", "json", stream)
    writer("info", "notice", {"what": Broken()})
    writer("info", "notice", {"what": "after"})
    writer.close()
    first, second = stream.getvalue().splitlines()
    assert "cannot be shown" in first
    assert "after" in second


def test_libraries_go_the_same_way(configured: None, capsys: pytest.CaptureFixture[str]) -> None:
    """logging and warnings become lines of ours; below warning, and aiosmtpd's own log, they are silent."""
    logs.configure(Log(level="debug", format="json"))
    logging.getLogger("asyncio").error("Task was destroyed\nbut pending %s", TOKEN)
    logging.getLogger("urllib3").debug("GET %s", TOKEN)
    logging.getLogger("mail.log").critical("sender: evil\nline")
    warnings.warn("old habit", DeprecationWarning, stacklevel=1)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("aiohttp").exception("unexpected")
    logs.flush()
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in found if "old habit" not in line["what"]] == [
        ("library", "error"),
        ("library", "error"),
    ]
    assert TOKEN[:30] not in str(found)
    assert "ValueError: boom" in str(found[-1]["traceback"])


def test_unexpected_exceptions_are_logged_with_their_traceback(
    configured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a thread does not catch becomes an error line, one line long."""
    logs.configure(Log(level="info", format="text"))
    thread = threading.Thread(target=lambda: [][0], name="worker")
    thread.start()
    thread.join()
    logs.flush()
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "IndexError" in shown
    assert "thread worker" in shown


def test_configuring_again_changes_level_and_format(
    configured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reload takes effect, and each event is still written once."""
    logs.configure(Log(level="error", format="json"))
    events.notice(what="unheard")
    logs.configure(Log(level="info", format="text"))
    events.notice(what="heard")
    logging.getLogger("asyncio").warning("once")
    logs.flush()
    shown = capsys.readouterr().err
    assert "unheard" not in shown
    assert shown.count("what=heard") == 1
    assert shown.count("what=once") == 1


def test_auto_is_json_where_nobody_reads(configured: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal `auto` writes JSON."""
    logs.configure(Log(level="info", format="auto"))
    events.notice(what="started")
    logs.flush()
    assert json.loads(capsys.readouterr().err)["what"] == "started"


def test_the_journal_learns_each_lines_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd reads standard error itself, a line begins as sd-daemon(3) says; anywhere else it does not."""
    heads = {}
    for journal in (True, False):
        path = tmp_path / f"{journal}.log"
        with path.open("w") as stream:
            about = os.fstat(stream.fileno())
            inode = about.st_ino if journal else about.st_ino + 1
            monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{inode}")
            writer = logs.Writer("debug", "json", stream)
            for level in logs.RANKS:
                writer(level, "notice", {"what": level})
            writer.close()
        heads[journal] = {
            json.loads(line[line.index("{") :])["level"]: line[: line.index("{")]
            for line in path.read_text().splitlines()
        }
    assert heads[True] == {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
    assert set(heads[False].values()) == {""}
