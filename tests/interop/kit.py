"""A small system of Debian's mail programs to chroot into (`.ci/mail` unpacks it), and how they are run there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / ".tools" / "mail"
WAIT = 20.0

PASSWD = {
    "root": 0, "daemon": 1, "mail": 8, "nobody": 65534,
    "postfix": 61001, "dovecot": 61002, "dovenull": 61003, "Debian-exim": 61004, "postdrop": 61005,
}  # fmt: skip


class Root:
    """One test's copy of that system; ``files`` are written into it."""

    def __init__(self, folder: Path) -> None:
        assert (SOURCE / ".complete").exists(), (
            "the mail servers are missing: run .ci/mail (`make test` does)"
        )
        assert os.geteuid() == 0, (
            "mail servers start as root: sudo -n .venv/bin/pytest tests/interop (`make test` does)"
        )
        self.path = folder / "root"
        subprocess.run(["cp", "-al", str(SOURCE), str(self.path)], check=True)
        accounts = "".join(f"{name}:x:{n}:{n}::/nonexistent:/bin/false\n" for name, n in PASSWD.items())
        groups = "".join(f"{name}:x:{n}:\n" for name, n in PASSWD.items())
        self.write("etc/passwd", accounts)
        self.write("etc/group", groups + "nogroup:x:65533:\n")
        self.write("etc/hosts", "127.0.0.1 localhost client.example\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\n")
        self.write("etc/services", "smtp 25/tcp\n")
        self.write("etc/mailname", "client.example\n")
        self.write("dev/null", "", 0o666)
        self.write("dev/urandom", os.urandom(65536))
        self.folder("tmp", mode=0o1777)

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> None:
        """A file of its own; the packages' files are shared by hard links and never written to."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)

    def folder(self, name: str, owner: str = "root", group: str = "root", mode: int = 0o755) -> None:
        """A folder with that owner."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, PASSWD[owner], PASSWD[group])
        path.chmod(mode)

    def read(self, name: str) -> str:
        """A file's text, empty when there is none."""
        path = self.path / name
        return path.read_text(errors="replace") if path.exists() else ""

    async def run(self, *command: str, given: bytes = b"", env: dict[str, str] | None = None) -> bytes:
        """A program to its end, which must be a success."""
        process = await self.start(*command, env=env)
        try:
            out, _ = await asyncio.wait_for(process.communicate(given), WAIT)
        except TimeoutError:
            process.kill()
            raise
        assert process.returncode == 0, (command, out.decode(errors="replace")[-2000:])
        return out

    async def start(self, *command: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        """A program that goes on."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            shutil.which("chroot") or "/usr/sbin/chroot", str(self.path), *command,
            stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT,
            env={"PATH": "/usr/bin:/usr/sbin", **(env or {})}, start_new_session=True,
        )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a program that goes on, with its children: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


async def until(condition: object, what: object) -> None:
    """Wait until it holds; ``what`` explains why it did not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT
    while not condition():  # type: ignore[operator]
        assert loop.time() < deadline, what() if callable(what) else what
        await asyncio.sleep(0.02)
