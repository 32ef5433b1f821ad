"""Changing a configuration file that people edit too: only what changes is written, the rest stays letter by letter.

No library dumps the document: that would lay it out anew (indentation, a comment behind a dash, line ends). The
places of the values are looked up instead and exchanged in the text. What came out is read again and compared with
what was wanted, so a form that is beyond this (an anchor that others refer to) is refused, never damaged.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.config import render, yamlfile
from relay.config.faults import ConfigError, Fault
from relay.config.load import load_text
from relay.config.nodes import Node, tree
from relay.config.validate import path_of

KeyPath = tuple[str | int, ...]
"""Such as ``("upstreams", 0, "port")``; a list's length as the number appends to it."""
_NAME = "configuration"
_BOM = "\ufeff"


def change(text: str, changes: Mapping[KeyPath, object]) -> str:
    """The text with these values set, in this order; None takes a key or a list's member out, if it is there.

    Values are texts, numbers, switches, dates, lists and mappings. Comments, order, quotes, line ends and a byte
    order mark stay. An empty text is a beginning too. Raises `ConfigError`: the text is no YAML, a key stands twice,
    a path leads through a plain value, or the change cannot be written without touching something else.
    """
    mark, body = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    for path, value in changes.items():
        body = _changed(body, path, value)
    return mark + body


def read(path: Path) -> str:
    """The file's text for `change`, line ends and byte order mark kept. Raises `ConfigError` when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        problem, remedy = "the file is not UTF-8 text", "save it with the encoding UTF-8"
    except OSError as error:
        problem, remedy = f"the file cannot be read ({error.strerror})", "check its name and its permissions"
    raise ConfigError([Fault("", None, problem, remedy, str(path))])


def store(path: Path, text: str, *, validate: bool = True) -> None:
    """Make this the file's content: after checking the whole, at once or not at all.

    The file's mode and owner stay; a new file gets mode 0600. What it held before goes to ``NAME.bak``, as closely
    kept. Raises `ConfigError` with every fault, or with why it cannot be written; the old file is untouched then.
    """
    if validate:
        load_text(text, path)
    try:
        _replace(Path(os.path.realpath(path)), text.encode("utf-8"))
    except OSError as error:
        problem = f"the file cannot be written ({error.strerror or error})"
        remedy = "run the command as the user the file belongs to (or root), and look for space and a writable folder"
        raise ConfigError([Fault("", None, problem, remedy, str(path))]) from error


# the text


def _changed(text: str, path: KeyPath, value: object) -> str:
    before = _data(text)
    if value is None and not _present(before, path):
        return text
    wanted = _with(before, path, value)
    new = _Surgery(text, before).apply(path, value)
    try:
        same = _data(new) == wanted
    except ConfigError:
        same = False
    if not same:
        raise _fault(
            path,
            "cannot be changed here without touching other values (an anchor, or an unusual form)",
            "edit the file by hand at this place",
        )
    return new


def _data(text: str) -> Any:
    document = yamlfile.parse(text, _NAME)
    if document.faults:
        raise ConfigError(document.faults)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise _fault((), "the file holds no keys", "begin with `upstreams:`, as config.example.yaml shows")
    return data


def _present(data: Any, path: KeyPath) -> bool:
    for step in path:
        inside = step in data if isinstance(data, dict) else _is_member(data, step)
        if not inside:
            return False
        data = data[step]
    return True


def _is_member(data: Any, step: str | int) -> bool:
    return isinstance(data, list) and isinstance(step, int) and 0 <= step < len(data)


def _with(data: Any, path: KeyPath, value: object) -> Any:
    """What the reader must give after the change; raises when the path leads nowhere."""
    if not path:
        return _as_read(value)
    step = path[0]
    if isinstance(step, int):
        return _with_member(data, step, path, value)
    if data is not None and not isinstance(data, dict):
        raise _fault(path, "is within something that holds no keys", "look at the lines around it")
    result = dict(data or {})
    if value is None and len(path) == 1:
        result.pop(step, None)
    else:
        result[step] = _with(result.get(step), path[1:], value)
    return result


def _with_member(data: Any, step: int, path: KeyPath, value: object) -> list[Any]:
    if (data is not None and not isinstance(data, list)) or not 0 <= step <= len(data or []):
        raise _fault(path, f"there is no member {step} here, and it is not the next one", "append one by one")
    result = list(data or [])
    if value is None and len(path) == 1:
        del result[step]
        return result
    inner = _with(result[step] if step < len(result) else None, path[1:], value)
    result[step : step + 1] = [inner]
    return result


def _as_read(value: object) -> Any:
    """What the relay's reader gives for a value: every scalar as its text."""
    if isinstance(value, Mapping):
        return {str(key): _as_read(one) for key, one in value.items()}
    if isinstance(value, str):
        return value
    if render.is_list(value):
        return [_as_read(one) for one in value]
    return None if value is None else render.text_of(value)


