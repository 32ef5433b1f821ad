"""Log lines: what `relay.events` says, rendered by structlog and written by a thread of its own.

One line per event, times in ISO 8601 UTC, the message's id always in the field ``id``. The event loop only
appends to a list; rendering and writing happen in the background, in batches. Two promises hold in both
formats: no value can begin a new line or move a terminal's cursor, and nothing secret is written.
"""

from __future__ import annotations

import atexit
import datetime
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, TextIO

from relay import events
from relay.settings import Log

RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
"""What the journal reads, and takes away, at the head of a line (sd-daemon(3)): `journalctl -p warning` then works."""
ROOM = 10_000
"""Lines that may wait while the output is slow. Beyond it debug lines are dropped, and counted."""
ROOM_INFO = 5 * ROOM
"""Beyond it lines at level info are dropped too, and counted; warnings and errors always wait their turn."""
GATHER = 0.02
"""Seconds the writer waits for company, so that a busy relay writes many lines in one call."""
FLUSH = 5.0
"""Seconds that `close` waits for the writer; an output that takes nothing must not keep the relay from ending."""

Entry = tuple[float, str, str, Mapping[str, object]]
"""Wall time, level, event, fields."""
Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]

_JWT = r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}"
# a token holds a digit: talk about bearer authentication stays readable
_BEARER = r"(?i:\bbearer)[ \t]+(?=\S*[0-9])[^\s\"',;\x01]{8,}"
_XOAUTH2 = r"dXNlcj[\w+/]{16,}=*"  # the base64 of "user=": an XOAUTH2 response
_NAMED = (
    r"(?i:\b(?P<name>client_secret|client_assertion|assertion|access_token|refresh_token|id_token|password|passphrase))"
    r"(?P<equals>=|[\"']\s*:\s*[\"']?)(?P<value>[^\s\"'&,;}]+)"
)
_SECRET = re.compile(f"{_JWT}|{_BEARER}|{_XOAUTH2}|{_NAMED}")
_HINTS = ("eyj", "bearer", "dxnlcj", "secret", "assertion", "_token", "passw", "passp")
"""One of these is in whatever `_SECRET` matches, in lower case; looking for them costs a tenth of trying the pattern."""
_SECRET_FIELDS = frozenset(
    {"client_secret", "secret", "password", "passphrase", "token", "access_token", "authorization"}
)
REDACTED = "[redacted]"
_NUMBERS = (int, float, type(None))


def visible(text: str) -> str:
    """The text with every character that is not printable escaped: safe for a terminal and within one line.

    Bidirectional overrides and lone surrogates count as not printable, too.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if short is not None:
        return short
    number = ord(char)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def without_secrets(text: str) -> str:
    """The text with tokens, bearer headers and named secrets replaced by ``[redacted]``."""
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    return _SECRET.sub(_redacted, text)


def _redacted(match: re.Match[str]) -> str:
    name = match.group("name")
    return f"{name}{match.group('equals')}{REDACTED}" if name else REDACTED


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that keeps secrets out of every field, at any depth."""
    if _harmless(line):
        return line
    for key, value in line.items():
        line[key] = REDACTED if key in _SECRET_FIELDS else _clean(value)
    return line


def _harmless(line: Mapping[str, Any]) -> bool:
    """Whether nothing in the line hints at a secret, all of it looked at together: true of nearly every line."""
    texts = [value for value in line.values() if isinstance(value, str)]
    others = (value for value in line.values() if not isinstance(value, str))
    if not _SECRET_FIELDS.isdisjoint(line) or not all(isinstance(one, _NUMBERS) for one in others):
        return False
    together = "\n".join(texts).lower()
    return not any(hint in together for hint in _HINTS)


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(k): REDACTED if k in _SECRET_FIELDS else _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item) for item in value]
    return without_secrets(str(value))


