"""Exit statuses, streams and start-up of `relay`: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import argon2
import pytest

from relay import __version__
from relay.cli.app import MODULES, build_app
from relay.config.upcoming import Upcoming
from relay.errors import SpoolBusy
from tests.cli.kit import Bench, daemon

STATUS = {
    "version": "0.1.0",
    "started": "2026-11-23T08:00:00.000Z",
    "listeners": [{"bind": "127.0.0.1:25", "connections": 2, "accepted": 7, "rejected": 1}],
    "lanes": [
        {
            "upstream": "Microsoft 365", "mailbox": "notifications@contoso.com", "transport": "smtp", "state": "held",
            "reason": "SMTP AUTH is off for the mailbox \x1b[31m", "remedy": "Switch it on.",
            "since": "2026-11-23T08:01:00.000Z", "backlog": 4, "oldest": "2026-11-23T08:00:30.000Z",
            "sent_last_minute": 0, "limit_per_minute": 30, "time_to_drain": None,
        }
    ],
    "tokens": [{"upstream": "Microsoft 365", "resource": "smtp", "expires": None, "error": "invalid_client"}],
    "credentials": [{"upstream": "Microsoft 365", "kind": "client_secret", "expires": None}],
    "spool": {"url": "sqlite:////x", "messages": 4, "bytes": 4000, "free": 10_000_000},
}  # fmt: skip


def test_every_command_has_help_and_a_name_of_its_own() -> None:
    """Each command of the table loads alone and answers --help with status 0."""
    from typer.testing import CliRunner

    for name in MODULES:
        result = CliRunner().invoke(build_app(name), [name, "--help"])
        assert result.exit_code == 0, result.output
        assert f"relay {name}" in result.output or "Usage" in result.output


def test_python_dash_m(bench: Bench) -> None:
    """`python -m relay --version` is the command; unknown commands are wrong usage."""
    good = subprocess.run(
        [sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, timeout=30
    )
    assert (good.returncode, good.stdout) == (0, f"relay {__version__}\n")
    bad = subprocess.run(
        [sys.executable, "-m", "relay", "frobnicate"], capture_output=True, text=True, timeout=30
    )
    assert (bad.returncode, bad.stdout) == (2, "")


@pytest.mark.parametrize("command", ["run", "status", "health", "queue list", "trace x", "send --to a@b.de"])
def test_invalid_configuration_is_status_2_with_all_faults(bench: Bench, command: str) -> None:
    """Whatever the command: every fault is listed on standard error, nothing is on standard output."""
    bench.config.write_text(
        "upstreams: [{from_email: nobody}]\nlisteners: [{bind: nowhere}]\nfrobnicate: 1\n"
    )
    result = bench.run(*command.split())
    assert (result.exit_code, result.stdout) == (2, "")
    for word in ("frobnicate", "bind", "tenant_id"):
        assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_run_refuses_what_this_release_would_do_wrong(bench: Bench, monkeypatch) -> None:
    """A key whose feature is to come, and whose absence would do harm, keeps the daemon from starting."""
    row = Upcoming("frobnication", "refuse", lambda settings: True, "this release cannot frobnicate yet")
    monkeypatch.setattr("relay.config.upcoming.UPCOMING", (row,))
    monkeypatch.setattr("relay.daemon.serve", lambda load: load() and 0)
    result = bench.run("run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "frobnication: this release cannot frobnicate yet" in result.stderr
    monkeypatch.setattr("relay.config.upcoming.UPCOMING", ())
    assert bench.run("run").exit_code == 0


def test_an_error_of_a_room_is_one_line_and_its_remedy(bench: Bench, monkeypatch) -> None:
    """Errors on purpose show what and what to do, with status 1."""

    async def refuse(self, *, owner: bool = True) -> None:
        raise SpoolBusy("the spool is in use", remedy="Stop the other process.")

    monkeypatch.setattr("relay.spool.sqlite.SqliteSpool.open", refuse)
    result = bench.run("queue", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "relay: the spool is in use\n  Stop the other process.\n"


def test_status_of_a_running_relay(bench: Bench) -> None:
    """--json passes on what the daemon reports; people see reason and remedy, control characters harmless."""
    with daemon(bench.settings, {"status": STATUS}):
        assert bench.json("status") == STATUS
        shown = bench.run("status").stdout
    assert "SMTP AUTH is off" in shown
    assert "Switch it on." in shown
    assert "\x1b" not in shown


def test_status_of_a_stopped_relay_reads_the_spool(bench: Bench) -> None:
    """Stopped: the same shape from the spool alone, started null, a word on standard error, status 0."""
    bench.add()
    result = bench.run("status", "--json")
    assert result.exit_code == 0
    assert "no running relay" in result.stderr
    shape = bench.json("status")
    assert shape["started"] is None
    assert set(shape) >= {"version", "listeners", "lanes", "tokens", "credentials", "spool"}
    assert [lane["backlog"] for lane in shape["lanes"]] == [1]
    assert "not running" in bench.run("status").stdout


def test_health_says_live_and_ready(bench: Bench) -> None:
    """Exit 0 only when the daemon answers that it is well; the reasons otherwise."""
    with daemon(bench.settings, {"health": {"ok": True, "reasons": []}}):
        assert bench.run("health").exit_code == 0
    with daemon(bench.settings, {"health": {"ok": False, "reasons": ["the spool is full"]}}):
        full = bench.run("health")
    assert full.exit_code == 1
    assert "the spool is full" in full.stderr
    stopped = bench.run("health")
    assert stopped.exit_code == 1
    assert "no running relay" in stopped.stderr


def test_health_loads_little(bench: Bench) -> None:
    """A container asks every few seconds: no web server, no tables, no Microsoft library are loaded for it."""
    script = (
        "import sys\n"
        "from relay.cli.app import main\n"
        "try:\n"
        f"    main(['health', '--config', {str(bench.config)!r}])\n"
        "except SystemExit as end:\n"
        "    print(end.code, *sorted({'aiohttp', 'msal', 'aiosmtpd', 'rich.table', 'argon2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout == "1\n"


def test_password_from_a_pipe(bench: Bench) -> None:
    """One line of input becomes a hash that verifies; an empty one is wrong usage."""
    result = bench.run("password", stdin="correct horse\n", config=False)
    assert result.exit_code == 0
    assert argon2.PasswordHasher().verify(result.stdout.strip(), "correct horse")
    assert bench.run("password", stdin="\n", config=False).exit_code == 2


def test_config_show_hides_secrets(bench: Bench) -> None:
    """The effective configuration never shows the secret."""
    result = bench.run("config", "show")
    assert result.exit_code == 0
    assert "a-secret-nobody-may-see" not in result.output


def test_a_thread_that_nobody_waits_for_does_not_spoil_the_end(tmp_path: Path) -> None:
    """A token asked for may hang inside OpenSSL: the process ends with its status, and does not take itself apart under it."""
    script = (
        "import atexit, sys, threading, time\n"
        "from relay.cli.app import main\n"
        "atexit.register(lambda: print('taken apart', flush=True))\n"
        "if sys.argv[1:] == ['hangs']:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "main(['--version'])\n"
    )
    for words, ending in (["hangs"], ""), ([], "taken apart\n"):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=30, cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(rf"relay [0-9.]+\n{ending}", done.stdout)
