"""Writing it down: the secret into a file of its own, then the configuration, each at once or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from relay.config import edit, yamlfile
from relay.config.edit import KeyPath
from relay.config.faults import ConfigError, Fault
from relay.config.load import find
from relay.setup.answers import Known, known_from

ACCOUNT = "relay"
"""The account that the service runs as (systemd/relay.service)."""
SECRET_NAME = "client-secret"  # noqa: S105 - a file's name
PREFACE = """\
# Configuration of relay, begun by `relay setup`. Every other key and its default: config.example.yaml,
# docs/configuration.md. `relay setup` and the page change single values and keep what is written here.
"""


def default_file(environ: Mapping[str, str]) -> Path:
    """Where the configuration is, else where it belongs: /etc for root, the working directory for others."""
    found = find(environ)
    if found is not None:
        return found
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return Path("/etc/relay/config.yaml") if root else Path("config.yaml")


def read(file: Path) -> tuple[str, Known]:
    """Text and content of the file, both empty when there is none. Raises ConfigError when it is no YAML."""
    if not file.exists():
        return "", known_from(None, exists=False)
    text = edit.read(file)
    document = yamlfile.parse(text.removeprefix("\ufeff"), str(file))
    if document.faults:
        raise ConfigError(document.faults)
    return text, known_from(document.data, exists=True)


def write(
    file: Path, text: str, changes: Mapping[KeyPath, object], secret: str | None, secret_name: str
) -> None:
    """Store both. Raises ConfigError, and then both files are as they were."""
    new = edit.change(text or PREFACE, changes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _secret_written(_beside(file, secret_name), secret):
            fresh = not file.exists()
            if new != text:
                edit.store(file, new)
            if fresh:
                _give_to_service(file)
    except OSError as error:
        named = Path(error.filename or file)
        where = str(
            named.parent if named.name.startswith(".") else named
        )  # the folder, not our file of a moment
        remedy = "run it as the user who may write there (sudo), or name another file with --config"
        problem = f"it cannot be written ({error.strerror or error})"
        raise ConfigError([Fault("", None, problem, remedy, where)]) from error


def secret_differs(file: Path, secret_name: str, secret: str) -> bool:
    """Whether another secret is in the file already, which writing would replace."""
    try:
        return _beside(file, secret_name).read_text(encoding="utf-8").strip() != secret
    except (OSError, UnicodeDecodeError):
        return False


def _beside(file: Path, name: str) -> Path:
    return file.absolute().parent / name


@contextlib.contextmanager
def _secret_written(file: Path, secret: str | None) -> Iterator[None]:
    """The secret in its file while the configuration that names it is validated; put back when that fails."""
    if secret is None:
        yield
        return
    before = file.read_bytes() if file.exists() else None
    _private(file, secret.encode() + b"\n")
    try:
        yield
    except BaseException:
        if before is None:
            file.unlink(missing_ok=True)
        else:
            _private(file, before)
        raise


def _private(file: Path, content: bytes) -> None:
    """Mode 0600 from the first octet on, whatever it had before; its owner stays."""
    facts = file.stat() if file.exists() else None
    edit.write_whole(file, content, owner=facts)
    if facts is None:
        _give_to_service(file)


def _give_to_service(file: Path) -> None:
    """Written by root, a new file must be readable for the account that the service runs as, and for nobody else."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    import pwd

    with contextlib.suppress(KeyError):  # no such account: relay runs as root, or elsewhere
        account = pwd.getpwnam(ACCOUNT)
        os.chown(file, account.pw_uid, account.pw_gid)
