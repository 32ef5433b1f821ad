"""The settings form as tables: which fields there are, in the guide's order and words, and how they become changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.config.faults import ConfigError
from relay.config.validate import path_of

KeyPath = tuple[str | int, ...]
_IS_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
"""Written as a number, without quotes: how a person would write it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form."""

    key: tuple[str, ...]
    """Below its section."""
    label: str
    hint: str = ""
    step: int | None = None
    """The guide's step that speaks of it."""
    kind: str = "text"
    """``text``, ``number``, ``email``, ``secret``, ``list`` or ``select``."""
    options: tuple[tuple[str, str], ...] = ()
    """Of a ``select``: value and label; the first is the default."""
    placeholder: str = ""
    size: str = ""
    """``short`` for fields of a few characters."""

    @property
    def name(self) -> str:
        """The field's name in the form."""
        return ".".join(self.key)


@dataclass(frozen=True, slots=True)
class Filled:
    """A field with what it shows."""

    field: Field
    value: str
    fault: str = ""
    remedy: str = ""
    variable: str = ""
    """The environment variable that decides instead; the field cannot be changed here then."""
    is_set: bool = False
    """Of a secret: whether there is one."""


EIGHT = (
    Field(("server_name",), "Server Name", "Any logical name.", 7),
    Field(("port",), "Port", "Exchange Online takes mail on 587.", 7, "number", placeholder="587", size="short"),
    Field(("timeout",), "Timeout", "Seconds for each network step, or 30s, 2m.", 7, placeholder="120", size="short"),
    Field(
        ("batch_size",), "Batch Size", "Messages over one connection. Medium is recommended.", 7, "select",
        (("medium", "Medium (30)"), ("small", "Small (10)"), ("large", "Large (100)")),
    ),
    Field(("from_email",), "From Email", "Any user within the tenant; better a service account.", 7, "email"),
    Field(("client_id",), "Client ID", "Application (client) ID, from the app's Overview page.", 6),
    Field(("client_secret",), "Client Secret Token", "The secret's Value, not its ID.", 5, "secret"),
    Field(("tenant_id",), "Tenant ID", "Directory (tenant) ID, from the app's Overview page.", 6),
)  # fmt: skip
"""The guide's eight fields."""
ADVANCED = (
    Field(
        ("transport",), "Transport", "Automatic reads the token's permissions and decides.", None, "select",
        (("auto", "Automatic"), ("smtp", "SMTP (XOAUTH2)"), ("graph", "Microsoft Graph")),
    ),
    Field(
        ("cloud",), "Cloud", "The Microsoft cloud of the tenant.", None, "select",
        (("public", "Public, GCC"), ("gcc-high", "GCC High"), ("dod", "DoD"), ("china", "China (21Vianet)")),
    ),
    Field(("client_secret_expires",), "Secret expires on", "For the countdown and reminders: YYYY-MM-DD.", 5,
          placeholder="2028-11-01", size="short"),
    Field(("proxy",), "HTTP proxy", "For tokens, Graph, and SMTP by CONNECT.", placeholder="http://proxy.example:3128"),
    Field(("ca_file",), "Extra CA file", "PEM certificates trusted in addition to the system's."),
    Field(("host",), "SMTP host", "Only when it is not the cloud's own.", placeholder="smtp.office365.com"),
    Field(("authority",), "Token authority", "Only when it is not the cloud's own.",
          placeholder="https://login.microsoftonline.com"),
    Field(("graph_url",), "Graph address", "Only when it is not the cloud's own.",
          placeholder="https://graph.microsoft.com"),
    Field(("limits", "connections"), "Connections at once", "For each mailbox. Exchange takes 3.", None, "number",
          placeholder="2", size="short"),
    Field(("limits", "messages_per_minute"), "Messages a minute", "For each mailbox. Exchange takes 30; 0: no limit.",
          None, "number", placeholder="30", size="short"),
    Field(("limits", "recipients_per_day"), "Recipients a day", "For each mailbox. Exchange takes 10,000; 0: no limit.",
          None, "number", placeholder="10000", size="short"),
    Field(("limits", "recipients_per_message"), "Recipients of one message", "More are split over several.", None,
          "number", placeholder="500", size="short"),
    Field(("limits", "message_size"), "Largest message", "Exchange's default is 35MB.", placeholder="35MB", size="short"),
)  # fmt: skip
LISTENER = (
    Field(("bind",), "Address and port", "127.0.0.1 is this machine alone; 0.0.0.0 is every IPv4 address of it.",
          placeholder="127.0.0.1:25"),
    Field(("allow",), "Networks that may connect", "Separated by commas. Needed beyond this machine, or require a login.",
          None, "list", placeholder="192.168.10.0/24, fd00::/8"),
    Field(("auth",), "Login of clients", "With a name and password from clients.", None, "select",
          (("none", "None"), ("optional", "Optional"), ("required", "Required"))),
    Field(("tls", "mode"), "Encryption", "Automatic takes STARTTLS and a bare TLS hello on the same port.", None, "select",
          (("none", "None"), ("starttls", "STARTTLS"), ("implicit", "TLS from the start"), ("auto", "Automatic"))),
    Field(("tls", "certificate"), "Certificate file", "PEM, with its chain."),
    Field(("tls", "key"), "Key file", "PEM, without passphrase."),
    Field(("tls", "minimum"), "Oldest TLS version", "1.0 only for old devices.", None, "select",
          (("1.2", "1.2"), ("1.3", "1.3"), ("1.1", "1.1"), ("1.0", "1.0"))),
    Field(("answer_after",), "Answer 250", "When a client is told that its mail is safe.", None, "select",
          (("spool", "Once it is on disk"), ("upstream", "Once Exchange has it"))),
    Field(("newlines",), "Line ends", "Tolerant is for devices that end lines with LF alone.", None, "select",
          (("strict", "Strict"), ("tolerant", "Tolerant"))),
    Field(("limits", "message_size"), "Largest message", "", placeholder="35MB", size="short"),
    Field(("limits", "messages_per_minute_per_client"), "Messages a minute from one client", "0 means no limit.", None,
          "number", placeholder="0", size="short"),
)  # fmt: skip
SENDER = (
    Field(("match",), "Sender", "An address, *@domain, * for everybody, or a /regular expression/.",
          placeholder="*@scanners.local"),
    Field(("client",), "Only from", "Optional: a network, or user:NAME.", placeholder="192.168.10.0/24"),
    Field(("from",), "New From address", "An address of the tenant, or keep. Empty: the upstream's From Email.",
          placeholder="scans@contoso.com"),
    Field(("login",), "Mailbox to submit as", "Empty: the From address. Several, separated by commas, are a pool.", None,
          "list"),
    Field(("name",), "Display name", "keep, address (shows the original address), or a text.", placeholder="keep"),
    Field(("reply_to",), "Reply-To", "original (the original sender), none, or an address.", placeholder="original"),
    Field(("upstream",), "Server Name", "Of the upstream. Empty: the first."),
)  # fmt: skip


