"""How pages show things: jinja with escaping everywhere, and times, sizes and durations for people."""

from __future__ import annotations

import datetime
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from relay.figures import duration, octets

_HERE = Path(__file__).parent
_KEPT = frozenset("\n\t")
_BREAK_AT, _BREAK_DOT = Markup("@<wbr>"), Markup(".<wbr>")
STATIC = {
    "style.css": "text/css",
    "relay.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Every file that the page serves, and its type."""


def plain(text: str) -> str:
    """The text with every character that is not printable escaped, line ends and tabs kept.

    Bidirectional overrides are among them: text of mail must not show itself in another order than it is.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else _escape(char) for char in text)


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _finalize(value: object) -> object:
    """What every ``{{ expression }}`` goes through before it is escaped."""
    if value is None:
        return ""
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)


def moment(value: float | str | None) -> datetime.datetime | None:
    """Seconds since 1970 or ISO 8601, as local time; None stays None, and so does what is no time."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            return datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone()
        return datetime.datetime.fromtimestamp(value, datetime.UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def when(value: float | str | None, form: str = "%Y-%m-%d %H:%M:%S") -> Markup:
    """A ``<time>`` element; empty for None."""
    then = moment(value)
    if then is None:
        return Markup("")
    exact = then.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(exact, then.strftime(form))


def soft(text: str) -> Markup:
    """An address that breaks behind its ``@`` and its dots before it breaks anywhere else."""
    return escape(plain(text)).replace("@", _BREAK_AT).replace(".", _BREAK_DOT)


def age(value: float | str | None, now: float) -> str:
    """How long ago a time is; empty for None."""
    then = moment(value)
    return duration(now - then.timestamp()) if then is not None else ""


def number(value: float | None) -> str:
    """``12,345``; empty for None."""
    return "" if value is None else f"{value:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 message``, ``12,345 messages``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


@cache
def static(name: str) -> bytes:
    """A static file's content; KeyError for a name that is none of ours."""
    return (_HERE / "static" / {one: one for one in STATIC}[name]).read_bytes()


@cache
def static_url(name: str) -> str:
    """Its address, which changes with its content so that browsers may keep it."""
    return f"/static/{name}?v={hashlib.sha256(static(name)).hexdigest()[:12]}"


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(when=when, soft=soft, age=age, octets=octets, duration=duration, number=number)
    made.globals.update(static_url=static_url, plural=plural)
    return made


def render(template: str, **context: Any) -> str:
    """A page, or a part of one."""
    return environment().get_template(template).render(**context)
