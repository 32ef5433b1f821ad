"""Checks a request's JSON against Microsoft's published schema, and the few rules that the schema cannot say.

Names, types and nesting come from `csdl`; only `REQUIRED`, `READ_ONLY` and the rules on header names are written
here, after the resource pages of message, attachment and attachmentItem.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import uuid
from collections.abc import Callable
from typing import Any

from relay.simulator import csdl
from relay.simulator import graph_errors as refusal
from relay.simulator.csdl import Property

REQUIRED: dict[str, tuple[str, ...]] = {
    "recipient": ("emailAddress",),
    "internetMessageHeader": ("name", "value"),
    "fileAttachment": ("name", "contentBytes"),
    "itemAttachment": ("name", "item"),
    "attachmentItem": ("attachmentType", "name", "size"),
    "keyCredential": ("type", "usage", "key"),
}
"""What a request cannot do without, although the schema lets it be null."""

READ_ONLY: dict[str, frozenset[str]] = {
    "entity": frozenset({"id"}),
    "outlookItem": frozenset({"changeKey", "createdDateTime", "lastModifiedDateTime"}),
    "attachment": frozenset({"lastModifiedDateTime"}),
    "message": frozenset(
        {
            "bodyPreview",
            "conversationId",
            "conversationIndex",
            "hasAttachments",
            "isDraft",
            "parentFolderId",
            "receivedDateTime",
            "sentDateTime",
            "uniqueBody",
            "webLink",
        }
    ),
}
"""What the service sets itself; the published schema has no mark for it."""

_BOUNDS = {"Edm.Int32": 2**31, "Edm.Int64": 2**63}


def check_message(message: Any, header_limit: int) -> None:
    """A message as it may be sent or drafted. Raises GraphError."""
    _check_object("message", "message", message)
    headers = message.get("internetMessageHeaders", [])
    for header in headers:
        if not header["name"].lower().startswith("x-"):
            raise refusal.bad_header(header["name"])
    if header_limit and len(headers) > header_limit:
        raise refusal.too_many_headers(header_limit)


def check_attachment(name: str, value: Any) -> None:
    """A fileAttachment or itemAttachment, as for a draft. Raises GraphError."""
    _check_object("attachment", name, value)


def check_attachment_item(name: str, value: Any) -> None:
    """An attachmentItem, as for an upload session. Raises GraphError."""
    _check_object("attachmentItem", name, value)


def check_parameters(action: str, request: dict[str, Any]) -> dict[str, Any]:
    """The parameters of an action under the schema's names, whatever their case was. Raises GraphError."""
    known = csdl.load().actions[action]
    by_case = {name.lower(): item for name, item in known.items()}
    found: dict[str, Any] = {}
    for key, value in request.items():
        if key.startswith("@"):
            continue
        parameter = by_case.get(key.lower())
        if parameter is None or parameter.name in found:
            raise refusal.bad_request(
                f"The parameter '{key}' in the request payload is not a valid parameter for the operation '{action}'."
            )
        _check_value(parameter, value)
        found[parameter.name] = value
    for name, parameter in known.items():
        if name not in found and not parameter.nullable:
            raise refusal.bad_request(
                f"The parameter '{name}' of the operation '{action}' is missing in the request payload."
            )
    return found


def check_send_request(request: dict[str, Any], header_limit: int) -> tuple[dict[str, Any], bool]:
    """The message of a sendMail request, and whether it is to be saved. Raises GraphError."""
    given = check_parameters("sendMail", request)
    check_message(given["Message"], header_limit)
    return given["Message"], given.get("SaveToSentItems") is not False


def check_upload_request(request: dict[str, Any]) -> dict[str, Any]:
    """The attachmentItem of a createUploadSession request. Raises GraphError."""
    item: dict[str, Any] = check_parameters("createUploadSession", request)["AttachmentItem"]
    if item["attachmentType"].lower() != "file":
        raise refusal.bad_request("Upload sessions of messages take attachments of type 'file'.")
    return item


def _check_object(declared: str, name: str, value: Any) -> str:
    """An object of the declared type or one derived from it; returns the type it is of. Raises GraphError."""
    if not isinstance(value, dict):
        raise refusal.bad_body(f"'{name}' should be an object of type 'microsoft.graph.{declared}'.")
    actual = _actual_type(declared, value)
    properties = csdl.load().properties(actual)
    for key, content in value.items():
        if key.startswith("@"):
            continue
        plain, at, annotation = key.partition("@")
        if plain not in properties:
            raise refusal.unknown_property(plain, actual)
        if at and annotation == "odata.bind":
            raise refusal.bad_body(f"The navigation property '{plain}' cannot be bound to existing entities.")
        if not at:
            _check_writable(actual, key)
            _check_value(properties[key], content)
    for key in REQUIRED.get(actual, ()):
        if value.get(key) is None:
            raise refusal.bad_body(f"The required property '{key}' of 'microsoft.graph.{actual}' is missing.")
    return actual


def _actual_type(declared: str, value: dict[str, Any]) -> str:
    schema = csdl.load()
    stated = value.get("@odata.type")
    actual = declared if stated is None else str(stated).removeprefix("#").removeprefix("microsoft.graph.")
    if declared not in schema.lineage(actual):
        raise refusal.bad_body(
            f"The type '{stated}' is not known, or not derived from 'microsoft.graph.{declared}'."
        )
    if schema.types[actual].abstract:
        raise refusal.bad_body(f"'microsoft.graph.{actual}' is abstract: an '@odata.type' is needed.")
    return actual


def _check_writable(actual: str, key: str) -> None:
    if any(key in READ_ONLY.get(ancestor, ()) for ancestor in csdl.load().lineage(actual)):
        raise refusal.read_only(key)


def _check_value(declared: Property, value: Any) -> None:
    if declared.collection:
        if not isinstance(value, list):
            raise refusal.bad_body(f"The property '{declared.name}' should be a collection: a StartArray.")
        for item in value:
            _check_single(declared, item)
    elif value is not None:
        _check_single(declared, value)
    elif not declared.nullable:
        raise refusal.bad_body(f"A null value was found for '{declared.name}', which is not nullable.")


def _check_single(declared: Property, value: Any) -> None:
    schema = csdl.load()
    if declared.type in schema.enums:
        members = {member.lower() for member in schema.enums[declared.type]}
        if not isinstance(value, str) or value.lower() not in members:
            raise refusal.bad_body(f"Requested value '{value}' was not found.")
    elif declared.type in schema.types:
        _check_object(declared.type, declared.name, value)
    elif declared.type in _PRIMITIVES:
        if not _PRIMITIVES[declared.type](value):
            raise refusal.bad_body(
                f"Cannot convert a primitive value to the expected type '{declared.type}' of '{declared.name}'."
            )
    elif not isinstance(value, dict | str):  # a type outside of the extract
        raise refusal.bad_body(f"'{declared.name}' should be of type 'microsoft.graph.{declared.type}'.")


def _is_number(bound: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and -bound <= value < bound


def _is_binary(value: Any) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    return isinstance(value, str)


def _is_moment(value: Any) -> bool:
    try:
        return datetime.datetime.fromisoformat(value).tzinfo is not None
    except (ValueError, TypeError):
        return False


def _is_guid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


_PRIMITIVES: dict[str, Callable[[Any], bool]] = {
    "Edm.String": lambda value: isinstance(value, str),
    "Edm.Boolean": lambda value: isinstance(value, bool),
    "Edm.Binary": _is_binary,
    "Edm.DateTimeOffset": _is_moment,
    "Edm.Guid": _is_guid,
    **{name: _is_number(bound) for name, bound in _BOUNDS.items()},
}