def raw(section: Any, key: Iterable[str]) -> str:
    """What the file says at a key of a section, as one text; empty when it says nothing."""
    for step in key:
        section = section.get(step) if isinstance(section, dict) else None
    if isinstance(section, list):
        return ", ".join(str(one) for one in section)
    return "" if section is None or isinstance(section, dict) else str(section)


def filled(
    fields: Iterable[Field],
    section: Any,
    at: KeyPath,
    *,
    typed: Mapping[str, str] | None = None,
    faults: ConfigError | None = None,
    variables: Mapping[str, str] | None = None,
    secret_set: bool = False,
    effective: Any = None,
) -> list[Filled]:
    """The fields of a section with what the file says, or what was ``typed``, and their faults.

    Where the environment decides, with what is in force (``effective``).
    """
    found = {one.path: one for one in faults.faults} if faults else {}
    shown = []
    for field in fields:
        path = path_of((*at, *field.key))
        fault = found.get(path) or found.get(path + "[0]")
        variable = (variables or {}).get(path, "")
        value = raw(section, field.key) if typed is None else typed.get(field.name, "")
        if variable and effective is not None:
            value = raw(effective, field.key)
        shown.append(
            Filled(
                field,
                "" if field.kind == "secret" else value,
                fault.problem if fault else "",
                fault.remedy if fault else "",
                variable,
                field.kind == "secret" and secret_set,
            )
        )
    return shown


def options(field: Field, value: str) -> list[tuple[str, str]]:
    """The choices of a select; a value that is none of them (a batch size given as a number) is one more."""
    known = list(field.options)
    if value and value not in [one for one, _ in known]:
        known.append((value, value))
    return known


def changes(
    fields: Iterable[Field], section: Any, at: KeyPath, typed: Mapping[str, str]
) -> dict[KeyPath, object]:
    """What the file must say differently: only what was really changed, so that the rest stays letter by letter."""
    wanted: dict[KeyPath, object] = {}
    for field in fields:
        if field.kind == "secret" or field.name not in typed:
            continue
        before, after = raw(section, field.key), typed[field.name]
        if after == before or (not before and field.options and after == field.options[0][0]):
            continue
        if not after:
            wanted[(*at, *field.key)] = None
        elif field.kind == "list":
            wanted[(*at, *field.key)] = parts(after)
        else:
            wanted[(*at, *field.key)] = int(after) if _IS_NUMBER.fullmatch(after) else after
    return wanted


def parts(text: str) -> list[str]:
    """The members of a list that is typed with commas or lines."""
    return [one.strip() for one in text.replace("\n", ",").split(",") if one.strip()]


def section_of(fields: Iterable[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """A whole new section from a form: a listener, a sender rule."""
    made: dict[str, Any] = {}
    for path, value in changes(fields, {}, (), typed).items():
        target = made
        for step in path[:-1]:
            target = target.setdefault(str(step), {})
        target[str(path[-1])] = value
    return made


def elsewhere(faults: ConfigError, shown: Iterable[Filled]) -> list[str]:
    """Faults that no field of the form shows, as sentences."""
    beside = {(one.fault, one.remedy) for one in shown if one.fault}
    return [str(one) for one in faults.faults if (one.problem, one.remedy) not in beside]
