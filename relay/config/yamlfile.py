"""YAML to plain values with line numbers: no tags, no duplicate keys, no document that grows when it is read.

Every scalar is handed on as its text (or None), and the model reads numbers, switches and dates from that:
`0587`, `1.2`, `no` and `12:30` therefore mean what they show, and a file and the environment are read alike.
The tree is built from the parser's events with a stack of our own, so depth is bounded before it can hurt.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from relay.config.faults import Fault, printable

MAX_OCTETS = 1024 * 1024
MAX_DEPTH = 40
"""Levels of nesting; the deepest key of the model sits at five."""
MAX_NODES = 200_000
"""Values after aliases are followed: a file of 1 MB without aliases stays under it in practice."""
_TOO_DEEP, _DEEPEST = "the file is nested too deeply", "a configuration has at most five levels"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")
)


@dataclass(slots=True)
class Document:
    """What a file said: values, the line of each path, and the faults of its form."""

    data: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    line: int
    kind: str
    """``scalar``, ``map`` or ``list``."""
    text: str | None = None
    items: list[_Node] = field(default_factory=list)
    """Members; a mapping's are key, value, key, value."""


class _Unusable(Exception):
    def __init__(self, problem: str, remedy: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.line = problem, remedy, line


def read(path: Path) -> Document:
    """The file's content. Faults of form are in the result, nothing is raised for what a file may hold."""
    source = str(path)
    try:
        return parse(_text(path), source)
    except _Unusable as fault:
        return Document(faults=[Fault("", fault.line, fault.problem, fault.remedy, source)])


def parse(text: str, source: str) -> Document:
    """Like `read`, for text already in memory."""
    document = Document()
    try:
        root = _tree(text)
        if root is not None:
            document.data = _Expansion(document, source).value(root, "", 0)
    except _Unusable as fault:
        document.faults.append(Fault("", fault.line, fault.problem, fault.remedy, source))
    except yaml.YAMLError as error:
        document.faults.append(_syntax_fault(error, text, source))
    return document


def child(path: str, key: str) -> str:
    """The path of a mapping's member."""
    return f"{path}.{printable(key)}" if path else printable(key)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except FileNotFoundError:
        raise _Unusable(
            "the file does not exist", "create it, or name another with --config or RELAY_CONFIG"
        ) from None
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise _Unusable(
            f"the file cannot be read ({reason})", "check that it is a file the relay's user may read"
        ) from None
    if len(octets) > MAX_OCTETS:
        raise _Unusable(
            "the file is larger than 1 MB", "a configuration is far smaller: check the file's name"
        )
    return _decoded(octets)


def _decoded(octets: bytes) -> str:
    # Windows editors and PowerShell write a byte order mark, and sometimes UTF-16.
    encoding = "utf-16" if octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return octets.decode(encoding)
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise _Unusable("the file is not UTF-8 text", "save it with the encoding UTF-8", line) from None


def _syntax_fault(error: yaml.YAMLError, text: str, source: str) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else None
    problem = printable(
        str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it is broken"), 120
    )
    if "nesting depth" in problem:  # libyaml's own bound, lower than ours where it is newer
        return Fault("", line, _TOO_DEEP, _DEEPEST, source)
    remedy = "check the indentation, the colons and the quotes at this line and the one above"
    lines = text.splitlines()
    if line is not None and line <= len(lines) and "\t" in lines[line - 1]:
        remedy = "indent with blanks: YAML does not take tabs"
    elif "escape" in problem:
        remedy = "put text with backslashes in single quotes"
    return Fault("", line, f"this is not valid YAML: {problem}", remedy, source)


def _tree(text: str) -> _Node | None:
    """The node tree, aliases shared; None for an empty document."""
    builder = _Builder()
    loader = _LOADER(text)
    try:
        for event in _events(loader):
            builder.take(event)
    finally:
        loader.dispose()
    return builder.root


def _events(loader: Any) -> Iterator[Any]:
    while loader.check_event():
        yield loader.get_event()


class _Builder:
    """Turns parser events into nodes without recursion."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self._open: list[tuple[_Node, str | None]] = []
        self._anchors: dict[str, _Node] = {}

    def take(self, event: Any) -> None:
        """Consume one event; raises `_Unusable` for what we do not accept."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self._place(self._aliased(str(event.anchor), line))
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event.tag, line)
            node = _Node(line, "scalar", _scalar(event))
            self._remember(event.anchor, node)
            self._place(node)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._refuse_tag(event.tag, line)
            self._start(
                _Node(line, "map" if isinstance(event, yaml.MappingStartEvent) else "list"), event.anchor
            )
        elif isinstance(event, yaml.CollectionEndEvent):
            node, anchor = self._open.pop()
            self._remember(anchor, node)

    def _start(self, node: _Node, anchor: str | None) -> None:
        self._place(node)
        self._open.append((node, anchor))
        if len(self._open) > MAX_DEPTH:
            raise _Unusable(_TOO_DEEP, _DEEPEST, node.line)

    def _place(self, node: _Node) -> None:
        if self._open:
            self._open[-1][0].items.append(node)
        elif self.root is None:
            self.root = node
        else:
            raise _Unusable(
                "the file holds a second document", "remove the line `---` and what follows", node.line
            )

    def _remember(self, anchor: str | None, node: _Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _aliased(self, anchor: str, line: int) -> _Node:
        # An anchor is remembered when its node is complete, so that a node can never hold itself.
        if anchor not in self._anchors:
            raise _Unusable(
                f"the alias *{printable(anchor)} has no anchor above it", "write the value out instead", line
            )
        return self._anchors[anchor]

    def _refuse_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag != "!" and tag not in _PLAIN_TAGS:
            raise _Unusable(f"the tag {printable(tag)} is not allowed here", "write the plain value", line)


def _scalar(event: Any) -> str | None:
    null_tag = event.tag == "tag:yaml.org,2002:null"
    if null_tag or (event.tag is None and not event.style and event.value in _NULLS):
        return None
    return str(event.value)


class _Expansion:
    """Follows aliases and notes the line of each path; what it may produce is bounded."""

    def __init__(self, document: Document, source: str) -> None:
        self._document = document
        self._source = source
        self._count = 0

    def value(self, node: _Node, path: str, depth: int) -> Any:
        """The node as dict, list, text or None. At most `MAX_DEPTH` levels are entered."""
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise _Unusable(
                "the file grows too large when its aliases are followed", "write values out", node.line
            )
        self._document.lines.setdefault(path, node.line)
        if node.kind == "scalar":
            return node.text
        if node.kind == "list":
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.items)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: _Node, path: str, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[_Node] = []
        for key, value in zip(node.items[::2], node.items[1::2], strict=True):
            name = self._key(key)
            if name == "<<":
                merged += value.items if value.kind == "list" else [value]
            elif name in own:
                self._duplicate(child(path, name), key.line)
            else:
                self._document.lines.setdefault(child(path, name), key.line)
                own[name] = self.value(value, child(path, name), depth + 1)
        return self._merge(own, merged, path, depth)

    def _merge(self, own: dict[str, Any], merged: list[_Node], path: str, depth: int) -> dict[str, Any]:
        for node in merged:
            if node.kind != "map":
                raise _Unusable(
                    "`<<` takes a mapping", "name an anchor of a mapping, as in `<<: *name`", node.line
                )
            for name, value in self._mapping(node, path, depth + 1).items():
                own.setdefault(name, value)
        return own

    def _key(self, node: _Node) -> str:
        if node.kind != "scalar":
            raise _Unusable(
                "a key must be a plain word", "check the brackets and braces of this line", node.line
            )
        return "null" if node.text is None else node.text

    def _duplicate(self, path: str, line: int) -> None:
        self._document.faults.append(
            Fault(path, line, "this key is given twice", f"keep one of them (the other is at line "
                  f"{self._document.lines[path]})", self._source)
        )  # fmt: skip
