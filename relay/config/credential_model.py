"""The part of the model that is about an upstream's credentials; see `relay.config.model`."""

from __future__ import annotations

from pydantic import Field

from relay.config.fields import Day, Duration, FilePath, Guid, SecretText, Section, Switch


class CertificateFile(Section):
    """upstreams[].certificate"""

    file: FilePath = Field(
        description="PFX file, or a PEM that holds certificate and key.", examples=["app.pfx"]
    )
    passphrase: SecretText | None = Field(
        None, repr=False, description="Passphrase of the file (a secret value)."
    )
    rotate: Switch = Field(
        False,
        description="Relay replaces the certificate in time by itself, at the app registration as well.",
    )
    lifetime: Duration = Field(
        31_536_000.0, description="How long each new certificate is good for, when it is rotated."
    )
    object_id: Guid | None = Field(
        None,
        description="Object ID of the app registration, for rotating; not needed with Application.Read.All.",
    )
    remove_old: Switch = Field(
        False, description="After rotating, take the old certificate out of the app registration."
    )


class NextCertificate(Section):
    """upstreams[].next_credential.certificate"""

    file: FilePath = Field(
        description="PFX file, or a PEM that holds certificate and key.", examples=["next.pfx"]
    )
    passphrase: SecretText | None = Field(
        None, repr=False, description="Passphrase of the file (a secret value)."
    )


class NextCredential(Section):
    """upstreams[].next_credential"""

    client_secret: SecretText | None = Field(
        None, repr=False, description="The second client secret's Value (a secret value)."
    )
    client_secret_expires: Day | None = Field(None, description="Day on which that secret expires.")
    certificate: NextCertificate | None = Field(
        None, description="A certificate as the second credential, instead of a secret."
    )


class UserLoginSection(Section):
    """upstreams[].user_login"""

    file: FilePath = Field(
        description="Where `relay login` keeps the sign-in, encrypted; the relay must be able to write it.",
        examples=["user-login.json"],
    )
    key: SecretText | None = Field(
        None,
        repr=False,
        description="What it is encrypted with (a secret value). Default: a key file beside it.",
    )
