"""Replacing the relay's own certificate in time, at the app registration as well. Blocking: for a worker thread.

The steps, and what a crash between them leaves; `advance` goes on from each of them:

1. the new key is written to ``FILE.next``: nothing has changed, the present one works
2. Graph ``addKey``, with a proof by the present key: both are registered, ``FILE.next.registered`` says so
3. the new one gets a token: only now it has shown that it works
4. a copy of the present file goes to ``FILE.old``, then ``FILE.next`` takes its place in one step
5. ``removeKey`` of the old one, if wanted: FILE holds the new one, which works

At every instant FILE holds a key that is registered. Two processes never rotate at once: a lock beside the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from relay.clock import Clock
from relay.errors import TokenError
from relay.settings import Certificate, Upstream
from relay.tokens.asker import Asker
from relay.tokens.contract import Resource, Token
from relay.tokens.credentials import KeyPair, load_certificate
from relay.tokens.directory import Directory
from relay.tokens.filelock import locked
from relay.tokens.keypair import CertificateFacts, facts, make, to_pem, write_private
from relay.tokens.reasons import local

LEAST_LEFT = 30 * 86400.0
"""Seconds before its end at which a certificate is replaced at the latest ..."""
SHARE_LEFT = 1 / 3
"""... or this share of its life, if that is more, so that a failure leaves months to be noticed ..."""
MOST_LEFT = 1 / 2
"""... and never more than this share: a short-lived one would be replaced at once again."""
REGISTER_AGAIN = 3600.0
"""Seconds after which a registered key that is still refused is registered once more: somebody removed it."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done: the certificate before and now, and what is left to do by hand (may be empty)."""

    old: CertificateFacts
    new: CertificateFacts
    removed: bool
    note: str = ""


def due(certificate: CertificateFacts, now: float) -> bool:
    """Whether it is time to replace it."""
    life = certificate.ends - certificate.begins
    return certificate.ends - now <= min(MOST_LEFT * life, max(SHARE_LEFT * life, LEAST_LEFT))


def advance(upstream: Upstream, clock: Clock) -> Rotated:
    """Replace the certificate, going on where an earlier try ended.

    Raises TokenError: ``rotation-pending`` when Entra does not take the new one yet (call again in a minute);
    ``temporary`` ones mend themselves, the others say what an administrator must do. The present one keeps working.
    """
    certificate = upstream.credential
    if not isinstance(certificate, Certificate):
        raise local("rotation-no-certificate").error(evidence=upstream.name)
    try:
        with locked(certificate.file, 0.0):
            return _Turn(upstream, certificate, clock).run()
    except TimeoutError as busy:
        raise local("rotation-busy").error(evidence=str(busy)) from None
    except OSError as fault:
        evidence = f"{certificate.file}: {fault.strerror or fault}"
        raise local("certificate-read-only").error(evidence=evidence) from fault


