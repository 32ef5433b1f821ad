"""The systemd units are right, as far as systemd itself can say without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from relay.config.load import load
from tests.service import confined

FOLDER = Path(__file__).parents[2] / "systemd"


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze`, what it says."""
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    """Verified as installed: the program it starts stands in for ours."""
    program = tmp_path / "relay"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("relay.service", "relay.socket"):
        text = (FOLDER / name).read_text().replace("/opt/relay/bin/relay", str(program))
        (tmp_path / name).write_text(text)
    done = analyze("verify", "--man=no", str(tmp_path / "relay.service"), str(tmp_path / "relay.socket"))
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or line.startswith("relay")]
    assert (done.returncode, said) == (0, [])


def test_the_service_is_shut_in():
    """At most 2.0 of 10, where 0 is nothing left to take away."""
    done = analyze("security", "--offline=true", str(FOLDER / "relay.service"))
    found = re.search(r"Overall exposure level for relay.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= 2.0


def test_the_socket_holds_the_address_of_the_default_listener(tmp_path):
    """A listener takes the socket by its address: the two must name the same."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "upstreams: [{from_email: a@contoso.com, tenant_id: 11111111-2222-4333-8444-555555555555,"
        " client_id: 66666666-7777-4888-9999-aaaaaaaaaaaa, client_secret: 'env:S'}]\n"
    )
    (listener,) = load(config, {"S": "x"}).listeners
    assert re.search(
        rf"^ListenStream={re.escape(listener.bind)}$", (FOLDER / "relay.socket").read_text(), re.MULTILINE
    )


def test_the_main_job_needs_no_system_call_that_the_unit_takes_away(tmp_path):
    """Relay starts, takes mail and delivers it; and what the unit refuses is refused."""
    script = [sys.executable, confined.__file__]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*script, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path)

    denied = run(sys.executable, "-c", "import os; os.nice(1)")
    assert "PermissionError" in denied.stderr
    done = run(sys.executable, "-m", "relay", "demo")
    assert "6 of 6 messages arrived intact" in done.stdout, done.stdout + done.stderr
