"""Postfix and Dovecot in a `Root`: submission with STARTTLS and XOAUTH2, and delivery by Postfix's own client."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.interop.kit import Root, ended, until

MASTER = """\
127.0.0.1:{port} inet n - n - 20 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

MAIN = """\
compatibility_level = 3.6
maillog_file = /var/log/postfix.log
maillog_file_prefixes = /var
mail_owner = postfix
setgid_group = postdrop
data_directory = /var/lib/postfix
inet_interfaces = loopback-only
inet_protocols = ipv4
mydestination =
myhostname = mx.example
disable_dns_lookups = yes
smtpd_peername_lookup = no
alias_maps =
alias_database =
smtp_host_lookup = native
relayhost = [127.0.0.1]:{next_port}
{more}
"""

SUBMISSION = """\
mynetworks =
smtpd_tls_security_level = may
line_length_limit = 12288
smtpd_tls_cert_file = /etc/tls/cert.pem
smtpd_tls_key_file = /etc/tls/key.pem
smtpd_tls_auth_only = yes
smtpd_tls_received_header = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_sender_login_maps = static:scans@contoso.com
smtpd_sender_restrictions = reject_sender_login_mismatch
strict_rfc821_envelopes = yes
smtpd_forbid_bare_newline = yes
"""

DOVECOT = """\
protocols =
log_path = /var/log/dovecot.log
auth_verbose = yes
auth_failure_delay = 0
auth_mechanisms = xoauth2 oauthbearer
ssl = no
service auth {{
  unix_listener /var/spool/postfix/private/auth {{
    mode = 0666
  }}
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = /etc/dovecot/oauth2.conf.ext
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home=/tmp
}}
"""

OAUTH2 = """\
introspection_mode = post
introspection_url = http://127.0.0.1:{port}/introspect
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
"""


class Postfix:
    """One Postfix without Debian's scripts: its master, straight."""

    def __init__(self, root: Root, port: int, next_port: int, more: str = "mynetworks = 127.0.0.0/8") -> None:
        self.root = root
        self.port = port
        root.write("etc/postfix/main.cf", MAIN.format(next_port=next_port, more=more))
        root.write("etc/postfix/master.cf", MASTER.format(port=port))
        root.folder("var/lib/postfix", "postfix", "postfix", 0o700)
        root.folder("var/log", mode=0o777)
        root.folder("var/spool/postfix")
        for name in ("pid", "etc"):
            root.folder(f"var/spool/postfix/{name}")
        for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
                     "trace"):  # fmt: skip
            root.folder(f"var/spool/postfix/{name}", "postfix", "root", 0o700)
        root.folder("var/spool/postfix/maildrop", "postfix", "postdrop", 0o730)
        root.folder("var/spool/postfix/public", "postfix", "postdrop", 0o710)

    def log(self) -> str:
        return self.root.read("var/log/postfix.log")

    async def __aenter__(self) -> Postfix:
        self._process = await self.root.start("/usr/lib/postfix/sbin/master", "-d", "-c", "/etc/postfix")
        await until(self._listening, self.log)
        return self

    def _listening(self) -> bool:
        assert self._process.returncode is None, self.log()
        return "daemon started" in self.log()

    async def __aexit__(self, *_: object) -> None:
        await ended(self._process)


class Dovecot:
    """Dovecot's authentication alone; a web service of the test judges the tokens."""

    def __init__(self, root: Root, introspection_port: int) -> None:
        self.root = root
        root.write("etc/dovecot/dovecot.conf", DOVECOT.format())
        root.write("etc/dovecot/oauth2.conf.ext", OAUTH2.format(port=introspection_port))
        root.folder("run/dovecot")
        root.folder("var/lib/dovecot")
        root.folder("var/log", mode=0o777)

    def log(self) -> str:
        return self.root.read("var/log/dovecot.log")

    async def __aenter__(self) -> Dovecot:
        self._process = await self.root.start("/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf")
        socket = self.root.path / "var/spool/postfix/private/auth"
        await until(socket.exists, self.log)
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._process)


class Introspection:
    """The web service that says whose a token is (RFC 7662); ``tokens`` maps them to mailboxes."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.asked: list[str] = []

    async def __aenter__(self) -> Introspection:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1])
            for line in head.split("\r\n")
            if line.lower().startswith("content-length")
        )
        text = (await reader.readexactly(length)).decode()
        self.asked.append(text)
        owner = next((owner for token, owner in self.tokens.items() if f"token={token}" in text), None)
        body = f'{{"active": true, "username": "{owner}"}}' if owner else '{"active": false}'
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()


def copy_certificate(root: Root, folder: Path) -> None:
    """cert.pem and key.pem where Postfix looks for them."""
    for name in ("cert.pem", "key.pem"):
        root.write(f"etc/tls/{name}", (folder / name).read_bytes(), 0o600)
