"""The configuration file as the page changes it: what is typed, checked as a whole, stored at once or not at all."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.config import edit, yamlfile
from relay.config.faults import ConfigError, Fault
from relay.config.files import at_home
from relay.config.load import load_text
from relay.config.validate import path_of
from relay.errors import RelayError, SpoolError
from relay.settings import ClientSecret, Settings
from relay.web.desk import Desk

KeyPath = tuple[str | int, ...]
Changes = Mapping[KeyPath, object]
REFERENCES = ("env:", "file:", "credential:", "keyring:")
"""How a secret value that stands elsewhere begins."""
_FILE = "client-secret"


@dataclass(frozen=True, slots=True)
class Draft:
    """A change that is valid as a configuration, and not stored."""

    file: Path
    before: str
    after: str
    settings: Settings
    """What it would come to, the typed secret in it."""
    secret: str = ""
    """A secret that was typed and goes to a file of its own."""
    secret_path: KeyPath = ()

    def __repr__(self) -> str:
        return f"Draft({self.file})"


class ConfigFile:
    """The file behind the settings in force."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._one = asyncio.Lock()

    @property
    def file(self) -> Path | None:
        """Its path; None when the environment alone configures."""
        return self._desk.settings.file

    def obstacle(self) -> str:
        """Why nothing can be stored from here; empty when it can."""
        if self.file is None:
            return (
                "This relay is configured by environment variables alone. Change them where they are set "
                "(compose file, pod, service), then restart relay."
            )
        folder = Path(os.path.realpath(self.file)).parent
        if not os.access(self.file, os.R_OK) or not os.access(folder, os.W_OK):
            return (
                f"relay may not write {self.file} (it needs to write in the folder {folder}). "
                "Let it, as docs/admin-page.md shows, or edit the file and reload."
            )
        return ""

    async def data(self) -> dict[str, Any]:
        """What the file says, every value as it is written; empty without a file, or while it cannot be read."""
        if self.file is None:
            return {}
        document = await asyncio.to_thread(yamlfile.read, self.file)
        return document.data if isinstance(document.data, dict) and not document.faults else {}

    async def draft(self, changes: Changes, secret: str = "", secret_path: KeyPath = ()) -> Draft:
        """The file with these changes, judged as a whole. Raises ConfigError with every fault."""
        file = self._writable()
        return await asyncio.to_thread(_draft, file, changes, secret, secret_path)

    async def store(self, draft: Draft) -> str:
        """Write it down and put it in force; what could not be, is taken back. A warning, or empty.

        Raises ConfigError or RelayError: nothing was changed.
        """
        async with self._one:
            if await asyncio.to_thread(edit.read, draft.file) != draft.before:
                raise RelayError(
                    "the configuration file was changed by somebody else meanwhile; nothing was stored",
                    remedy="Look at the settings again, and save once more.",
                )
            undo = await asyncio.to_thread(_write, draft)
            try:
                await self._desk.reload()
            except SpoolError as error:
                return f"The settings are in force, but not all waiting mail was told: {error}"
            except (RelayError, OSError) as error:
                await asyncio.to_thread(undo)
                raise RelayError(
                    f"the new settings could not be put in force, so the old ones were put back: {error}",
                    remedy=getattr(error, "remedy", ""),
                ) from error
            return ""

    async def change(self, changes: Changes) -> str:
        """Draft and store in one step, for what needs no check of Microsoft's side. Raises as both do."""
        return await self.store(await self.draft(changes))

    def _writable(self) -> Path:
        obstacle = self.obstacle()
        if obstacle or self.file is None:
            raise ConfigError([Fault("", None, "nothing can be stored", obstacle, "configuration")])
        return self.file


def _draft(file: Path, changes: Changes, secret: str, secret_path: KeyPath) -> Draft:
    before = edit.read(file)
    after = edit.change(before, changes)
    settings = load_text(edit.change(after, {secret_path: secret}) if secret else after, file)
    if secret:
        _must_count(settings, secret, secret_path)
    return Draft(file, before, after, settings, secret, secret_path)


def _must_count(settings: Settings, secret: str, path: KeyPath) -> None:
    """Raises ConfigError when the environment would override the secret that was typed."""
    variable = dict(settings.variables).get(path_of(path))
    credential = settings.upstreams[int(path[1])].credential
    if variable is None or (isinstance(credential, ClientSecret) and credential.secret.reveal() == secret):
        return
    problem = f"would not count, since the environment variable {variable} is set and overrides it"
    remedy = f"change {variable} where it is set, or take it out there and restart relay; then save again"
    raise ConfigError([Fault(path_of(path), None, problem, remedy, variable)])


def _write(draft: Draft) -> Callable[[], None]:
    """Store the text, and the secret in its own file (mode 0600); how to take it back."""
    text, secret_file, old_secret = draft.after, None, None
    if draft.secret:
        secret_file, reference = _secret_place(draft)
        old_secret = secret_file.read_bytes() if secret_file.exists() else None
        _replace(secret_file, draft.secret.encode())
        text = edit.change(text, {draft.secret_path: reference})

    def undo() -> None:
        edit.store(draft.file, draft.before, validate=False)
        if secret_file is not None:
            _put_back(secret_file, old_secret)

    try:
        edit.store(draft.file, text)
    except BaseException:
        if secret_file is not None:
            _put_back(secret_file, old_secret)
        raise
    return undo


def _secret_place(draft: Draft) -> tuple[Path, str]:
    """The file of the secret and how the configuration names it: the one it names already, or a new one beside it."""
    folder = draft.file.absolute().parent
    value: Any = yamlfile.parse(draft.before, str(draft.file)).data
    for step in draft.secret_path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
    if isinstance(value, str) and value.startswith("file:"):
        name = value.removeprefix("file:").strip()
        return folder / at_home(name), value
    number = 1
    while (folder / _numbered(number)).exists():
        number += 1
    return folder / _numbered(number), f"file:{_numbered(number)}"


def _numbered(number: int) -> str:
    return _FILE if number == 1 else f"{_FILE}-{number}"


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all, readable by our account alone. Raises RelayError."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except OSError as error:
        raise RelayError(
            f"the secret's file {file} cannot be written ({error.strerror}); nothing was stored",
            remedy="Let relay write in that folder, or write the file yourself and reload.",
        ) from error


def _put_back(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink(missing_ok=True)
    else:
        _replace(file, content)
