"""The commands of docs/install.md, on a small Debian; systemd and the answers to `relay setup` have stand-ins."""

from __future__ import annotations

import re

from tests.image.debian import CONFIG, ROOT

PAGE = ROOT / "docs" / "install.md"

SETUP = (
    "install -o relay -g relay -m 0600 config /etc/relay/config.yaml",
    "install -o relay -g relay -m 0600 client-secret.txt /etc/relay/client-secret",
)
"""What `relay setup`, run as root, leaves behind."""


def test_the_page_installs_a_service_that_works(system):
    """From nothing to `relay health`."""
    (commands, *_) = re.findall(
        r"^## Install\n.+?^```sh\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    source = system.path / "root" / "relay"
    (source / "relay").mkdir(parents=True)
    (system.path / "etc" / "systemd" / "system").mkdir(parents=True, exist_ok=True)
    (source / "config").write_text(CONFIG)
    (source / "client-secret.txt").write_text("made-up")
    assert "relay setup --config /etc/relay/config.yaml" in commands
    script = re.sub(r"^relay setup .*$", "\n".join(SETUP), commands, flags=re.MULTILINE)
    copy = "cp -r /src/pyproject.toml /src/README.md /src/relay /src/systemd /root/relay; cd /root/relay"
    done = system.run(f"{copy}\n{script}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live and ready" in done.stdout + done.stderr
    assert system.asked_of_systemd() == ["daemon-reload", "enable --now relay"]
    unit = (system.path / "etc" / "systemd" / "system" / "relay.service").read_text()
    assert unit == (ROOT / "systemd" / "relay.service").read_text()
