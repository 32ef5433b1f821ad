"""A Postfix of our own: configuration, queue and log in a private folder, nothing of the system's touched. Needs root."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

_MASTER = """\
127.0.0.1:{port} inet n - n - {processes} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance. ``settings`` are lines of main.cf beyond what keeps it private."""

    def __init__(self, folder: Path, port: int, settings: dict[str, str], processes: int = 100) -> None:
        self.port = port
        self._etc = folder / "etc"
        self._queue = folder / "queue"
        self._folder = folder
        owner = pwd.getpwnam("postfix")
        for path in (folder, self._etc, self._queue):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        data = folder / "data"
        data.mkdir(exist_ok=True)
        os.chown(data, owner.pw_uid, grp.getgrnam("postfix").gr_gid)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": str(self._queue),
            "data_directory": str(data),
            "maillog_file": str(folder / "mail.log"),
            "maillog_file_prefixes": str(folder),
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "myhostname": "postfix.example",
            "disable_dns_lookups": "yes",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "message_size_limit": "104857600",
            "default_process_limit": str(processes),
            "alias_maps": "",
            **settings,
        }
        (self._etc / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
        (self._etc / "master.cf").write_text(_MASTER.format(port=port, processes=processes))

    def __enter__(self) -> Postfix:
        self._run("check")
        self._run("start")
        return self

    def __exit__(self, *_: object) -> None:
        self._run("stop")

    def _run(self, verb: str) -> None:
        done = subprocess.run(
            ["postfix", "-c", str(self._etc), verb], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and verb != "stop":
            raise RuntimeError(f"postfix {verb}: {done.stderr}{self.log()[-1000:]}")

    def log(self) -> str:
        """What it logged."""
        path = self._folder / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self) -> list[int]:
        """Its master and all children."""
        try:
            master = int((self._queue / "pid" / "master.pid").read_text())
        except (OSError, ValueError):
            return []
        children = Path(f"/proc/{master}/task/{master}/children")
        return [master, *(int(pid) for pid in children.read_text().split())] if children.exists() else []


def available() -> str:
    """Empty when a private Postfix can run here; else why not."""
    if shutil.which("postfix") is None or shutil.which("smtp-source") is None:
        return "Postfix is not installed (apt-get install postfix)"
    if os.geteuid() != 0:
        return "Postfix's master process needs root"
    return ""
