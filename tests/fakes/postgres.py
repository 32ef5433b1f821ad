"""A real PostgreSQL server of the tests' own: a folder below /tmp, a Unix socket in it, and no port at all."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",  # the tests kill relays and servers, not the machine
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "60s",
    "log_min_messages": "fatal",
    "dynamic_shared_memory_type": "mmap",
}


def _program(name: str) -> str:
    """A server program; Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"{name} is missing: run .ci/tools, which installs Debian's package postgresql"
    return program


class PostgresServer:
    """One server; ``database`` gives an empty database in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relay-pg-", dir="/tmp"))
        # PostgreSQL refuses to run as root
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.folder.chmod(0o755)
        self._data = self.folder / "data"
        self._run("initdb", "--username=relay", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self.folder}'\n")
            file.writelines(f"{key} = {value}\n" for key, value in _SETTINGS.items())
        self.start()

    def _run(self, program: str, *options: str) -> None:
        environment = {**os.environ, "PGDATA": str(self._data), "LC_ALL": "C"}
        done = subprocess.run(
            [_program(program), *options],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            # a server would keep a pipe open
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
            **self._as_user,
        )
        assert done.returncode == 0, f"{program} failed: {(done.stdout or b'').decode()} {self.log()}"

    def log(self) -> str:
        """What the server said."""
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self.folder / 'log'}")

    def stop(self, *, mode: str = "immediate") -> None:
        """Stop it; ``immediate`` is as a crash."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def url(self, name: str) -> str:
        """The URL of a database."""
        return f"postgresql://relay@/{name}?host={self.folder}"

    def database(self) -> str:
        """A database without any table of ours; its URL. Each call empties it: making a new one costs a second."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
            connection.execute("DROP SCHEMA IF EXISTS relay CASCADE")
        return self.url("postgres")

    def remove(self) -> None:
        """Stop it and take its files away."""
        self.stop()
        shutil.rmtree(self.folder)


def running() -> Iterator[PostgresServer]:
    """A server for as long as a fixture lives."""
    server = PostgresServer()
    yield server
    server.remove()
