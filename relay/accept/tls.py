"""TLS contexts of the listeners: built once, built again when the certificate's files change."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

from relay import events
from relay.settings import ListenerTls

_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_OLD = ("1.0", "1.1")


class Certificates:
    """The context of one listener, kept until its settings or files change."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._made_from: object = None
        self._failed: object = None

    def context(self, tls: ListenerTls) -> ssl.SSLContext | None:
        """The context for these settings, None for mode ``none``. Raises OSError with what to mend."""
        if tls.mode == "none":
            return None
        state = _state(tls)
        if self._context is None or state != self._made_from:
            self._context = build(tls)
            self._made_from = state
        return self._context

    def changed(self, tls: ListenerTls) -> bool:
        """Whether the files are others than those in use, and than those that could not be used last."""
        return tls.mode != "none" and _state(tls) not in (self._made_from, self._failed)

    def renewed(self, tls: ListenerTls) -> ssl.SSLContext | None:
        """The same at a reload: when the new files cannot be used, the old context stays and it is said."""
        try:
            return self.context(tls)
        except OSError as error:
            self._failed = _state(tls)
            events.trouble(
                where="accept.tls",
                what=f"{error}; the certificate loaded before stays in use",
                remedy="mend the files and reload",
            )
            return self._context


def build(tls: ListenerTls) -> ssl.SSLContext:
    """A server context. Below TLS 1.2 the security level falls to 0, since old devices have nothing better."""
    if tls.certificate is None:
        raise OSError("tls.certificate is not set; name the PEM file of the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = _VERSIONS[tls.minimum]
    if tls.minimum in _OLD:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except FileNotFoundError as error:
        raise OSError(
            f"TLS certificate or key not found: {tls.certificate}, {tls.key or 'same file'}"
        ) from error
    except ssl.SSLError as error:
        small = "; tls.minimum 1.0 takes small keys" if "TOO_SMALL" in str(error) else ""
        raise OSError(
            f"TLS certificate {tls.certificate} and its key cannot be used: {error}{small}"
        ) from error
    if tls.minimum in _OLD:
        _say_if_forbidden(context, tls.minimum)
    return context


def _say_if_forbidden(context: ssl.SSLContext, minimum: str) -> None:
    """OpenSSL may have been built or configured without the old versions, and then says so to nobody."""
    hindrance = _try_handshake(context, _VERSIONS[minimum])
    if hindrance:
        events.advice(
            where="accept.tls",
            what=f"tls.minimum is {minimum}, but OpenSSL on this machine does not permit TLS {minimum} ({hindrance}):"
            " devices that know nothing newer stay out",
            remedy="use a system whose OpenSSL still has it (crypto policy LEGACY on Red Hat), or tls.mode none for"
            " these devices, on a listener of their own network",
        )


def _try_handshake(server: ssl.SSLContext, version: ssl.TLSVersion) -> str:
    """A handshake in memory with a client of that version; OpenSSL's words when it fails, else nothing."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version = client.maximum_version = version
        client.set_ciphers("DEFAULT:@SECLEVEL=0")
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
        for _ in range(4):  # flights of TLS 1.0, and one to spare
            ends = [end for end in ends if not _shake(end)]
    except (ssl.SSLError, ValueError) as error:
        return getattr(error, "reason", None) or str(error)
    return "no handshake" if ends else ""


def _shake(end: ssl.SSLObject) -> bool:
    """One step; whether the handshake is done."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _state(tls: ListenerTls) -> tuple[object, ...]:
    return tls, _stamp(tls.certificate), _stamp(tls.key)


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when the file does."""
    if path is None:
        return None
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
