"""The document against the model: every fault in plain words, and a model to run the cross checks on even so."""

from __future__ import annotations

from copy import copy
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.config.environment import VARIABLES
from relay.config.findings import Findings
from relay.config.model import Config
from relay.config.tree import close, generic, homes, keys, members
from relay.config.yamlfile import child

_ROUNDS = 8
"""Each round mends at least one level of nesting, and the model has five."""

Loc = tuple[int | str, ...]


def validate(data: dict[str, Any], findings: Findings) -> Config | None:
    """The model of this document; its faults are added to ``findings``.

    Faulty values are left out (or replaced by the model's examples) and the rest validated again, so that the
    cross checks can report on what is sound. None when not even that gives a model.
    """
    current: Any = data
    for attempt in range(_ROUNDS):
        try:
            return Config.model_validate(current)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            if attempt == 0 or not findings.faults:
                _report(details, findings)
            current = _mended(current, details)
    return None


def path_of(loc: Loc) -> str:
    """``('upstreams', 0, 'tenant_id')`` as ``upstreams[0].tenant_id``."""
    path = ""
    for step in loc:
        path = f"{path}[{step}]" if isinstance(step, int) else child(path, step)
    return path


def _report(details: list[ErrorDetails], findings: Findings) -> None:
    for detail in details:
        problem, remedy = _words(detail)
        findings.fault(path_of(detail["loc"]), problem, remedy)


def _words(detail: ErrorDetails) -> tuple[str, str]:
    """Problem and remedy of one of pydantic's errors. The value itself is never shown: it may be a secret."""
    path = path_of(detail["loc"])
    kind = detail["type"]
    if kind == "relay":
        context = detail.get("ctx", {})
        return str(context.get("problem", "")), str(context.get("remedy", ""))
    if kind == "extra_forbidden":
        return _unknown(detail["loc"])
    if kind == "missing":
        return "is missing", _how_to_give(path)
    if kind in ("tuple_type", "list_type"):
        return (
            "is not a list",
            "write it as a list: [first, second], or one line for each, beginning with `- `",
        )
    if kind.startswith("model"):
        return "is not a section of keys", f"write its keys below it: {', '.join(members(path)[:8])}"
    return detail["msg"].lower(), "see docs/configuration.md for what this key takes"


def _how_to_give(path: str) -> str:
    if path == "upstreams":
        return "describe the tenant and app registration: from_email, tenant_id, client_id and client_secret"
    field = keys().get(generic(path))
    words = (field.description or "") if field else ""
    names = [variable.name for variable in VARIABLES if variable.path == path]
    return f"add it, or set {names[0]}: {words}" if names else f"add it: {words}"


def _unknown(loc: Loc) -> tuple[str, str]:
    name, parent = str(loc[-1]), path_of(loc[:-1])
    known = members(parent)
    meant = close(name, known)
    if meant is not None:
        return "this key is not known", f"did you mean `{meant}`?"
    elsewhere = homes(name)
    if elsewhere:
        return "this key is not known here", f"it belongs at {' or '.join(elsewhere[:3])}"
    return "this key is not known", f"remove it; known here: {', '.join(known)}"


def _mended(data: Any, details: list[ErrorDetails]) -> Any:
    """A copy of the document in which each faulty value is left out, or replaced where one is required."""
    result = _copied(data)
    # From the back, so that taking a list's member out does not shift those still to come.
    for detail in sorted(details, key=lambda one: [str(step).zfill(9) for step in one["loc"]], reverse=True):
        _mend(result, detail)
    return result


def _mend(data: Any, detail: ErrorDetails) -> None:
    loc = detail["loc"]
    target = data
    for step in loc[:-1]:
        try:
            target = target[step]
        except (KeyError, IndexError, TypeError):
            return  # a section around it was taken out already
    _replace(target, loc, detail["type"])


def _replace(target: Any, loc: Loc, kind: str) -> None:
    step = loc[-1]
    if isinstance(target, list) and isinstance(step, int) and step < len(target):
        if kind.startswith("model"):
            target[step] = {}
        else:
            del target[step]
    elif isinstance(target, dict):
        field = keys().get(generic(path_of(loc)))
        target.pop(step, None)
        if field is not None and field.is_required() and kind != "extra_forbidden":
            target[step] = field.examples[0] if field.examples else [{}]


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_copied(value) for value in data]
    return copy(data)
