"""The credentials of an upstream: secrets read, certificate and token files looked at."""

from __future__ import annotations

from relay import settings as to
from relay.config import files
from relay.config.credential_model import CertificateFile, NextCertificate
from relay.config.findings import Findings
from relay.config.model import UpstreamSection
from relay.config.secrets import SecretReader
from relay.config.values import GUID


class Credentials:
    """Builds the typed credentials; what turns out wrong on the way goes to the findings."""

    def __init__(self, secrets: SecretReader, findings: Findings) -> None:
        self._secrets = secrets
        self._findings = findings

    def first(self, upstream: UpstreamSection, path: str) -> to.Credential:
        """The credential of an upstream; of use only when the checks found exactly one."""
        if upstream.certificate is not None:
            return self._certificate(upstream.certificate, f"{path}.certificate")
        if upstream.managed_identity is not None:
            named = upstream.managed_identity
            return to.ManagedIdentity(None if named == "system" else named)
        if upstream.federated_token_file is not None:
            return self._federated(upstream.federated_token_file, f"{path}.federated_token_file")
        if upstream.user_login is not None:
            return self._user(upstream, f"{path}.user_login")
        return self._secret(upstream.client_secret, f"{path}.client_secret")

    def following(self, upstream: UpstreamSection, path: str) -> to.ClientSecret | to.Certificate | None:
        """``next_credential``, or None."""
        given = upstream.next_credential
        if given is None:
            return None
        if given.certificate is not None:
            return self._certificate(given.certificate, f"{path}.next_credential.certificate")
        following = self._secret(given.client_secret, f"{path}.next_credential.client_secret")
        if upstream.client_secret is not None and given.client_secret == upstream.client_secret:
            self._findings.warn(
                f"{path}.next_credential.client_secret", "this is the same as client_secret: it cannot help"
            )
        return following

    def _secret(self, text: str | None, path: str) -> to.ClientSecret:
        if text is None:
            return to.ClientSecret(to.Secret(""))
        secret = self._secrets.read(text, path)
        if GUID.fullmatch(secret.reveal().strip()):
            self._findings.warn(path, "this looks like the secret's ID; the guide's step 5 needs the Value")
        return to.ClientSecret(secret)

    def _certificate(self, given: CertificateFile | NextCertificate, path: str) -> to.Certificate:
        file = files.readable(given.file, f"{path}.file", self._findings, private=True)
        phrase = None
        if given.passphrase is not None:
            phrase = self._secrets.read(given.passphrase, f"{path}.passphrase")
        rotation = None
        if isinstance(given, CertificateFile):
            rotation = to.Rotation(given.rotate, given.lifetime, given.object_id, given.remove_old)
        return to.Certificate(file, phrase, rotation)

    def _federated(self, text: str, path: str) -> to.FederatedTokenFile:
        file = files.resolve(text, path, self._findings)
        # Only a warning: it is read again at each token request, and platforms write it late.
        if not file.exists():
            self._findings.warn(path, f"the file {file} does not exist yet")
        return to.FederatedTokenFile(file)

    def _user(self, upstream: UpstreamSection, path: str) -> to.UserLogin:
        given = upstream.user_login
        assert given is not None
        file = files.resolve(given.file, f"{path}.file", self._findings)
        key = self._secrets.read(given.key, f"{path}.key") if given.key is not None else None
        if file.exists():
            files.warn_if_public(file, f"{path}.file", self._findings)
        else:
            self._findings.warn(path, f"{upstream.from_email} has not signed in yet; run `relay login`")
        return to.UserLogin(file, upstream.from_email, key)
