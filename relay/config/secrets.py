"""Secret values: `env:NAME`, `file:PATH`, `credential:NAME`, `keyring:NAME`, or written plainly."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path

from relay.config import files
from relay.config.faults import printable
from relay.config.findings import Findings
from relay.settings import Secret

ARGON2 = re.compile(r"\$argon2id\$v=\d{1,3}\$m=\d{1,9},t=\d{1,6},p=\d{1,5}\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
INLINE_HASH = "argon2 hash"
"""`Secret.source` of a hash written in the file: nothing to hide from its readers, unlike a plain secret."""
_KEYRING_SERVICE = "relay"
_CREDENTIALS_OF_SERVICE = Path("/run/credentials/relay.service")
"""Where root finds the running service's credentials: commands by hand need the same configuration."""
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,255}")


class SecretReader:
    """Reads secret values where a configuration says they are; what is wrong goes to the findings."""

    def __init__(self, environ: Mapping[str, str], findings: Findings) -> None:
        self._environ = environ
        self._findings = findings

    def read(self, text: str, path: str) -> Secret:
        """The secret that ``text`` stands for. After a fault its value is empty."""
        kind, colon, name = text.strip().partition(":")
        readers = {
            "env": self._env,
            "file": self._file,
            "credential": self._credential,
            "keyring": self._keyring,
        }
        if colon and kind in readers:
            value = readers[kind](name.strip(), path)
            source = f"{kind}:{printable(name.strip(), 200)}"
        else:
            value, source = self._plain(text, path)
        if value is not None and not value.strip() and self._findings.sound(path):
            where = "it" if source == "plain" else source
            self._findings.fault(path, f"the secret is empty: {where} holds nothing", "put the value there")
        return Secret(value or "", source)

    def read_hash(self, text: str, path: str) -> Secret:
        """Like `read`, for a password: its argon2id hash (RFC 9106, PHC string form)."""
        secret = self.read(text, path)
        if self._findings.sound(path) and not ARGON2.fullmatch(secret.reveal().strip()):
            self._findings.fault(
                path,
                "is not an argon2id hash ($argon2id$v=19$m=...)",
                "make one with `relay password`, in quotes",
            )
        return Secret(secret.reveal().strip(), secret.source)

    def _plain(self, text: str, path: str) -> tuple[str, str]:
        if text.startswith("$argon2"):
            return text, INLINE_HASH
        if text.strip():
            self._findings.warn(
                path,
                "the secret is written plainly in the configuration; env:NAME or file:PATH keeps it out of it",
            )
        return text, "plain"

    def _env(self, name: str, path: str) -> str | None:
        if name not in self._environ:
            self._fault(
                path, f"the environment variable {printable(name)} is not set", "set it, or correct its name"
            )
            return None
        return self._environ[name]

    def _file(self, name: str, path: str) -> str | None:
        if not name or "\0" in name:
            self._fault(path, "names no file", "write file: and the file's name")
            return None
        return self._content(files.resolve(name, path, self._findings), path)

    def _credential(self, name: str, path: str) -> str | None:
        folder = self._environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder and _CREDENTIALS_OF_SERVICE.is_dir():
            folder = str(_CREDENTIALS_OF_SERVICE)
        if not folder:
            self._fault(
                path,
                "systemd passed no credentials (CREDENTIALS_DIRECTORY is not set)",
                f"start relay as a systemd service with LoadCredential={printable(name)}:/path/to/file; for a command "
                f"by hand, set CREDENTIALS_DIRECTORY to the folder that has the file {printable(name)}",
            )
            return None
        if not _NAME.fullmatch(name) or name in (".", ".."):
            self._fault(
                path, "is not the name of a credential", "write credential: and the name in LoadCredential="
            )
            return None
        return self._content(Path(folder) / name, path, private=False)

    def _keyring(self, name: str, path: str) -> str | None:
        try:
            value = importlib.import_module("keyring").get_password(_KEYRING_SERVICE, name)
        except ImportError:
            self._fault(
                path, "the keyring module is not installed", "install it with: pip install 'relay[keyring]'"
            )
            return None
        except Exception as error:  # any backend may stand behind it, each with errors of its own
            problem = f"the keyring cannot be read ({type(error).__name__})"
            self._fault(path, problem, "unlock it, or use env:, file: or credential: instead")
            return None
        if value is None:
            self._fault(
                path,
                f"the keyring holds no {printable(name)} for the service {_KEYRING_SERVICE}",
                f"store it with: keyring set {_KEYRING_SERVICE} {printable(name)}",
            )
        return str(value) if value is not None else None

    def _content(self, file: Path, path: str, *, private: bool = True) -> str | None:
        try:
            with file.open("rb") as opened:
                octets = opened.read(files.MAX_SECRET + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a usable name"
            self._fault(path, f"the secret's file {printable(str(file), 300)} cannot be read ({reason})",
                        "check its name, and that relay may read it")  # fmt: skip
            return None
        if private:
            files.warn_if_public(file, path, self._findings)
        return self._text(octets, file, path)

    def _text(self, octets: bytes, file: Path, path: str) -> str | None:
        try:
            text = octets.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if len(octets) > files.MAX_SECRET or "\0" in text:
            self._fault(
                path, f"the file {printable(str(file), 300)} does not hold a short text", "check its name"
            )
            return None
        return text.rstrip("\r\n")

    def _fault(self, path: str, problem: str, remedy: str) -> None:
        self._findings.fault(path, problem, remedy)
