"""What PostgreSQL and its library say, in words for an administrator: what is wrong, and what to do.

The server's own words stay, since it may speak another language than ours; the remedy is looked up by SQLSTATE where
there is one, and by the words of the untranslated messages: libpq tells no SQLSTATE of a connection that failed.
"""

from __future__ import annotations

import re

import psycopg

from relay import dburl
from relay.errors import SpoolError, SpoolFull

_NO_ROOM = frozenset({"53100", "53200"})
"""SQLSTATE disk_full and out_of_memory (PostgreSQL documentation, appendix A)."""
_CREATE = "Make the user of spool.url the owner of its database, or grant it CREATE there: GRANT CREATE ON DATABASE name TO user."
_PRIMARY = (
    "spool.url must reach the server that takes changes: name all hosts (host1,host2) and the primary is found; a database"
    " or role with default_transaction_read_only needs that taken off."
)
_TOO_MANY = (
    "Raise max_connections of the server (or the limit of the role or database): each relay needs up to 6 connections,"
    " each command for a moment up to 5."
)
_TRUST = (
    "Name the authority that signed the server's certificate (sslrootcert=FILE in spool.url, or ~/.postgresql/root.crt), and"
    " the server by a name in that certificate."
)
_BY_STATE: dict[str, str] = {
    "42501": _CREATE,  # insufficient_privilege
    "3F000": _CREATE,  # invalid_schema_name
    "25006": _PRIMARY,  # read_only_sql_transaction
    "53300": _TOO_MANY,  # too_many_connections
    "57014": "Take statement_timeout off the role of spool.url (ALTER ROLE name SET statement_timeout = 0), or raise it;"
    " when none is set, an administrator has ended the statement.",  # query_canceled
    "55P03": "Another session has locked relay's tables: look for it in pg_locks (a dump, ALTER TABLE, VACUUM FULL).",
}
_BY_WORDS: tuple[tuple[str, str], ...] = (
    (
        r"password authentication failed|no password supplied|authentication failed",
        "Put the password into ~/.pgpass of the account that relay runs as (or the file that PGPASSFILE names), one line"
        " host:port:database:user:password, mode 0600; \\password in psql sets it on the server.",
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "Let this host in: add a line such as `host DATABASE USER ADDRESS/32 scram-sha-256` (hostssl for TLS) to the server's"
        " pg_hba.conf, above any that rejects it, and reload the server (SELECT pg_reload_conf()).",
    ),
    (
        r'database "[^"]*" does not exist',
        "Create it: createdb --owner=USER --encoding=UTF8 --template=template0 NAME; or mend its name in spool.url.",
    ),
    (
        r'role "[^"]*" does not exist',
        "Create it: createuser --pwprompt NAME; or mend the user in spool.url.",
    ),
    (
        r"server does not support SSL",
        "Switch TLS on at the server (ssl = on, with a certificate), or take sslmode out of spool.url where the network is"
        " your own.",
    ),
    (r"certificate verify failed|root certificate file|does not match host name", _TRUST),
    (r"session is (not )?read-only|hot standby mode|is in recovery", _PRIMARY),
    (
        r"starting up|shutting down|in recovery mode|not yet accepting connections",
        "The server is starting, stopping or recovering: wait; relay goes on by itself once it answers.",
    ),
    (r"too many connections|too many clients|remaining connection slots|no more connections", _TOO_MANY),
    (
        r"failed to resolve host|could not translate host name",
        "Mend the host's name in spool.url, or this machine's name resolution (DNS, /etc/hosts).",
    ),
    (
        r"Connection refused|No such file or directory",
        "See that PostgreSQL runs there, listens on that address and port (listen_addresses), and that spool.url names them;"
        " relay goes on by itself once it answers.",
    ),
    (
        r"timeout expired|timed out|No route to host|Network is unreachable",
        "See that the host is up and that no firewall between stops this port; relay goes on by itself once it answers.",
    ),
)
_OTHERWISE = (
    "See that PostgreSQL runs and that spool.url names its host, database and user; "
    "relay goes on by itself once it answers."
)
_HINTS = re.compile(
    r" ?(Is the server running on that host and accepting TCP/IP connections\?"
    r"|Is the server running locally and accepting connections on that socket\?"
    r"|This probably means the server terminated abnormally before or while processing the request\.)"
)
"""libpq's own advice: ours says it better."""


def plain_error(error: BaseException) -> SpoolError:
    """An error of the database as one of ours."""
    if isinstance(error, SpoolError):
        return error
    if not isinstance(error, psycopg.Error):
        return SpoolError(f"the spool failed: {error}")
    words = _words(error)
    if error.sqlstate in _NO_ROOM:
        return SpoolFull(
            f"the database of the spool has no room: {words}", remedy="Free space on the database server."
        )
    remedy = _remedy(error, words)
    if error.sqlstate in ("42501", "3F000"):
        return SpoolError(f"the database of the spool refuses: {words}", remedy=remedy)
    if isinstance(error, psycopg.OperationalError) or remedy != _OTHERWISE:
        return SpoolError(f"the database of the spool cannot be used: {words}", remedy=remedy)
    return SpoolError(f"the database of the spool failed: {words}")


def _words(error: psycopg.Error) -> str:
    """What was said, on one line."""
    words = _HINTS.sub("", " ".join(str(error).split())).removeprefix("connection failed: ")
    if "pipeline mode" in words:  # what psycopg says of one that broke while statements were under way
        return "the connection broke"
    return words or type(error).__name__


def _remedy(error: psycopg.Error, words: str) -> str:
    by_state = _BY_STATE.get(error.sqlstate or "")
    if by_state is not None:
        return by_state
    return next((remedy for said, remedy in _BY_WORDS if re.search(said, words)), _OTHERWISE)


def wrong_address(url: str) -> SpoolError:
    """Of an address that libpq does not take. What it says may hold a part of the password, and is not passed on."""
    fault = dburl.form_fault(url)
    known = {one.keyword.decode() for one in psycopg.pq.Conninfo.get_defaults()}
    unknown = [name for name in dburl.parameters(url) if name not in known]
    if fault or not unknown or dburl.has_password(url):
        what = fault or ("has a parameter that PostgreSQL's library does not know" if unknown else "is wrong")
        return SpoolError(f"spool.url {what}", remedy=f"{dburl.REMEDY[0].upper()}{dburl.REMEDY[1:]}.")
    return SpoolError(
        f"spool.url has a parameter that PostgreSQL's library does not know: {', '.join(unknown)}",
        remedy="The parameters are in PostgreSQL's documentation, 34.1.2 (libpq): sslmode, sslrootcert, host, passfile, ...",
    )
