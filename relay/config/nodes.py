"""Where each value of a YAML text stands, so that one can be exchanged and all the rest left as it is.

Positions are indexes of characters. Built from the parser's events: aliases keep a place of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(slots=True)
class Node:
    """One value. ``kind`` is scalar, map, list or alias; a map's ``items`` are key, value, key, value."""

    kind: str
    start: int
    end: int
    """Of a block map or list: where its last content ends, comments behind it left out."""
    column: int
    flow: bool = False
    style: str | None = None
    text: str = ""
    items: list[Node] = field(default_factory=list)

    def pairs(self) -> list[tuple[Node, Node]]:
        """Keys and values of a map."""
        return list(zip(self.items[::2], self.items[1::2], strict=True))

    def values(self) -> list[Node]:
        """Values of a map, members of a list."""
        return self.items[1::2] if self.kind == "map" else self.items

    def find(self, key: str) -> tuple[Node, Node] | None:
        """A map's own entry; merged ones (``<<``) are not its own."""
        return next((pair for pair in self.pairs() if pair[0].text == key), None)

    @property
    def empty(self) -> bool:
        """A value that was left out (``key:`` and nothing), or written as null."""
        return self.kind == "scalar" and self.style is None and self.text in ("", "~", "null", "Null", "NULL")


def tree(text: str) -> Node | None:
    """The root; None when there is no content. The text was read without a fault before."""
    stack: list[Node] = []
    root: Node | None = None
    # the pure Python parser: the C one counts octets in its marks, and a configuration is short
    for event in _events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            done, mark = stack.pop(), event.end_mark
            assert mark is not None
            done.end = mark.index if done.flow else _content_end(done)
            continue
        node = _node(event, text)
        if node is None:
            continue
        if stack:
            stack[-1].items.append(node)
        elif root is None:
            root = node
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(node)
    return root


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _node(event: Any, text: str) -> Node | None:
    if not isinstance(event, yaml.NodeEvent):
        return None
    mark: Any = event.start_mark
    stop: Any = event.end_mark
    start, end, column = mark.index, stop.index, mark.column
    if isinstance(event, yaml.ScalarEvent):
        if event.style in ("|", ">"):  # its mark is behind the line break and blank lines
            end = start + len(text[start:end].rstrip())
        return Node("scalar", start, end, column, style=event.style, text=event.value)
    if isinstance(event, yaml.AliasEvent):
        return Node("alias", start, end, column)
    kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
    return Node(kind, start, end, column, flow=bool(getattr(event, "flow_style", False)))


def _content_end(node: Node) -> int:
    return max((one.end for one in node.items), default=node.start)
