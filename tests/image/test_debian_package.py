"""The Debian package: built, installed, updated, removed and purged in a small Debian of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.conftest import ROOT, made
from tests.image.stage import ALONE

_ENTER = """
mount --bind "$SYSTEM" "$SYSTEM"
mount -t proc proc "$SYSTEM/proc"
for one in null zero urandom; do : >"$SYSTEM/dev/$one"; mount --bind "/dev/$one" "$SYSTEM/dev/$one"; done
mount --bind -o ro "$SOURCE" "$SYSTEM/src"
mount --bind /etc/resolv.conf "$SYSTEM/etc/resolv.conf"
exec chroot "$SYSTEM" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive sh -euc "$SCRIPT"
"""
_SYSTEMCTL = """#!/bin/sh
echo "$@" >>/root/systemctl
"""


class System:
    """A Debian without systemd; what its packages say to `systemctl` is written down."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        subprocess.run(["cp", "-a", str(ROOT / ".tools" / "base"), str(folder)], check=True)
        for name in ("src", "run/systemd/system"):
            (folder / name).mkdir(parents=True)
        (folder / "etc" / "resolv.conf").touch()
        (folder / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        (folder / "usr" / "bin" / "systemctl").write_text(_SYSTEMCTL)
        (folder / "usr" / "bin" / "systemctl").chmod(0o755)

    def run(self, script: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Commands there, as root, to their end."""
        return subprocess.run(
            [*ALONE, "nice", "bash", "-euc", _ENTER],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEM": str(self.path), "SOURCE": str(ROOT), "SCRIPT": script},
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def do(self, script: str) -> str:
        """Commands that must succeed; what they print."""
        done = self.run(script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def asked_of_systemd(self) -> list[str]:
        """What was said to `systemctl` since the last time."""
        log = self.path / "root" / "systemctl"
        said = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return said

    def files(self) -> set[str]:
        """Everything there is, but for what dpkg keeps for itself."""
        own = r"/(var/(lib/dpkg|log|cache)|dev|proc|tmp|etc/ld.so.cache|root/systemctl)(/|$)"
        found = self.do("find / -xdev").splitlines()
        return {one for one in found if not re.match(own, one)}


@pytest.fixture(scope="module")
def system(work: Path) -> Iterator[System]:
    """With the package in /root."""
    made(str(ROOT / ".ci" / "base"))
    folder = work / "system"
    one = System(folder)
    one.do("/src/deploy/debian/build /root")
    yield one
    shutil.rmtree(folder)


def test_the_package_comes_works_and_goes(system):
    """Never started unasked; configuration, secret and spool stay after `remove` and go with `purge`."""
    (package,) = (one.name for one in (system.path / "root").glob("relay_*.deb"))
    before = system.files()

    system.do(f"dpkg -i /root/{package} && dpkg --audit")
    assert system.asked_of_systemd() == ["daemon-reload"]
    assert re.fullmatch(r"relay \d+\.\d+\.\d+\n", system.do("relay --version"))
    for command in ("check", "run"):
        fault = system.run(f"relay {command}")
        assert fault.returncode == 2
        assert "/etc/relay/config.yaml:4: upstreams[0].from_email: is missing" in fault.stderr
    installed = system.files()
    assert "6 of 6 messages arrived intact" in system.do("cd /tmp && relay demo")
    assert system.files() == installed

    system.do(f"dpkg -i /root/{package}")
    assert system.asked_of_systemd() == ["daemon-reload", "try-restart relay.service"]

    system.do(
        "mkdir -p /var/lib/private/relay; touch /var/lib/private/relay/spool.db; echo x >/etc/relay/client-secret"
    )
    system.do("dpkg -r relay")
    assert system.asked_of_systemd() == ["disable --now relay.service relay.socket", "daemon-reload"]
    for name in ("etc/relay/config.yaml", "etc/relay/client-secret", "var/lib/private/relay/spool.db"):
        assert (system.path / name).exists()
    assert not (system.path / "opt" / "relay").exists()

    system.do("dpkg -P relay")
    assert system.files() - before <= {"/var/lib/private"}


def test_the_unit_starts_what_the_package_brings(system):
    """The program that the unit names is in the package, and so is the configuration."""
    listed = system.do("dpkg-deb -c /root/relay_*.deb")
    unit = (ROOT / "systemd" / "relay.service").read_text()
    program, config = re.search(r"^ExecStart=(\S+) run --config (\S+)$", unit, re.MULTILINE).groups()
    assert {f".{program}", f".{config}"} <= set(listed.split())
    assert "./usr/lib/systemd/system/relay.service" in listed
    assert re.findall(r"\S*(?:/bin/pip|/ensurepip/)\S*", listed) == []
