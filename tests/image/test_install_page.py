"""The commands of docs/install.md, on a small Debian; systemd and the answers to `relay setup` have stand-ins."""

from __future__ import annotations

import re

from tests.image.debian import CONFIG, ROOT

PAGE = ROOT / "docs" / "install.md"


def test_the_page_installs_a_service_that_works(system):
    """From nothing to `relay health`."""
    (commands,) = re.findall(r"^## Install\n+```\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source = system.path / "root" / "relay"
    (source / "relay").mkdir(parents=True)
    (system.path / "etc" / "systemd" / "system").mkdir(parents=True, exist_ok=True)
    (source / "config").write_text(CONFIG)
    (source / "client-secret.txt").write_text("made-up")
    assert "relay setup --config /etc/relay/config.yaml" in commands
    script = commands.replace("relay setup --config", "cp config").replace("/path/to/relay", "/root/relay")
    copy = "cp -r /src/pyproject.toml /src/README.md /src/relay /src/systemd /root/relay; cd /root/relay"
    done = system.run(f"{copy}\n{script}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live and ready" in done.stdout + done.stderr
    assert system.asked_of_systemd() == ["daemon-reload", "enable --now relay"]
    secret = (system.path / "etc" / "relay" / "client-secret").stat()
    assert (secret.st_uid, secret.st_mode & 0o777) == (0, 0o600)
