"""The commands of docs/install.md on a small Debian: pip, accounts and owners are real, systemd is a stand-in."""

from __future__ import annotations

import re

from tests.image.debian import ROOT, SETUP

PAGE = ROOT / "docs" / "install.md"


def test_the_page_installs_a_service_that_works(system):
    """From nothing to `relay health`."""
    (commands,) = re.findall(
        r"^## Install\n.+?^```sh\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    source = system.path / "root" / "relay"
    (source / "relay").mkdir(parents=True)
    (system.path / "etc" / "systemd" / "system").mkdir(parents=True, exist_ok=True)
    (source / "client-secret.txt").write_text("made8Q~up.for.this.test_only-0123456789abcd")
    install, found, service = commands.partition("relay setup")
    assert found
    copy = "cp -r /src/pyproject.toml /src/README.md /src/relay /src/systemd /root/relay; cd /root/relay"
    system.do(f"{copy}\n{install}")
    done = system.run(
        f"cd /root/relay\n{SETUP} --client-secret-file client-secret.txt {service}", online=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live and ready" in done.stdout + done.stderr
    assert system.asked_of_systemd() == ["daemon-reload", "enable --now relay"]
