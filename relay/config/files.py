"""Files that a configuration names: resolved, read within bounds, and their modes looked at."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from relay.config.findings import Findings

MAX_SECRET = 64 * 1024
_OWNER_ONLY = "others on this machine may read it; chmod 640 it, with the relay's own group"


def resolve(text: str, path: str, findings: Findings) -> Path:
    """The absolute name of a file given at this configuration path."""
    # abspath, not resolve: a link that is changed later (a renewed certificate) must keep working.
    return Path(os.path.abspath(findings.origin.folder(path) / at_home(text)))  # noqa: PTH100


def at_home(text: str) -> Path:
    """``~`` and ``~user`` followed where there is such a home; else the name as it stands."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path's own raises where nobody lives)


def readable(text: str, path: str, findings: Findings, *, private: bool = False) -> Path:
    """Like `resolve`; a fault when it cannot be read, a warning when ``private`` and others may read it."""
    file = resolve(text, path, findings)
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        findings.fault(
            path, f"the file {file} cannot be read ({reason})", "check its name, and that relay may read it"
        )
        return file
    if private:
        warn_if_public(file, path, findings)
    return file


def warn_if_public(file: Path, path: str, findings: Findings) -> None:
    """A warning when everybody on the machine may read this file. POSIX only: elsewhere modes say nothing."""
    if os.name != "posix":
        return
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        findings.warn(path, f"the file {file} has mode {stat.S_IMODE(mode):04o}: {_OWNER_ONLY}")


def check_pair(certificate: Path, key: Path, paths: tuple[str, str], findings: Findings) -> None:
    """A fault when certificate and key cannot be used together."""
    if not findings.sound(*paths):
        return
    try:
        # The empty passphrase keeps OpenSSL from asking on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or "not PEM, or protected by a passphrase"
        findings.fault(
            paths[0],
            f"certificate and key cannot be used ({reason})",
            "give a PEM certificate with its chain, and the key that belongs to it, without passphrase",
            involves=paths,
        )


def check_authorities(file: Path, path: str, findings: Findings) -> None:
    """A fault when a CA file holds no certificate."""
    if not findings.sound(path):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(file))
    except (ssl.SSLError, ValueError, OSError):
        findings.fault(
            path, f"the file {file} holds no PEM certificate", "export the CA's certificate as PEM (Base64)"
        )
