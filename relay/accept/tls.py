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
        raise OSError(f"TLS certificate {tls.certificate} and its key cannot be used: {error}") from error
    return context


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
