"""The model as a tree of key paths (`upstreams[].limits.connections`): for suggestions, documents and tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relay.config.model import Config

_INDEX = re.compile(r"\[[0-9]+\]")


@cache
def keys() -> dict[str, FieldInfo]:
    """Every key of the model by its path, list members shown as ``[]``, in the model's order."""
    return dict(_walk(Config, ""))


def generic(path: str) -> str:
    """The path with its list positions left open: ``upstreams[2].port`` becomes ``upstreams[].port``."""
    return _INDEX.sub("[]", path)


def members(path: str) -> list[str]:
    """Names of the keys that the section at this path takes."""
    prefix = f"{generic(path)}." if path else ""
    return [
        key.removeprefix(prefix) for key in keys() if key.startswith(prefix) and "." not in key[len(prefix) :]
    ]


def homes(name: str) -> list[str]:
    """Paths of the keys of this very name, anywhere in the model."""
    return [key for key in keys() if key.rpartition(".")[2] == name]


def close(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None."""
    by_form = {one.lower().replace("-", "_"): one for one in known}
    found = get_close_matches(name[:64].lower().replace("-", "_"), by_form, n=1, cutoff=0.6)
    return by_form[found[0]] if found else None


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        path = prefix + (field.alias or name)
        yield path, field
        inner, many = _section_of(field.annotation)
        if inner is not None:
            yield from _walk(inner, f"{path}[]." if many else f"{path}.")


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) in (Union, UnionType, tuple):
        for part in get_args(annotation):
            inner, many = _section_of(part)
            if inner is not None:
                return inner, many or get_origin(annotation) is tuple
    return None, False
