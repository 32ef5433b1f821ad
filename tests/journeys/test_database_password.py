"""The password of the database is seen by nobody: every output is searched for both places where its address may hold it."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.fakes.postgres import PostgresServer, running
from tests.journeys.kit import Relay, free_port, until
from tests.journeys.sending import mail, send

SECRET = "Geh3im@Zq7#/%:$&+"
ENCODED = "Geh3im%40Zq7%23%2F%25%3A%24%26%2B"
PART = b"Geh3im"
"""What both spellings begin with, and nothing else holds."""
COMMANDS = (
    ("status",),
    ("config", "show"),
    ("check", "--json"),
    ("health", "--json"),
)

server = pytest.fixture(scope="module")(running)


@pytest.fixture(scope="module")
def guarded(server: PostgresServer) -> PostgresServer:
    """A server that asks our user for a password; the tests' own user needs none."""
    rules = server.folder / "data" / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
    server.ask(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")
    server.ask("GRANT CREATE ON DATABASE postgres TO guarded")
    server.ask("SELECT pg_reload_conf()")
    return server


def outputs(relay: Relay, page: str, *commands: tuple[str, ...]) -> dict[str, bytes]:
    """Everything that a person or a program can be shown."""
    found = {}
    for words in commands:
        done = relay.command(*words, check=False)
        found[" ".join(words)] = (done.stdout + done.stderr).encode()
    bundle = relay.folder / f"support-{len(list(relay.folder.glob('support-*')))}.zip"
    relay.command("support", "--output", str(bundle))
    with zipfile.ZipFile(bundle) as opened:
        found |= {name: opened.read(name) for name in opened.namelist()}
    for path in ("/readyz", "/metrics", "/healthz", "/login"):
        with (
            contextlib.suppress(urllib.error.HTTPError),
            urllib.request.urlopen(page + path, timeout=30) as answer,
        ):
            found[path] = answer.read()
    found["log"] = relay.log.read_bytes()
    return found


def shown_by_processes(relay: Relay) -> dict[str, bytes]:
    """The command lines of relay and its children, and what its children were given as environment."""
    assert relay.process is not None
    children = Path(f"/proc/{relay.process.pid}/task/{relay.process.pid}/children").read_text().split()
    found = {
        f"command line {pid}": Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in [relay.process.pid, *children]
    }
    return found | {f"environment {pid}": Path(f"/proc/{pid}/environ").read_bytes() for pid in children}


def test_no_output_holds_the_password(fast, make_fast_relay, guarded):
    relay = make_fast_relay("workers: always\n")
    page = f"http://127.0.0.1:{free_port()}"
    guarded.database()
    relay.env |= {
        "RELAY_SPOOL_URL": f"postgresql://guarded:{ENCODED}@/postgres?host={guarded.folder}&password={ENCODED}",
        "RELAY_LOG_LEVEL": "debug",
        "RELAY_WEB_BIND": page.removeprefix("http://"),
    }
    relay.start()
    send(relay.port, mail(1))
    fast.arrived(1)
    found = {f"running: {name}": text for name, text in outputs(relay, page, *COMMANDS).items()}
    found |= shown_by_processes(relay)
    guarded.stop(mode="fast")
    until(lambda: relay.command("health", check=False).returncode, what="the database is away")
    found |= {f"away: {name}": text for name, text in outputs(relay, page, ("status",)).items()}
    guarded.start()
    until(lambda: not relay.command("health", check=False).returncode, what="the database is back")
    assert relay.stop() == 0
    found["the whole log"] = relay.log.read_bytes()
    assert b"Connection refused" in found["away: status"] or b"No such file" in found["away: status"]
    assert [name for name, text in found.items() if PART in text] == []
