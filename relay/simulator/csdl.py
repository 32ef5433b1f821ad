"""Microsoft's own schema of the mail types, read from ``data/graph-mail.csdl.xml`` (OData CSDL 4.01, section 6 on).

The file is an unchanged extract of what Microsoft publishes, so that no rule about names and types is ours.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).parent / "data" / "graph-mail.csdl.xml"
_EDM = "{http://docs.oasis-open.org/odata/ns/edm}"
_ALIAS = "graph."
_COLLECTION = "Collection("


@dataclass(frozen=True)
class Property:
    """One property, navigation property or action parameter. ``type`` is short (``recipient``) or ``Edm.*``."""

    name: str
    type: str
    collection: bool
    nullable: bool
    navigation: bool = False


@dataclass(frozen=True)
class Type:
    """A complex or entity type with its own properties; ``base`` is empty when it has none."""

    name: str
    base: str
    abstract: bool
    properties: dict[str, Property]


@dataclass(frozen=True)
class Schema:
    """Everything in the file: enums by name with their members, types, and actions with their parameters."""

    enums: dict[str, frozenset[str]] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    actions: dict[str, dict[str, Property]] = field(default_factory=dict)

    def lineage(self, name: str) -> list[str]:
        """The type and its bases, nearest first."""
        found: list[str] = []
        while name in self.types:
            found.append(name)
            name = self.types[name].base
        return found

    def properties(self, name: str) -> dict[str, Property]:
        """All properties of a type, inherited ones among them."""
        every: dict[str, Property] = {}
        for ancestor in reversed(self.lineage(name)):
            every.update(self.types[ancestor].properties)
        return every


@functools.cache
def load() -> Schema:
    """Read the file, once for the process."""
    root = ElementTree.parse(DATA).getroot()  # noqa: S314 - our own package data
    schema = Schema()
    for element in root.iter(f"{_EDM}EnumType"):
        members = (member.get("Name", "") for member in element.iter(f"{_EDM}Member"))
        schema.enums[element.get("Name", "")] = frozenset(members)
    for tag in ("ComplexType", "EntityType"):
        for element in root.iter(_EDM + tag):
            read = _type(element)
            schema.types[read.name] = read
    for element in root.iter(f"{_EDM}Action"):
        parameters = [_property(item) for item in element.iter(f"{_EDM}Parameter")]
        schema.actions[element.get("Name", "")] = {
            item.name: item for item in parameters if item.name != "bindingParameter"
        }
    return schema


def _type(element: ElementTree.Element) -> Type:
    found = [_property(item) for item in element.iter(f"{_EDM}Property")]
    found += [_property(item, navigation=True) for item in element.iter(f"{_EDM}NavigationProperty")]
    return Type(
        name=element.get("Name", ""),
        base=element.get("BaseType", "").removeprefix(_ALIAS),
        abstract=element.get("Abstract") == "true",
        properties={item.name: item for item in found},
    )


def _property(element: ElementTree.Element, *, navigation: bool = False) -> Property:
    written = element.get("Type", "")
    collection = written.startswith(_COLLECTION)
    single = written.removeprefix(_COLLECTION).removesuffix(")") if collection else written
    return Property(
        name=element.get("Name", ""),
        type=single.removeprefix(_ALIAS),
        collection=collection,
        nullable=element.get("Nullable") != "false" and not collection,
        navigation=navigation,
    )
