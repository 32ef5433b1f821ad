"""The Debian package: built, installed, updated, removed and purged, by the commands of docs/install.md."""

from __future__ import annotations

import re
import shutil

from tests.image.debian import ROOT, SETUP

PAGE = ROOT / "docs" / "install.md"
COMMANDS = PAGE.read_text().split("`make deb`")[1].split("```sh\n")[1].split("```")[0]
"""The page's commands, from the package to the running service."""


def test_the_package_comes_works_and_goes(system, package):
    """Never started unasked; configuration, secret and spool stay after `remove` and go with `purge`."""
    (system.path / "root" / "dist").mkdir()
    shutil.copy(package, system.path / "root" / "dist")
    (system.path / "root" / "client-secret.txt").write_text("made8Q~up.for.this.test_only-0123456789abcd")
    before = system.files()

    install, *rest = COMMANDS.strip().splitlines()
    assert install.startswith("apt-get install ./dist/")
    system.do(f"cd /root; {install}; dpkg --audit")
    assert system.asked_of_systemd() == ["daemon-reload"]
    assert re.fullmatch(r"relay \d+\.\d+\.\d+\n", system.do("relay --version"))
    for command in ("check", "run"):
        fault = system.run(f"relay {command}")
        assert fault.returncode == 2
        assert "/etc/relay/config.yaml:4: upstreams[0].from_email: is missing" in fault.stderr
    installed = system.files()
    assert "6 of 6 messages arrived intact" in system.do("cd /tmp; relay demo")
    assert system.files() == installed

    system.do(f"apt-get install --reinstall {install.split()[-1].replace('./', '/root/')}")
    assert system.asked_of_systemd() == ["daemon-reload", "try-restart relay.service"]

    setup = "\n".join(rest).replace("relay setup", f"{SETUP} --force")
    said = system.run(f"cd /root\n{setup}\nrelay health", online=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "live and ready" in said.stdout + said.stderr
    assert system.asked_of_systemd() == ["enable --now relay"]

    system.do("apt-get -y remove relay")
    assert system.asked_of_systemd() == ["disable --now relay.service relay.socket", "daemon-reload"]
    for name in ("etc/relay/config.yaml", "etc/relay/client-secret", "var/lib/relay/spool.db"):
        assert (system.path / name).exists()
    assert not (system.path / "opt" / "relay").exists()

    system.do("apt-get -y purge relay; rm -r /root/relay.log /run/credentials")
    assert system.files() - before == set()


def test_the_unit_starts_what_the_package_brings(system, package):
    """The program that the unit names is in the package, and so is the configuration."""
    shutil.copy(package, system.path / "root" / "relay.deb")
    listed = system.do("dpkg-deb -c /root/relay.deb")
    unit = (ROOT / "systemd" / "relay.service").read_text()
    program, config = re.search(r"^ExecStart=(\S+) run --config (\S+)$", unit, re.MULTILINE).groups()
    assert {f".{program}", f".{config}"} <= set(listed.split())
    assert "./usr/lib/systemd/system/relay.service" in listed
    assert {"./usr/share/man/man1/relay.1.gz", "./usr/share/doc/relay/docs/troubleshooting.md"} <= set(
        listed.split()
    )
    assert re.findall(r"\S*(?:/bin/pip|/ensurepip/)\S*", listed) == []