def _nested(path: KeyPath, value: object) -> object:
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


def _fault(path: KeyPath, problem: str, remedy: str) -> ConfigError:
    return ConfigError([Fault(path_of(path), None, problem, remedy, _NAME)])


class _Surgery:
    """One change to one text. Each method returns the new text."""

    def __init__(self, text: str, data: Any) -> None:
        self._text = text
        self._data = data
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def apply(self, path: KeyPath, value: object) -> str:
        """Find the deepest place that exists, and write there."""
        node = tree(self._text)
        if node is None or node.empty:
            return self._append_lines(render.block(_nested(path, value), 0), len(self._text))
        return self._descend(node, self._data, path, value)

    def _descend(self, node: Node, data: Any, path: KeyPath, value: object) -> str:
        step = path[0]
        found = self._child(node, step)
        if found is None:
            merged = isinstance(data, dict) and step in data  # by `<<`: an own entry with all of it overrides
            whole = _with(data[step], path[1:], value) if merged else _nested(path[1:], value)
            return self._add(node, step, whole)
        if len(path) == 1:
            return self._remove(node, step) if value is None else self._exchange(node, step, value)
        if found.kind in ("map", "list"):
            return self._descend(found, data[step], path[1:], value)
        return self._exchange(node, step, _with(data[step], path[1:], value))

    def _child(self, node: Node, step: str | int) -> Node | None:
        if isinstance(step, int):
            return node.items[step] if node.kind == "list" and step < len(node.items) else None
        pair = node.find(step) if node.kind == "map" else None
        return pair[1] if pair else None

    # adding

    def _add(self, node: Node, step: str | int, value: object) -> str:
        if node.flow or not node.items:
            return self._add_in_flow(node, step, value)
        lines = (
            render.item(value, node.column)
            if isinstance(step, int)
            else render.entry(step, value, node.column)
        )
        return self._append_lines(lines, self._line_end(node.end))

    def _add_in_flow(self, node: Node, step: str | int, value: object) -> str:
        shown = render.flow(value)
        new = shown if isinstance(step, int) else f"{render.scalar(step)}: {shown}"
        if node.items:
            return self._put(node.items[-1].end, node.items[-1].end, f", {new}")
        return self._put(node.start + 1, node.end - 1, new)

    def _append_lines(self, lines: list[str], place: int) -> str:
        """New lines behind the line that ends at this place."""
        whole = self._newline.join(lines)
        if place == 0 or self._text[place - 1] == "\n":
            return self._put(place, place, whole + self._newline)
        return self._put(
            place, place, self._newline + whole + (self._newline if place == len(self._text) else "")
        )

    # exchanging

    def _exchange(self, parent: Node, step: str | int, value: object) -> str:
        old = self._child(parent, step)
        assert old is not None
        one_line = parent.flow or render.inline(value)
        if (
            old.kind == "scalar"
            and old.style not in ("|", ">")
            and not isinstance(value, Mapping | list | tuple)
        ):
            blank = " " if old.start == old.end else ""
            return self._put(old.start, old.end, blank + render.scalar(value, old.style))
        if one_line and (old.flow or old.kind in ("scalar", "alias")) and old.start != old.end:
            return self._put(old.start, old.end, render.flow(value))
        return self._exchange_block(parent, step, old, value)

    def _exchange_block(self, parent: Node, step: str | int, old: Node, value: object) -> str:
        """From or to a form that has lines of its own; a comment behind the key stays."""
        head = self._head_end(parent, step)
        if render.inline(value) or parent.flow:
            first_line = self._text[head : self._line_end(head)]
            comment = first_line if self._line_end(head) <= old.start else ""
            return self._put(head, old.end, f" {render.flow(value)}{comment}")
        lines = render.block(value, parent.column + render.STEP)
        if self._line_end(head) <= old.start:
            return self._put(self._line_end(head), old.end, self._newline + self._newline.join(lines))
        rest = self._text[old.end : self._line_end(old.end)]
        return self._put(head, self._line_end(old.end), rest + self._newline + self._newline.join(lines))

    def _head_end(self, parent: Node, step: str | int) -> int:
        """Behind the colon of a key, or the dash of a member."""
        if isinstance(step, int):
            return self._dash(parent, step) + 1
        pair = parent.find(step)
        assert pair is not None
        return self._text.index(":", pair[0].end) + 1

    # removing

    def _remove(self, parent: Node, step: str | int) -> str:
        count = len(parent.values())
        if count == 1:
            return self._put(parent.start, parent.end, "{}" if parent.kind == "map" else "[]")
        number = step if isinstance(step, int) else [key.text for key, _ in parent.pairs()].index(step)
        start = self._start_of(parent, number)
        end = parent.values()[number].end
        if parent.flow:
            return self._remove_in_flow(parent, number, start, end)
        line = self._text.rfind("\n", 0, start) + 1
        if self._text[line:start].strip():  # behind a dash: what follows takes its place
            after = self._line_end(end)
            rest = self._text[after:]
            return self._text[:start] + rest.lstrip()
        return self._put(line, min(self._line_end(end) + len(self._newline), len(self._text)), "")

    def _remove_in_flow(self, parent: Node, number: int, start: int, end: int) -> str:
        if number + 1 < len(parent.values()):
            return self._put(start, self._start_of(parent, number + 1), "")
        return self._put(parent.values()[number - 1].end, end, "")

    def _start_of(self, parent: Node, number: int) -> int:
        if parent.kind == "map":
            return parent.items[2 * number].start
        return parent.items[number].start if parent.flow else self._dash(parent, number)

    def _dash(self, parent: Node, number: int) -> int:
        """The dash in front of a block list's member."""
        if number == 0:
            return parent.start
        place = parent.items[number - 1].end
        while True:
            place = self._text.index("\n", place) + 1
            line = self._text[place : self._line_end(place)]
            if line.lstrip(" ").startswith("-"):
                return place + len(line) - len(line.lstrip(" "))

    def _line_end(self, place: int) -> int:
        """Where the line of this place ends, its line break left out."""
        end = self._text.find("\n", place)
        if end < 0:
            return len(self._text)
        return end - 1 if end > place and self._text[end - 1] == "\r" else end

    def _put(self, start: int, end: int, new: str) -> str:
        return self._text[:start] + new + self._text[end:]


# the file


def _replace(file: Path, content: bytes) -> None:
    try:
        facts = file.stat()
    except FileNotFoundError:
        return write_whole(file, content)
    mode = stat.S_IMODE(facts.st_mode)
    write_whole(file.with_name(file.name + ".bak"), file.read_bytes(), mode=mode, owner=facts)
    return write_whole(file, content, mode=mode, owner=facts)


def write_whole(
    file: Path, content: bytes, *, mode: int = 0o600, owner: os.stat_result | None = None
) -> None:
    """Make this the file's content at once or not at all: beside it, synced, renamed over it.

    ``owner``: whose it is; None: ours. Raises OSError, and leaves nothing behind then.
    """
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            _own(opened.fileno(), mode, owner)
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    _sync_folder(file.parent)


def _own(handle: int, mode: int, owner: os.stat_result | None) -> None:
    if not hasattr(os, "fchown"):  # Windows
        return
    now = os.fstat(handle)
    if owner is not None and (now.st_uid, now.st_gid) != (owner.st_uid, owner.st_gid):
        os.fchown(
            handle, owner.st_uid, owner.st_gid
        )  # refused: better not at all than unreadable for its owner
    os.fchmod(handle, mode)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["KeyPath", "change", "read", "store", "write_whole"]
