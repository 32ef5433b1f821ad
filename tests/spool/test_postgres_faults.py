"""What an administrator reads when the database cannot be used: what is wrong, and what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import psycopg
import pytest

from relay.errors import SpoolError
from relay.spool.postgres import PostgresSpool
from relay.spool.postgres_faults import plain_error
from tests.fakes.postgres import PostgresServer
from tests.fakes.spool import accept, spool_settings
from tests.fakes.tied import tied
from tests.spool.postgres_kit import server

__all__ = ["server"]

SECRET = "Geh3im@Zq7#/%:$&+"
IN_URL = "Geh3im%40Zq7%23%2F%25%3A%24%26%2B"


@pytest.fixture(scope="module")
def strict(server: PostgresServer) -> PostgresServer:
    """A server with roles and databases of several faults."""
    rules = server.folder / "data" / "pg_hba.conf"
    lines = "local all locked scram-sha-256\nlocal all shut reject\n"
    rules.write_text(lines + rules.read_text())
    for statement in (
        f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'",
        "CREATE ROLE shut LOGIN",
        "CREATE ROLE nocreate LOGIN",
        "CREATE ROLE lonely LOGIN CONNECTION LIMIT 1",
        "CREATE ROLE hasty LOGIN SUPERUSER",
        "ALTER ROLE hasty SET statement_timeout = 1",
        "CREATE DATABASE plain TEMPLATE template0",
        "CREATE DATABASE finished TEMPLATE template0",
        "ALTER DATABASE finished SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
    ):
        server.ask(statement)
    return server


async def fault(folder, url: str) -> SpoolError:
    """What opening that spool says."""
    spool = PostgresSpool(spool_settings(folder, url=url))
    with pytest.raises(SpoolError) as caught:
        await spool.open(owner=False)
    with contextlib.suppress(SpoolError):
        await spool.close()
    assert "Geh3im" not in f"{caught.value} {caught.value.remedy}"
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("who", "where", "says", "remedy"),
    [
        ("locked:Geh3im", "plain", "password authentication failed", ".pgpass"),
        ("locked", "plain", "no password supplied", ".pgpass"),
        (f"locked:{IN_URL}", "nodb", 'database "nodb" does not exist', "createdb"),
        ("nobody", "plain", 'role "nobody" does not exist', "createuser"),
        ("shut", "plain", "pg_hba.conf rejects", "pg_reload_conf"),
        ("nocreate", "plain", "permission denied for database", "GRANT CREATE"),
        ("relay", "finished", "read-only", "name all hosts"),
        ("hasty", "plain", "statement timeout", "ALTER ROLE"),
    ],
)
async def test_each_fault_has_its_words_and_its_remedy(strict, tmp_path, who, where, says, remedy):
    error = await fault(tmp_path, f"postgresql://{who}@/{where}?host={strict.folder}&passfile=/dev/null")
    assert says in str(error)
    assert remedy in error.remedy


async def test_too_few_connections_are_said_with_how_many_are_needed(strict, tmp_path):
    url = f"postgresql://lonely@/plain?host={strict.folder}"
    with psycopg.connect(url):
        error = await fault(tmp_path, url)
    assert "too many connections" in str(error)
    assert "max_connections" in error.remedy


@pytest.mark.parametrize(
    ("url", "says", "remedy"),
    [
        ("postgresql://u@name.invalid/db", "failed to resolve host", "DNS"),
        ("postgresql://u@127.0.0.1:1/db", "Connection refused", "listen_addresses"),
        ("postgresql:///db?service=none", "service", "spool.url"),
        ("postgresql://u@h/db?sslmod=require", "does not know: sslmod", "34.1.2"),
        ("postgresql://u@h/db?password=Geh3im&x=Geh3im", "does not know", "PGPASSFILE"),
        ("postgresql://u:Geh3im%zz@h/db", "percent-encoded", "%25"),
    ],
)
async def test_an_address_that_leads_nowhere_is_said_without_its_password(tmp_path, url, says, remedy):
    error = await fault(tmp_path, url)
    assert says in str(error)
    assert "Is the server running" not in str(error)
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("server does not support SSL, but SSL was required", "ssl = on"),
        ("SSL error: certificate verify failed", "sslrootcert"),
        ('server certificate for "a" does not match host name "b"', "sslrootcert"),
        ("FATAL: the database system is starting up", "wait"),
        ("FATAL: sorry, too many clients already", "max_connections"),
        ("connection timeout expired", "firewall"),
        ("something new", "See that PostgreSQL runs"),
    ],
)
def test_what_cannot_be_brought_about_here_has_its_remedy(words, remedy):
    assert remedy in plain_error(psycopg.OperationalError(f"connection failed: {words}")).remedy


@pytest.fixture(params=["session", "transaction"])
def pooler(request, strict: PostgresServer) -> Iterator[tuple[str, str]]:
    """PgBouncer before the server, and its mode."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    folder = strict.folder / request.param
    folder.mkdir()
    folder.chmod(0o777)  # it does not run as root, as we may
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\npostgres = user=relay host={strict.folder}\n[pgbouncer]\nauth_type = any\nlisten_port = 6432\n"
        f"unix_socket_dir = {folder}\npool_mode = {request.param}\nlogfile = {folder}/log\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    user = "postgres" if os.geteuid() == 0 else None
    process = subprocess.Popen(tied([program, str(config)], user=user), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / ".s.PGSQL.6432").exists():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)
    yield request.param, f"postgresql://relay@/postgres?host={folder}&port=6432"
    process.kill()
    process.wait(10)


async def test_a_pooler_must_leave_each_its_own_session(tmp_path, pooler):
    mode, url = pooler
    if mode == "transaction":
        assert "pool_mode = session" in (await fault(tmp_path, url)).remedy
        return
    spool = PostgresSpool(spool_settings(tmp_path, url=url))
    await spool.open()
    try:
        await accept(spool)
        assert (await spool.stats()).messages == 1
    finally:
        await spool.close()