def as_text(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
    """The processor that renders ``time LEVEL event key=value ...`` for people."""
    head = f"{line.pop('time')} {str(line.pop('level')).upper():7} {visible(str(line.pop('event')))}"
    return " ".join([head, *(f"{visible(str(key))}={_text_value(value)}" for key, value in line.items())])


def _text_value(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not any(char in ' "=\\' for char in text):
        return text
    return '"' + visible(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def to_journal(stream: TextIO | None) -> bool:
    """Whether systemd's journal reads this very stream; ``JOURNAL_STREAM`` names it by device and inode (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM", "")
    if not named or stream is None:
        return False
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return named == f"{about.st_dev}:{about.st_ino}"


_ENCODE = json.JSONEncoder(default=str).encode
"""Made once: `json.dumps` makes another encoder for each line."""


def _chain(form: str) -> list[Processor]:
    if form == "text":
        return [redact, as_text]
    # structlog is imported here so that commands that only need `visible` start quickly
    from structlog.processors import JSONRenderer

    return [redact, JSONRenderer(serializer=lambda line, **_: _ENCODE(line))]


def _line(entry: Entry) -> dict[str, Any]:
    when, level, event, fields = entry
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    line: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "event": event,
    }
    if "id" in fields:
        line["id"] = fields["id"]
    for key, value in fields.items():
        # a field may not pass itself off as the line's own time, level or event
        line[f"{key}_" if key in ("time", "level", "event") else key] = value
    return line


class Writer:
    """Takes events from any thread, renders and writes them in its own. Use it as a `relay.events.Sink`."""

    def __init__(self, level: str, form: str, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._prefixed = to_journal(stream or sys.stderr)
        self._entries: deque[Entry] = deque()
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._written = threading.Condition()
        self._dropped = 0
        self._closing = False
        self._busy = False
        self.set(level, form)
        self._thread = threading.Thread(target=self._work, name="relay-log", daemon=True)
        self._thread.start()

    def set(self, level: str, form: str) -> None:
        """Another level or format from now on (``text`` or ``json``)."""
        self._least = RANKS[level]
        self._processors = _chain(form)

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        rank = RANKS.get(level, 40)
        if rank < self._least:
            return
        waiting = len(self._entries)
        if (waiting >= ROOM and rank < 20) or (waiting >= ROOM_INFO and rank < 30):
            self._dropped += 1
            return
        self._entries.append((time.time(), level, event, fields))
        if not self._some.is_set():
            self._some.set()
        if rank >= 30 or waiting > ROOM // 2:
            self._urgent.set()

    def flush(self, timeout: float = FLUSH) -> bool:
        """Wait until all that was said is written, ``timeout`` seconds at most; whether it is."""
        self._urgent.set()
        with self._written:
            return self._written.wait_for(self._idle, timeout)

    def _idle(self) -> bool:
        return not self._entries and not self._busy

    def close(self) -> None:
        """Write what is waiting and end the thread. Harmless when repeated."""
        self._closing = True
        self._some.set()
        self._urgent.set()
        self._thread.join(FLUSH)

    def _work(self) -> None:
        while True:
            self._some.wait()
            self._urgent.wait(0 if self._closing else GATHER)
            self._some.clear()
            self._urgent.clear()
            self._busy = True
            self._write_all()
            self._busy = False
            with self._written:
                self._written.notify_all()
            if self._closing and not self._entries:
                return

    def _write_all(self) -> None:
        lines: list[str] = []
        while self._entries:
            lines.append(self._render(self._entries.popleft()))
            if len(lines) >= 1000:
                self._write(lines)
        dropped, self._dropped = self._dropped, 0
        if dropped:
            about = {"where": "log", "what": f"{dropped} lines were dropped: the log's output is too slow"}
            lines.append(self._render((time.time(), "warning", "trouble", about)))
        self._write(lines)

    def _render(self, entry: Entry) -> str:
        head = PRIORITIES.get(entry[1], "<3>") if self._prefixed else ""
        return head + self._shown(entry)

    def _shown(self, entry: Entry) -> str:
        try:
            line: Any = _line(entry)
            for processor in self._processors:
                line = processor(None, entry[1], line)
            return str(line)
        except Exception as error:  # a value that cannot be shown must cost its line, not the log
            about = {
                "where": "log",
                "what": f"a line of event {entry[2]!r} cannot be shown: {type(error).__name__}",
            }
            return str(as_text(None, "error", _line((entry[0], "error", "trouble", about))))

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        stream = self._stream or sys.stderr
        try:
            stream.write("\n".join(lines) + "\n")
            stream.flush()
        except (OSError, ValueError):  # the reader of a pipe went away, or the disk is full: mail goes on
            self._dropped += len(lines)
        lines.clear()


class _Library(logging.Handler):
    """What the libraries say through `logging` and `warnings`, as the event ``library``."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, object] = {"library": record.name, "what": record.getMessage()}
            if record.exc_info and record.exc_info[1] is not None:
                fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
            self._writer(_level(record.levelno), "library", fields)
        except Exception:
            self.handleError(record)


def _level(number: int) -> str:
    return next((name for name, rank in reversed(RANKS.items()) if number >= rank), "debug")


_writer: Writer | None = None


def configure(log: Log) -> None:
    """Send `relay.events`, the libraries' logging and unexpected exceptions to standard error, as ``log`` says.

    May be called again after a reload. What is still waiting is written at exit.
    """
    global _writer
    form = log.format if log.format in ("text", "json") else "text" if _on_terminal() else "json"
    if _writer is None:
        _writer = Writer(log.level, form)
        atexit.register(close)
    else:
        _writer.set(log.level, form)
    events.plug(_writer)
    _route_libraries(_writer)
    sys.excepthook = _unexpected
    threading.excepthook = _unexpected_in_thread


def flush() -> None:
    """Wait until what was said is written."""
    if _writer is not None:
        _writer.flush()


def close() -> None:
    """Write what is waiting and let go of the output; events go nowhere afterwards."""
    global _writer
    if _writer is None:
        return
    events.plug(None)
    _writer.close()
    _writer = None


def exception(where: str, error: BaseException) -> None:
    """An unexpected error, with its traceback, as the event ``trouble``."""
    if _writer is None:
        traceback.print_exception(error)
        return
    shown = "".join(traceback.format_exception(error))
    _writer(
        "error", "trouble", {"where": where, "what": f"{type(error).__name__}: {error}", "traceback": shown}
    )


def _on_terminal() -> bool:
    return bool(sys.stderr is not None and sys.stderr.isatty())


def _route_libraries(writer: Writer) -> None:
    """Warnings and errors of libraries only: below that they talk about each connection, and of tokens."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Library):
            root.removeHandler(handler)
    root.addHandler(_Library(writer))
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # of each connection that breaks, and of each one that is tried in vain: the spool says it once, and better
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # aiosmtpd writes whatever a client sent, with client-made line breaks; our own events say it better
    mail = logging.getLogger("mail")
    mail.propagate = False
    mail.handlers = [logging.NullHandler()]
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    exception("relay", error)
    flush()


def _unexpected_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        exception(f"thread {args.thread.name if args.thread else '?'}", args.exc_value)
