"""A small Debian of a test's own, to install relay into."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.image.stage import ALONE

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / ".tools" / "base"
SETUP = (
    "relay setup --yes --no-check --tenant-id 11111111-2222-4333-8444-555555555555"
    " --client-id 66666666-7777-4888-9999-aaaaaaaaaaaa --from-email notifications@contoso.com"
)
"""`relay setup` with its answers."""
_ENTER = """
ip link set lo up
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$CHANGES,workdir=$CHANGES.work" "$SYSTEM"
mount -t proc proc "$SYSTEM/proc"
for one in null zero urandom; do : >"$SYSTEM/dev/$one"; mount --bind "/dev/$one" "$SYSTEM/dev/$one"; done
mount --bind -o ro "$SOURCE" "$SYSTEM/src"
mount --bind /etc/resolv.conf "$SYSTEM/etc/resolv.conf"
exec chroot "$SYSTEM" env -i PATH="/usr/local/bin:$PATH" HOME=/root DEBIAN_FRONTEND=noninteractive sh -euc "$SCRIPT"
"""
_SYSTEMCTL = r"""#!/bin/sh
echo "$@" >>/root/systemctl
[ "$*" = "enable --now relay" ] || exit 0
for unit in /etc/systemd/system/relay.service /usr/lib/systemd/system/relay.service; do [ ! -f $unit ] || break; done
user=relay
id relay >/dev/null 2>&1 || user=nobody  # for DynamicUser
group=$(id -g $user)
install -d -o $user -g $group -m 0700 /var/lib/relay /run/credentials/relay.service
secret=$(sed -n 's/^LoadCredential=client-secret://p' $unit)
install -o $user -g $group -m 0400 $secret /run/credentials/relay.service/client-secret
touch /root/relay.log
export CREDENTIALS_DIRECTORY=/run/credentials/relay.service
port=+net_bind_service  # AmbientCapabilities=
start=$(sed -n 's/^ExecStart=//p' $unit)
setpriv --reuid $user --regid $group --clear-groups --inh-caps $port --ambient-caps $port $start >>/root/relay.log 2>&1 &
for _ in $(seq 300); do grep -q '"what": "started"' /root/relay.log && exit; sleep 0.1; done
cat /root/relay.log >&2
exit 1
"""


class System:
    """A Debian without systemd. What is said to `systemctl` is written down; asked to, it starts relay as the unit says."""

    def __init__(self, folder: Path) -> None:
        """``path`` below ``folder`` has what was added to the base, and what is to be added before it is entered."""
        self.folder, self.path = folder, folder / "changes"
        for name in ("changes", "changes.work", "mounted"):
            (folder / name).mkdir(parents=True)
        for name in ("src", "run/systemd/system"):
            (self.path / name).mkdir(parents=True)
        for name in ("etc", "usr/bin", "root"):
            (self.path / name).mkdir(parents=True)
        (self.path / "etc" / "resolv.conf").touch()
        (self.path / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        (self.path / "usr" / "bin" / "systemctl").write_text(_SYSTEMCTL)
        (self.path / "usr" / "bin" / "systemctl").chmod(0o755)

    def run(self, script: str, *, online: bool = True) -> subprocess.CompletedProcess[str]:
        """Commands there, as root, to their end; not ``online`` with a loopback of its own, where port 25 is free."""
        alone = [] if online else ["--net"]
        return subprocess.run(
            [*ALONE, *alone, "nice", "bash", "-euc", _ENTER],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "BASE": str(BASE),
                "CHANGES": str(self.path),
                "SYSTEM": str(self.folder / "mounted"),
                "SOURCE": str(ROOT),
                "SCRIPT": script,
            },
            capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
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
        """What is there beyond the base, but for what dpkg keeps for itself."""
        own = re.compile(r"(var/(lib/(dpkg|apt)|log|cache)|dev|proc|tmp|etc/ld.so.cache|root/systemctl)(/|$)")
        found = {one.relative_to(self.path) for one in self.path.rglob("*") if not one.is_char_device()}
        return {str(one) for one in found if not own.match(str(one)) and not os.path.lexists(BASE / one)}
