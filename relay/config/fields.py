"""The kinds of value a key can hold: a reader (`values`) and its form in the JSON Schema, together once."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from relay.config import urls, values
from relay.settings import Network

KB, MB, GB, TB = 1024, 1024**2, 1024**3, 1024**4
_CUT_HASH = re.compile(r"\s*\$argon2id\$v=\d+\$m=\d+\s*")
_HASH_PIECE = re.compile(r"t=\d+|p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
BATCHES = {"small": 10, "medium": 30, "large": 100}


class Section(BaseModel):
    """Base of all sections: unknown keys are faults, a key left empty means its default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True,
        protected_namespaces=(),
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class PasswordSection(Section):
    """A section with a ``password`` that is an argon2 hash."""

    @model_validator(mode="before")
    @classmethod
    def _rejoin_hash(cls, data: object) -> object:
        # A hash holds commas. Unquoted between braces, YAML cuts it there and takes the rest for empty keys.
        if not isinstance(data, dict) or not _CUT_HASH.fullmatch(str(data.get("password"))):
            return data
        rest = [key for key, value in data.items() if value is None and _HASH_PIECE.fullmatch(key)]
        joined = {key: value for key, value in data.items() if key not in rest}
        joined["password"] = ",".join([str(data["password"]).strip(), *rest])
        return joined


def _kind(read: Callable[[object], Any], **schema: object) -> tuple[PlainValidator, WithJsonSchema]:
    return PlainValidator(read), WithJsonSchema(dict(schema))


def _read_batch(value: object) -> int:
    text = values.text_of(value).lower()
    if text in BATCHES:
        return BATCHES[text]
    if not text.isdecimal():
        raise values.bad(
            "is neither a size name nor a number", "write small, medium, large, or a number from 1 to 1000"
        )
    return values.read_number(1, 1000)(text)


def _read_secret(value: object) -> str:
    if isinstance(value, list | dict):
        values.text_of(value)
    text = "" if value is None else str(value)
    if len(text) > 4096:
        raise values.bad("is longer than 4096 characters", "check that the right text was pasted")
    return text


def _read_path(value: object) -> str:
    text = values.text_of(value)
    if "\0" in text:
        raise values.bad("holds a NUL", "write the name of a file")
    return text


def _read_identity(value: object) -> str:
    text = values.text_of(value)
    if text.lower() == "system":
        return "system"
    try:
        return values.read_guid(text)
    except ValueError:
        raise values.bad(
            "is neither `system` nor a client id", "write system, or the identity's client id"
        ) from None


def _read_from(value: object) -> str:
    text = values.text_of(value)
    return "keep" if text.lower() == "keep" else values.read_address(text)


def _read_reply_to(value: object) -> str:
    text = values.text_of(value)
    return text.lower() if text.lower() in ("original", "none") else values.read_address(text)


def _read_client(value: object) -> str | Network:
    text = values.text_of(value)
    return text if text.startswith("user:") and len(text) > 5 else values.read_network(text)


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


_TEXT_OR_NUMBER = ["string", "integer"]
_DURATION = r"^[0-9]+(\.[0-9]+)? ?[smhdwSMHDW]?$"
_SIZE = r"^[0-9]+(\.[0-9]+)? ?([KMGTkmgt][Ii]?)?[Bb]?$"
_GUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"

Text = Annotated[str, *_kind(values.read_text, type="string", minLength=1)]
Command = Annotated[str, *_kind(values.text_of, type="string", minLength=1)]
Switch = Annotated[bool, *_kind(values.read_switch, type="boolean")]
Duration = Annotated[
    float, *_kind(values.read_duration, type=[*_TEXT_OR_NUMBER, "number"], pattern=_DURATION)
]
DurationOrNone = Annotated[
    float, *_kind(values.read_duration_or_none, type=[*_TEXT_OR_NUMBER, "number"], pattern=_DURATION)
]
Guid = Annotated[str, *_kind(values.read_guid, type="string", pattern=_GUID)]
Tenant = Annotated[str, *_kind(values.read_tenant, type="string")]
Host = Annotated[str, *_kind(values.read_host, type="string")]
Bind = Annotated[str, *_kind(values.read_bind, type="string", pattern="^.+:[0-9]{1,5}$")]
Net = Annotated[Network, *_kind(values.read_network, type="string")]
Address = Annotated[str, *_kind(values.read_address, type="string", pattern="@")]
Addresses = Annotated[
    tuple[Address, ...],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Pattern = Annotated[str, *_kind(values.read_pattern, type="string", minLength=1)]
SenderPattern = Annotated[str, *_kind(values.read_sender_pattern, type="string", minLength=1)]
HttpsUrl = Annotated[str, *_kind(urls.read_https_url, type="string", pattern="^https://")]
WebUrl = Annotated[str, *_kind(urls.read_web_url, type="string", pattern="^https?://")]
Proxy = Annotated[str, *_kind(urls.read_proxy, type="string", pattern="^http://")]
SpoolUrl = Annotated[str, *_kind(urls.read_spool_url, type="string", pattern="^(sqlite:///|postgresql://)")]
LocalSpoolUrl = Annotated[str, *_kind(urls.read_local_spool_url, type="string", pattern="^sqlite:///")]
Day = Annotated[datetime.date, *_kind(values.read_date, type="string", format="date")]
SecretText = Annotated[str, *_kind(_read_secret, type="string")]
FilePath = Annotated[str, *_kind(_read_path, type="string", minLength=1)]
Batch = Annotated[
    int, *_kind(_read_batch, anyOf=[{"enum": [*BATCHES]}, {"type": "integer", "minimum": 1, "maximum": 1000}])
]
Identity = Annotated[str, *_kind(_read_identity, type="string")]
From = Annotated[str, *_kind(_read_from, type="string")]
ReplyTo = Annotated[str, *_kind(_read_reply_to, type="string")]
ClientMatch = Annotated[str | Network, *_kind(_read_client, type="string")]


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise values.bad("is empty", "give at least one, or remove the key")
    return value


# Not pydantic's min_length: it counts the members left over, and so blames the list for a faulty member.
NOT_EMPTY = (AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1}))


def whole(low: int, high: int) -> tuple[PlainValidator, WithJsonSchema]:
    """Metadata of a whole number within bounds."""
    return _kind(values.read_number(low, high), type="integer", minimum=low, maximum=high)


def octets(low: int, high: int) -> tuple[PlainValidator, WithJsonSchema]:
    """Metadata of a size within bounds."""
    return _kind(values.read_size(low, high), type=_TEXT_OR_NUMBER, pattern=_SIZE)


def choice(*names: str) -> tuple[PlainValidator, WithJsonSchema]:
    """Metadata of one of a few words."""
    return _kind(values.read_choice(*names), type="string", enum=list(names))
