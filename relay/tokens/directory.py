"""What Microsoft Graph knows of our own app registration: when its secrets end, and its keys, which can be rolled.

Sources: Microsoft Graph, "Get application", "application: addKey", "application: removeKey" and "Generate proof of
possession tokens for rolling keys". Reading needs Application.Read.All; rolling an application's own keys needs no
permission at all, but the Object ID of the registration. Blocking (requests): for a worker thread.
"""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from relay.errors import TokenError
from relay.settings import Upstream
from relay.tokens import faults
from relay.tokens.claims import READERS
from relay.tokens.contract import Token
from relay.tokens.credentials import KeyPair
from relay.tokens.keypair import facts
from relay.tokens.reasons import local
from relay.tokens.wire import Answer, Http

PROOF_AUDIENCE = "00000002-0000-0000-c000-000000000000"
PROOF_SECONDS = 600
"""The longest life of a proof."""


@dataclass(frozen=True, slots=True)
class RegisteredSecret:
    """One client secret of the registration; ``hint`` is its first three characters, ``ends`` wall seconds."""

    hint: str
    ends: float


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """One certificate of the registration; ``thumbprint`` is SHA-1 in upper-case hexadecimal."""

    key_id: str
    thumbprint: str
    ends: float | None


@dataclass(frozen=True, slots=True)
class Registration:
    """The app registration, as far as credentials go."""

    object_id: str
    secrets: tuple[RegisteredSecret, ...]
    keys: tuple[RegisteredKey, ...]

    def secret_ends(self, value: str) -> float | None:
        """When the secret with this value ends; None when none fits. Of several that fit, the first to end."""
        fitting = [one.ends for one in self.secrets if one.hint and value.startswith(one.hint)]
        return min(fitting, default=None)


def may_read(token: Token) -> bool:
    """Whether this Graph token shows the right to read the registration: else asking is of no use."""
    return bool(READERS & set(token.roles))


class Directory:
    """Our registration at Microsoft Graph, with one Graph token. Raises TokenError ``directory-...`` only."""

    def __init__(self, upstream: Upstream, token: Token) -> None:
        self._upstream = upstream
        self._token = token
        self._base = f"{upstream.graph_url}/v1.0/applications"

    def registration(self) -> Registration:
        """Read it. ``directory-denied`` when the permission is missing."""
        fields = "id,appId,passwordCredentials,keyCredentials"
        answer = self._ask("get", f"{self._base}(appId='{self._upstream.client_id}')?$select={fields}")
        try:
            return _registration(json.loads(answer.text))
        except (ValueError, KeyError, TypeError) as fault:
            raise local("directory-refused").error(evidence=f"unexpected answer: {fault!r}") from fault

    def add_key(self, object_id: str, new: KeyPair, present: KeyPair, now: float) -> None:
        """Register ``new``'s public part; ``present``, which is registered, vouches for it."""
        from cryptography.hazmat.primitives.serialization import Encoding

        key = base64.b64encode(new.leaf.public_bytes(Encoding.DER)).decode()
        body = {
            "keyCredential": {"type": "AsymmetricX509Cert", "usage": "Verify", "key": key},
            "passwordCredential": None,
            "proof": proof(object_id, present, now),
        }
        self._ask("post", f"{self._base}/{object_id}/addKey", body)

    def remove_key(self, object_id: str, key_id: str, present: KeyPair, now: float) -> None:
        """Take a key out of the registration; ``present``, another one, vouches for that."""
        body = {"keyId": key_id, "proof": proof(object_id, present, now)}
        self._ask("post", f"{self._base}/{object_id}/removeKey", body)

    def _ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> Answer:
        up = self._upstream
        http = Http.for_entra(up.graph_url, up.proxy, up.ca_file, up.timeout)
        headers = {"Authorization": f"Bearer {self._token.value}", "Accept": "application/json"}
        try:
            answer = (
                http.get(url, headers=headers) if body is None else http.post(url, headers=headers, json=body)
            )
        except TokenError:
            raise
        except Exception as fault:  # requests raises a dozen kinds
            reason, _ = faults.from_exception(fault, None)
            evidence = f"{urlsplit(up.graph_url).hostname}: {reason.slug}"
            raise local("directory-unreachable").error(evidence=evidence) from None
        finally:
            http.close()
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer


def _refusal(answer: Answer) -> TokenError:
    evidence = f"HTTP {answer.status_code}: {_words(answer.text)}"
    if answer.status_code in (401, 403):
        return local("directory-denied").error(evidence=evidence)
    busy = answer.status_code == 429 or answer.status_code >= 500
    return local("directory-unreachable" if busy else "directory-refused").error(evidence=evidence)


def _words(body: str) -> str:
    """Code and message of Graph's error answer."""
    try:
        error = json.loads(body)["error"]
        return faults.brief(f"{error['code']}: {error['message']}")
    except (ValueError, KeyError, TypeError):
        return faults.brief(body)[:200] or "(empty)"


def _registration(body: dict[str, Any]) -> Registration:
    secrets = tuple(
        RegisteredSecret(str(one.get("hint") or ""), ends)
        for one in body.get("passwordCredentials") or ()
        if (ends := _moment(one.get("endDateTime"))) is not None
    )
    keys = tuple(
        RegisteredKey(
            str(one["keyId"]), _thumbprint(one.get("customKeyIdentifier")), _moment(one.get("endDateTime"))
        )
        for one in body.get("keyCredentials") or ()
    )
    return Registration(str(body.get("id") or ""), secrets, keys)


def _moment(text: object) -> float | None:
    """ISO 8601 as Graph writes it, up to seven decimals of a second."""
    try:
        return datetime.datetime.fromisoformat(str(text)[:19] + "+00:00").timestamp()
    except ValueError:
        return None


def _thumbprint(identifier: object) -> str:
    """Graph gives the SHA-1 thumbprint in base64, older entries in hexadecimal."""
    text = str(identifier or "")
    if len(text) == 40:
        return text.upper()
    try:
        return base64.b64decode(text, validate=True).hex().upper()
    except ValueError:
        return ""


def proof(object_id: str, present: KeyPair, now: float) -> str:
    """The proof of possession: a JWT (RFC 7519) that a registered certificate's key signs (RS256)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    thumbprint = facts(present.leaf).sha1
    header = {"alg": "RS256", "typ": "JWT", "kid": thumbprint, "x5t": _b64url(bytes.fromhex(thumbprint))}
    claims = {"aud": PROOF_AUDIENCE, "iss": object_id, "nbf": int(now), "exp": int(now) + PROOF_SECONDS}
    signed = f"{_b64url(json.dumps(header).encode())}.{_b64url(json.dumps(claims).encode())}"
    signature = present.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_b64url(signature)}"


def _b64url(data: bytes) -> str:
    """Without padding: Graph refuses it."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
