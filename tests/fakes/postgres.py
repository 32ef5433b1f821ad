"""A real PostgreSQL server of the tests' own: a folder below /tmp, a Unix socket in it, and no port at all.

It ends with the tests, also when pytest is killed; the folder such a run leaves is taken away by the next one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.fakes.tied import tied

_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",  # the tests kill relays and servers, not the machine
    "max_connections": "100",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "60s",
    "log_min_messages": "fatal",
    "dynamic_shared_memory_type": "mmap",
}
_ROOT = Path("/tmp")
"""Not the test's own folder: a Unix socket's path is short, and PostgreSQL's user must get there."""
_PATIENCE = 60.0
"""Seconds for a start or a stop."""
_SIGNALS = {"immediate": signal.SIGQUIT, "fast": signal.SIGINT}


def _program(name: str) -> str:
    """A server program; Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"{name} is missing: run .ci/tools, which installs Debian's package postgresql"
    return program


def sweep() -> None:
    """Folders of test runs that were killed."""
    for folder in _ROOT.glob("relay-pg-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class PostgresServer:
    """One server; ``database`` gives an empty database in it."""

    def __init__(self, primary: PostgresServer | None = None) -> None:
        """A new server, running; with ``primary`` a standby that follows that one."""
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"relay-pg-{os.getpid()}-", dir=_ROOT))
        # PostgreSQL refuses to run as root
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            user = pwd.getpwnam(self._user)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.folder.chmod(0o755)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        settings = _SETTINGS if primary is None else {}
        if primary is None:
            self._run(
                "initdb", "--username=relay", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"
            )
        else:
            self._run("pg_basebackup", f"--host={primary.folder}", "--username=relay", f"--pgdata={self._data}",
                      "--write-recovery-conf", "--checkpoint=fast", "--no-sync")  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self.folder}'\n")
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())
        self.start()

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            tied([_program(program), *options], user=self._user),
            env={**os.environ, "PGDATA": str(self._data), "LC_ALL": "C"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{program} failed: {done.stdout.decode()} {self.log()}"

    def log(self) -> str:
        """What the server said."""
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # killed tests take it along as a crash would: it leaves no process and no shared memory
                tied([_program("postgres"), "-D", str(self._data)], signal="QUIT", user=self._user),
                env={**os.environ, "LC_ALL": "C"},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for pytest, which stops it in order
            )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log()}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer: {self.log()}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
            return True
        return False

    def stop(self, *, mode: str = "immediate") -> None:
        """Stop it and wait for its end; ``immediate`` is as a crash, ``fast`` ends sessions in order."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
        self._process.wait(_PATIENCE)

    def url(self, name: str) -> str:
        """The URL of a database."""
        return f"postgresql://relay@/{name}?host={self.folder}"

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """What the server says to a statement, as an administrator's session."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """A database without any table of ours; its URL. Each call empties it: making a new one costs a second."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        self.ask("DROP SCHEMA IF EXISTS relay CASCADE")
        return self.url("postgres")

    def standby(self) -> PostgresServer:
        """A new server that follows this one; from now on no commit here is answered before it is there, too."""
        other = PostgresServer(self)
        self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _PATIENCE
        while self.ask("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < deadline, f"the standby does not follow: {other.log()}"
            time.sleep(0.05)
        return other

    def remove(self) -> None:
        """Stop it and take its files away."""
        self.stop()
        shutil.rmtree(self.folder)


def running() -> Iterator[PostgresServer]:
    """A server for as long as a fixture lives."""
    server = PostgresServer()
    yield server
    server.remove()