class _Turn:
    """One rotation, under the lock."""

    def __init__(self, upstream: Upstream, certificate: Certificate, clock: Clock) -> None:
        self._upstream = upstream
        self._certificate = certificate
        self._clock = clock
        self._file = certificate.file
        self._next = _beside(self._file, ".next")
        self._mark = _beside(self._file, ".next.registered")

    def run(self) -> Rotated:
        if b"-----BEGIN" not in self._file.read_bytes():
            raise local("rotation-needs-pem").error(evidence=str(self._file))
        present = load_certificate(self._certificate)
        new, fresh = self._new(present)
        if fresh or not self._logs_in():
            self._make_known(new, present)
        self._put_in_place()
        removed, note = self._remove(present, new)
        return Rotated(facts(present.leaf), facts(new.leaf), removed, note)

    def _new(self, present: KeyPair) -> tuple[KeyPair, bool]:
        """The key of an earlier try if it is worth going on with, else a new one; and whether it is new."""
        try:
            kept = load_certificate(dataclasses.replace(self._certificate, file=self._next))
            if kept.key.public_key() != present.key.public_key() and not due(
                facts(kept.leaf), self._clock.now()
            ):
                return kept, False
        except TokenError:
            pass  # none, or cut short by something other than us: a new one replaces it
        rotation = self._certificate.rotation
        lifetime = rotation.lifetime if rotation else _lifetime(facts(present.leaf))
        new = make(_name(present), lifetime, self._clock.now())
        phrase = self._certificate.passphrase
        self._unmark()
        write_private(self._next, to_pem(new, phrase.reveal() if phrase else None))
        return new, True

    def _logs_in(self) -> bool:
        """Whether Entra gives a token for the new key. Raises TokenError when it refuses for another reason."""
        new = dataclasses.replace(self._certificate, file=self._next)
        try:
            self._token(new)
        except TokenError as error:
            if error.code == "certificate-unknown":
                return False
            raise
        return True

    def _token(self, certificate: Certificate) -> Token:
        one = dataclasses.replace(self._upstream, credential=certificate, next_credential=None)
        return Asker(one, self._clock).fetch(Resource.GRAPH)

    def _make_known(self, new: KeyPair, present: KeyPair) -> None:
        """Register the new key, unless that was done a moment ago. Raises TokenError while Entra does not take it."""
        if not self._is_registered(new):
            self._register(new, present)
            if self._logs_in():
                return
        raise local("rotation-pending").error(evidence=f"SHA-1 {facts(new.leaf).sha1}")

    def _register(self, new: KeyPair, present: KeyPair) -> None:
        directory = Directory(self._upstream, self._token(self._certificate))
        object_id = self._object_id(directory)
        directory.add_key(object_id, new, present, self._clock.now())
        write_private(self._mark, facts(new.leaf).sha256.encode())

    def _object_id(self, directory: Directory) -> str:
        rotation = self._certificate.rotation
        if rotation and rotation.object_id:
            return rotation.object_id
        try:
            found = directory.registration().object_id
        except TokenError as error:
            if error.code == "directory-denied":
                raise local("object-id-unknown").error(evidence=error.evidence) from None
            raise
        if not found:
            raise local("object-id-unknown").error(evidence="Graph's answer holds no id")
        return found

    def _is_registered(self, new: KeyPair) -> bool:
        """Whether an earlier try registered this very key, not too long ago."""
        try:
            recent = time.time() - self._mark.stat().st_mtime < REGISTER_AGAIN
            return recent and self._mark.read_text() == facts(new.leaf).sha256
        except OSError:
            return False

    def _put_in_place(self) -> None:
        write_private(_beside(self._file, ".old"), self._file.read_bytes())
        write_private(self._file, self._next.read_bytes())
        self._next.unlink()
        self._unmark()

    def _unmark(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._mark.unlink()

    def _remove(self, old: KeyPair, new: KeyPair) -> tuple[bool, str]:
        """The old one leaves the registration. A failure is no harm: it ends by itself."""
        rotation, thumbprint = self._certificate.rotation, facts(old.leaf).sha1
        if rotation is None or not rotation.remove_old:
            return False, ""
        try:
            directory = Directory(self._upstream, self._token(self._certificate))
            known = directory.registration()
            fitting = [one for one in known.keys if one.thumbprint == thumbprint]
            for one in fitting:
                directory.remove_key(known.object_id, one.key_id, new, self._clock.now())
        except TokenError as error:
            note = f"The old certificate (SHA-1 {thumbprint}) is still registered: {error} {error.remedy}"
            return False, note
        with contextlib.suppress(FileNotFoundError):
            _beside(self._file, ".old").unlink()
        return bool(fitting), ""


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _lifetime(certificate: CertificateFacts) -> float:
    return certificate.ends - certificate.begins


def _name(present: KeyPair) -> str:
    from cryptography.x509.oid import NameOID

    names = present.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else "relay"
