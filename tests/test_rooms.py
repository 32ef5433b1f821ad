"""The house keeps its walls: who may import whom, and by which door each outside library enters.

Read from the source with `ast`, imports inside functions included, so nothing hides by being lazy.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "relay"

SHARED = {"message", "errors", "clock", "events", "settings", "figures", "background", "dburl"}
"""The shared words: everybody may import them, and they import the standard library and one another only."""

MAY_IMPORT: dict[str, set[str]] = {
    "accept": {"rewrite", "spool.contract"},
    "rewrite": {"spool.contract"},
    "spool": set(),
    "schedule": {"spool.contract", "spool.states", "deliver.contract", "report"},
    "deliver": {"rewrite", "tokens.contract", "spool.contract"},
    "report": {"spool.contract"},
    "tokens": set(),
    "config": set(),
    "alert": {"spool.contract"},
    # `spool.factory` and not only the daemon's door to it: the daemon loads every library, a command should start fast
    "cli": {"check", "setup", "config", "daemon", "control", "status", "demo", "logs", "simulator.cli",
            "spool.contract", "spool.factory", "tokens.contract", "tokens.credentials", "tokens.expiry", "tokens.keypair",
            "tokens.rotation", "tokens.signin"},
    # checks by the same code that runs: what works in a check works in the daemon
    "check": {"config", "tokens", "deliver", "rewrite", "spool.contract", "spool.factory", "control", "accept.tls"},
    # finds by the check's own means, writes by the config room's
    "setup": {"check", "config"},
    "web": {"config", "spool.contract", "check.contract"},
    # a helper process is put together like the daemon, of other rooms' parts; the daemon's end knows what they ask for
    "workers": {"accept", "rewrite.contract", "rewrite.route", "spool"},
    "simulator": set(),
    "demo": {"*"},
    "daemon": {"*"},
    "answering": {"*"},
    "duties": {"*"},
    "likeness": {"spool.contract"},
    "liverouter": {"*"},
    "ownmail": {"*"},
    "alarms": {"*"},
    "keeper": {"*"},
    "pages": {"*"},
    "reload": {"*"},
    "control": set(),
    "hardening": set(),
    "status": {"*"},
    "supervisor": set(),
    "winservice": {"config", "daemon"},
    "winhost": {"winservice"},
    "logs": set(),
    "memory": {"logs"},
    "metrics": {"spool.contract"},
    "__main__": {"cli"},
}  # fmt: skip
"""Room or single file -> what it may import besides itself and the shared words; ``*`` is anything."""

DOORS: dict[str, set[str]] = {
    "aiosmtpd": {"accept"},
    "argon2": {"accept", "cli", "web"},  # hashes are checked by listener and page, made by command and page
    "aiosmtplib": {"deliver", "check"},  # check catches what delivery's dialogue raises
    "aiohttp": {"deliver", "web", "simulator", "alert"},
    "jinja2": {"web"},
    "markupsafe": {"web"},  # jinja's own escaping
    "msal": {"tokens"},
    "requests": {"tokens"},  # msal's own HTTP library, given time-outs and the extra CA
    "cryptography": {"tokens", "simulator", "check"},  # check shows whose certificate stands in between
    "pydantic": {"config"},
    "pydantic_core": {"config", "setup"},  # the error that the config room's readers raise
    "keyring": {"config"},
    "yaml": {"config", "cli"},  # read by config, written by `relay config show`
    "typer": {"cli", "simulator"},
    "rich": {"cli", "demo"},
    "structlog": {"logs"},
    "uvloop": {"daemon", "workers"},
    "servicemanager": {"winservice"},
    "win32service": {"winservice"},
    "win32serviceutil": {"winservice"},
    "sqlite3": {"spool"},
    "psycopg": {"spool"},
    "psycopg_pool": {"spool"},
    "prometheus_client": {"metrics"},
}
"""Each library -> the rooms it may enter."""


def room_of(path: Path) -> str:
    """The room (folder) or single file that a source file belongs to."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of a file; ``from relay import x`` counts as ``relay.x``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            # `from relay.deliver import contract` names a module, `from relay.message import Reply` a word in one
            folder = (ROOT.parent / Path(*module.split("."))).is_dir() and module.split(".")[0] == "relay"
            yield from ((node.lineno, f"{module}.{alias.name}" if folder else module) for alias in node.names)


def allowed(room: str, target: str) -> bool:
    """Whether a room may import ``target``, a module's name without ``relay.``."""
    first = target.split(".")[0]
    if first == room or first in SHARED or target == "__version__":
        return True
    rules = MAY_IMPORT[room]
    return "*" in rules or any(target == rule or target.startswith(rule + ".") for rule in rules)


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def test_every_room_has_its_line_in_the_table() -> None:
    """A new room or file must be given its place here before it is built."""
    rooms = {room_of(path) for path in sources()} - {"__init__"}
    assert rooms - SHARED <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_table(path: Path) -> None:
    """No file imports a room that the table does not open to it."""
    room = room_of(path)
    ours = [
        (line, name.removeprefix("relay.")) for line, name in imports_of(path) if name.startswith("relay.")
    ]
    if room in SHARED or room == "__init__":
        wrong = [f"{line}: {name}" for line, name in ours if name.split(".")[0] not in SHARED]
    else:
        wrong = [f"{line}: {name}" for line, name in ours if not allowed(room, name)]
    assert wrong == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_enter_by_their_door(path: Path) -> None:
    """An outside library is imported in its own room only; the shared words use none at all."""
    room = room_of(path)
    used = {name.split(".")[0] for _, name in imports_of(path)} - {"relay", "__future__"}
    outside = used - set(sys.stdlib_module_names) | (used & {"sqlite3"})
    assert {name for name in outside if room not in DOORS.get(name, set())} == set()


def test_the_check_itself_sees_a_breach(tmp_path: Path) -> None:
    """A lazy import inside a function is found, and judged."""
    file = tmp_path / "sneaky.py"
    file.write_text("def f():\n    from relay.deliver import smtp\n    import relay.accept.listener\n")
    names = [name.removeprefix("relay.") for _, name in imports_of(file)]
    assert names == ["deliver.smtp", "accept.listener"]
    assert not any(allowed("spool", name) for name in names)
    assert allowed("schedule", "deliver.contract")
    assert not allowed("schedule", "deliver.contractor")
