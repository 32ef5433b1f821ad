"""Checks a request's JSON against Graph's published types (message, recipient, itemBody, attachment and so on)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from relay.simulator import graph_errors as refusal

Check = Callable[[str, Any], None]


def _of(kind: type, called: str) -> Check:
    def check(name: str, value: Any) -> None:
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise refusal.bad_body(f"Cannot convert the value of '{name}' to the expected type '{called}'.")

    return check


_text, _flag, _number = _of(str, "Edm.String"), _of(bool, "Edm.Boolean"), _of(int, "Edm.Int64")


def _choice(*members: str) -> Check:
    def check(name: str, value: Any) -> None:
        if value is not None and (not isinstance(value, str) or value.lower() not in members):
            raise refusal.bad_body(f"Requested value '{value}' of '{name}' was not found.")

    return check


def _many(one: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise refusal.bad_body(f"'{name}' should be a collection.")
        for item in value:
            one(name, item)

    return check


def _record(called: str, properties: dict[str, Check], *, required: tuple[str, ...] = ()) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise refusal.bad_body(f"'{name}' should be an object of type '{called}'.")
        for key, content in value.items():
            if key.startswith("@"):
                continue
            if key not in properties:
                raise refusal.bad_body(
                    f"The property '{key}' does not exist on type '{called}'. Make sure to only use property names "
                    "that are defined by the type."
                )
            properties[key](key, content)
        for key in required:
            if value.get(key) is None:
                raise refusal.bad_body(f"The required property '{key}' of '{called}' is missing.")

    return check


def _binary(name: str, value: Any) -> None:
    _text(name, value)
    try:
        base64.b64decode(value or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal.bad_body(
            f"Cannot convert the value of '{name}' to the expected type 'Edm.Binary'."
        ) from error


_address = _record("microsoft.graph.emailAddress", {"address": _text, "name": _text})
_recipient = _record("microsoft.graph.recipient", {"emailAddress": _address}, required=("emailAddress",))
_recipients = _many(_recipient)
_body = _record("microsoft.graph.itemBody", {"content": _text, "contentType": _choice("text", "html")})
_header = _record(
    "microsoft.graph.internetMessageHeader", {"name": _text, "value": _text}, required=("name", "value")
)
_attachment_properties: dict[str, Check] = {
    "name": _text,
    "contentType": _text,
    "contentBytes": _binary,
    "contentId": _text,
    "contentLocation": _text,
    "isInline": _flag,
    "size": _number,
}


def check_attachment(name: str, value: Any) -> None:
    """A fileAttachment; the other kinds carry no file and are not stood in for. Raises GraphError."""
    if not isinstance(value, dict) or value.get("@odata.type") != "#microsoft.graph.fileAttachment":
        raise refusal.bad_body("An attachment needs '@odata.type': '#microsoft.graph.fileAttachment'.")
    _record("microsoft.graph.fileAttachment", _attachment_properties, required=("name", "contentBytes"))(
        name, value
    )


check_attachment_item = _record(
    "microsoft.graph.attachmentItem",
    {
        "attachmentType": _choice("file", "item", "reference"),
        "contentId": _text,
        "contentType": _text,
        "isInline": _flag,
        "name": _text,
        "size": _number,
    },
    required=("attachmentType", "name", "size"),
)

_check_message = _record(
    "microsoft.graph.message",
    {
        "subject": _text,
        "body": _body,
        "from": _recipient,
        "sender": _recipient,
        "toRecipients": _recipients,
        "ccRecipients": _recipients,
        "bccRecipients": _recipients,
        "replyTo": _recipients,
        "attachments": _many(check_attachment),
        "internetMessageHeaders": _many(_header),
        "internetMessageId": _text,
        "importance": _choice("low", "normal", "high"),
        "isDeliveryReceiptRequested": _flag,
        "isReadReceiptRequested": _flag,
        "isRead": _flag,
        "isDraft": _flag,
        "categories": _many(_text),
        "sentDateTime": _text,
    },
)


def check_message(message: Any, header_limit: int) -> None:
    """A message as it may be sent or drafted. Raises GraphError."""
    _check_message("message", message)
    headers = message.get("internetMessageHeaders", [])
    for header in headers:
        if not header["name"].lower().startswith("x-"):
            raise refusal.bad_header(header["name"])
    if header_limit and len(headers) > header_limit:
        raise refusal.too_many_headers(header_limit)


def check_send_request(request: Any, header_limit: int) -> None:
    """The parameters of the sendMail action; their names are read without regard to case. Raises GraphError."""
    if not isinstance(request, dict) or set(request) - {"message", "saveToSentItems"}:
        raise refusal.bad_request("The parameters of sendMail are message and saveToSentItems.")
    _flag("saveToSentItems", request.get("saveToSentItems"))
    if request.get("message") is None:
        raise refusal.bad_request("The parameter 'message' is missing.")
    check_message(request["message"], header_limit)
