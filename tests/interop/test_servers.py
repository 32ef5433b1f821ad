"""Other people's mail servers as clients: what Postfix, Exim, nullmailer, dma and msmtp hand over arrives whole."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

from tests.accept.support import Bench, TestClient, free_port, listener, running
from tests.dialogs.submitted import submitted
from tests.interop.kit import Root, until
from tests.interop.postfix import Postfix

BODY = b"one\r\n.\r\n..two\r\nFrom here\r\ncaf\xc3\xa9\r\n" + b"long " * 300 + b"\r\n"
TEXT = (
    b"From: Root <root@client.example>\nTo: anna@example.net\nSubject: interop\nMIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    + BODY.replace(b"\r\n", b"\n")
)


async def arrived(bench: Bench, root: Root, log: str, body: bytes = BODY) -> None:
    """One whole message with the right envelope, fit to be submitted."""
    await until(lambda: bench.spool.stored, lambda: root.read(log) or bench.told)
    (stored,) = bench.spool.stored
    assert [one.address for one in stored.message.envelope.recipients] == ["anna@example.net"]
    assert stored.message.subject == "interop"
    assert stored.content.endswith(b"\r\n\r\n" + body)
    assert (await submitted(stored)).faults() == []
    assert bench.events("trouble") == []


def port_of(bench: Bench) -> int:
    return bench.server.address[1]


async def test_postfix(tmp_path: Path) -> None:
    """Postfix takes the message from a client of its own and relays it, in one pipelined session."""
    async with running(listener()) as bench:
        root = Root(tmp_path)
        async with Postfix(root, free_port(), port_of(bench), "mynetworks = 127.0.0.0/8\nsmtp_line_length_limit = 0"
        ) as postfix:  # fmt: skip
            client = await TestClient.open(("127.0.0.1", postfix.port))
            await client.reply()
            await client.envelope("root@client.example", ["anna@example.net"])
            await client.ask("DATA")
            client.send(TEXT.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b".\r\n")
            assert (await client.reply()).startswith("250"), postfix.log()
            client.close()
            await arrived(bench, root, "var/log/postfix.log")


EXIM = """\
primary_hostname = client.example
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%slog
trusted_users = root
keep_environment =
begin routers
smarthost:
  driver = manualroute
  domains = *
  transport = out
  route_data = 127.0.0.1
  self = send
begin transports
out:
  driver = smtp
  port = {port}
  allow_localhost
  message_linelength_limit = 65536
  hosts_try_chunking = {chunking}
begin retry
* * F,1h,1m
"""


async def test_exim(tmp_path: Path) -> None:
    """Exim, with BDAT as it likes best."""
    await exim(tmp_path, "*")


async def test_exim_without_chunking(tmp_path: Path) -> None:
    """Exim with DATA."""
    await exim(tmp_path, "")


async def exim(tmp_path: Path, chunking: str) -> None:
    async with running(listener()) as bench:
        root = Root(tmp_path)
        root.write("etc/exim4/exim4.conf", EXIM.format(port=port_of(bench), chunking=chunking))
        for name in ("var/spool/exim4", "var/log/exim4"):
            root.folder(name, "Debian-exim", "Debian-exim", 0o750)
        await root.run(
            "/usr/sbin/exim4", "-C", "/etc/exim4/exim4.conf", "-odi", "-i", "-f", "root@client.example", "anna@example.net",
            given=TEXT,
        )  # fmt: skip
        await arrived(bench, root, "var/log/exim4/mainlog")


async def test_nullmailer(tmp_path: Path) -> None:
    """nullmailer: inject, queue, send."""
    async with running(listener()) as bench:
        root = Root(tmp_path)
        root.write("etc/nullmailer/remotes", f"127.0.0.1 smtp --port={port_of(bench)}\n", 0o600)
        root.write("etc/nullmailer/me", "client.example\n")
        root.write("etc/nullmailer/pausetime", "1\n")
        for name in ("queue", "tmp", "failed"):
            root.folder(f"var/spool/nullmailer/{name}", "mail", "mail", 0o700)
        (root.path / "var/spool/nullmailer/trigger").unlink(missing_ok=True)
        subprocess.run(["mkfifo", "-m", "622", str(root.path / "var/spool/nullmailer/trigger")], check=True)
        shutil.chown(root.path / "var/spool/nullmailer/trigger", 8, 8)
        shutil.chown(root.path / "etc/nullmailer/remotes", 8, 8)
        envelope = b"root@client.example\nanna@example.net\n\n"
        await root.run("/usr/sbin/nullmailer-queue", given=envelope + TEXT)
        process = await root.start("/usr/sbin/nullmailer-send")
        try:
            await arrived(bench, root, "nowhere")
        finally:
            process.terminate()
            await process.wait()


async def test_dma(tmp_path: Path) -> None:
    """The DragonFly mail agent; it takes no lines over 1,000 octets itself."""
    body = BODY[: BODY.index(b"long")]
    async with running(listener()) as bench:
        root = Root(tmp_path)
        root.write("etc/dma/dma.conf", f"SMARTHOST 127.0.0.1\nPORT {port_of(bench)}\nSPOOLDIR /var/spool/dma\n"
                   "MAILNAME client.example\nALIASES /etc/aliases\n")  # fmt: skip
        root.write("etc/aliases", "")
        root.folder("var/spool/dma", "mail", "mail", 0o770)
        await root.run(
            "/usr/sbin/dma",
            "-D",
            "-i",
            "-f",
            "root@client.example",
            "anna@example.net",
            given=TEXT[: TEXT.index(b"long")],
        )
        await arrived(bench, root, "nowhere", body)


async def test_msmtp() -> None:
    """msmtp."""
    found = shutil.which("msmtp")
    assert found, "msmtp is not installed: run `make test`, which installs it"
    async with running(listener()) as bench:
        command = [
            found,
            "--host=127.0.0.1",
            f"--port={port_of(bench)}",
            "-f",
            "root@client.example",
            "anna@example.net",
        ]
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await asyncio.wait_for(process.communicate(TEXT), 20)
        assert process.returncode == 0
        (stored,) = bench.spool.stored
        assert stored.content.endswith(b"\r\n\r\n" + BODY)
        assert (await submitted(stored)).faults() == []
