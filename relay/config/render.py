"""Plain values as YAML text: the few forms a configuration needs, always read back as what they were.

A dump of the whole document by a library would lay it out anew; `relay.config.edit` writes only what changed, with
these functions.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import yaml

STEP = 2
"""Blanks of one level of what is written anew."""
_PLAIN = re.compile(r"[A-Za-z0-9_/.](?:[A-Za-z0-9_./@+~%=$*:-]| (?=[A-Za-z0-9_./(+-]))*")
_COLON = re.compile(r":(?: |$)")
_TEXT_TAG = "tag:yaml.org,2002:str"
_RESOLVER: Any = yaml.resolver.Resolver()


def flow(value: object, *, as_read: bool = False) -> str:
    """The value on one line: ``{a: 1, b: [x, y]}``.

    ``as_read``: texts are the ones the relay's own reader gave (every scalar is text there), so ``30`` stays bare.
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{scalar(str(key))}: {flow(one, as_read=as_read)}" for key, one in value.items())
        return "{" + inner + "}"
    if is_list(value):
        return "[" + ", ".join(flow(one, as_read=as_read) for one in value) + "]"
    return scalar(value, as_read=as_read)


def block(value: object, indent: int) -> list[str]:
    """A mapping or list as lines at this indentation, without line ends."""
    pad = " " * indent
    if isinstance(value, Mapping):
        lines = []
        for key, one in value.items():
            lines += entry(str(key), one, indent)
        return lines
    if is_list(value):
        lines = []
        for one in value:
            lines += item(one, indent)
        return lines
    return [pad + scalar(value)]


def entry(key: str, value: object, indent: int) -> list[str]:
    """One ``key: value`` of a mapping."""
    head = f"{' ' * indent}{scalar(key)}:"
    if inline(value):
        return [f"{head} {flow(value)}"]
    return [head, *block(value, indent + STEP)]


def item(value: object, indent: int) -> list[str]:
    """One ``- value`` of a list."""
    if inline(value):
        return [f"{' ' * indent}- {flow(value)}"]
    lines = block(value, indent + STEP)
    return [f"{' ' * indent}- {lines[0].lstrip()}", *lines[1:]]


def inline(value: object) -> bool:
    """Whether a value goes behind its key on one line: scalars, what is empty, and lists of scalars."""
    if isinstance(value, Mapping):
        return not value
    if is_list(value):
        return not any(isinstance(one, Mapping) or is_list(one) for one in value)
    return True


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is written as a list."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def scalar(value: object, style: str | None = None, *, as_read: bool = False) -> str:
    """One scalar; ``style`` is the quote (``'`` or ``"``) that stood there before, kept where it can be."""
    if not isinstance(value, str):
        return text_of(value)
    if style in ("'", '"'):
        return _quoted(value, style)
    if _PLAIN.fullmatch(value) and not _COLON.search(value) and (as_read or _is_text(value)):
        return value
    return _quoted(value, '"')


def text_of(value: object) -> str:
    """How a scalar is written bare, and what the relay's reader gives back for it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _is_text(value: str) -> bool:
    """Whether other YAML readers take the bare word for text too, and not for a number, a switch or a date."""
    return bool(_RESOLVER.resolve(yaml.ScalarNode, value, (True, False)) == _TEXT_TAG)


def _quoted(value: str, style: str) -> str:
    if style == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value, ensure_ascii=False)
