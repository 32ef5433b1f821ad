"""Whatever msal, requests, urllib3, ssl or a socket raises, turned into one typed TokenError.

The mapping follows facts 7.4: unknown tenants come as ValueError with the AADSTS text in a chained exception, a 429
with HTML as JSONDecodeError, a 5xx as MsalServiceError, and the network as requests' exceptions around the real
cause. Runs in a worker thread.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from relay.tokens import aadsts
from relay.tokens.reasons import Reason, local

if TYPE_CHECKING:
    from relay.tokens.wire import Answer

EVIDENCE_LENGTH = 500
"""Characters of Microsoft's own words that are kept."""
_OUTSIDE_ITS_DATES = {9, 10}
"""OpenSSL verify codes X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_DNS_FAILURES = ("NameResolutionError", "gaierror")


def chain(fault: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and the ones urllib3 tucks away in ``reason`` and ``args``; each once."""
    seen: set[int] = set()
    waiting: list[object] = [fault]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def from_result(result: dict[str, object], last: Answer | None) -> tuple[Reason, str]:
    """The row and the evidence for msal's error dictionary (an OAuth error answer, RFC 6749 section 5.2)."""
    text = str(result.get("error_description") or "")
    numbers = result.get("error_codes")
    codes = [number for number in numbers if isinstance(number, int)] if isinstance(numbers, list) else []
    error = str(result.get("error") or "")
    if last is not None and last.status_code == 429:
        return local("entra-throttled"), brief(text or error)
    return aadsts.look_up([*codes, *aadsts.codes_in(text)], error), brief(text or error)


def from_exception(fault: BaseException, last: Answer | None) -> tuple[Reason, str]:
    """The row and the evidence for anything raised while asking."""
    causes = list(chain(fault))
    if last is not None:
        return _from_answer(last, causes)
    return _from_network(causes), brief(_innermost(causes))


def _from_answer(last: Answer, causes: list[BaseException]) -> tuple[Reason, str]:
    """The server did answer, and msal could make nothing of it."""
    evidence = f"HTTP {last.status_code}: {_words(last.text)}"
    if last.status_code == 429:
        return local("entra-throttled"), evidence
    if last.status_code >= 500:
        return local("entra-down"), evidence
    codes = aadsts.codes_in(last.text) or aadsts.codes_in(" ".join(str(cause) for cause in causes))
    if codes:
        return aadsts.look_up(codes), brief(_description(last.text))
    if not last.is_json() or any(isinstance(cause, KeyError) for cause in causes):
        return local("not-entra"), evidence
    if last.status_code < 300:  # the answer was fine: what broke is on our side
        return local("internal"), brief(_innermost(causes))
    return aadsts.UNKNOWN, evidence


def _from_network(causes: list[BaseException]) -> Reason:
    names = {type(cause).__name__ for cause in causes}
    if "TooManyRedirects" in names:
        return local("not-entra")
    if names & {"ProxyError", "InvalidProxyURL"}:
        return _about_proxy(causes)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return local("tls-clock" if cause.verify_code in _OUTSIDE_ITS_DATES else "tls-not-trusted")
    if any(isinstance(cause, socket.gaierror) for cause in causes) or names & set(_DNS_FAILURES):
        return local("dns-failure")
    return _from_connection(causes, names)


def _from_connection(causes: list[BaseException], names: set[str]) -> Reason:
    if any(isinstance(cause, TimeoutError) for cause in causes) or names & {"ConnectTimeout", "ReadTimeout"}:
        return local("timed-out")
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "SSLError" in names:
        return local("tls-failure")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "NewConnectionError" in names:
        return local("connection-refused")
    if any(isinstance(cause, OSError) for cause in causes):
        return local("connection-lost")
    return local("internal")


def _about_proxy(causes: list[BaseException]) -> Reason:
    wants_password = any("407" in str(cause) for cause in causes)
    return local("proxy-authentication" if wants_password else "proxy-failure")


def _innermost(causes: list[BaseException]) -> str:
    """The most telling words: the real cause is the last in the chain that has any."""
    said = [
        f"{type(cause).__name__}: {cause}"
        for cause in causes
        if isinstance(cause, OSError) and cause.strerror
    ]
    return said[-1] if said else f"{type(causes[0]).__name__}: {causes[0]}"


def brief(text: str) -> str:
    """One line of bounded length: evidence goes into logs and pages."""
    return " ".join(text.split())[:EVIDENCE_LENGTH]


def _words(body: str) -> str:
    """What a body says, for evidence: the description of a JSON error, else its start (HTML has no more to tell)."""
    return _description(body)[:200] or "(empty)"


def _description(body: str) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return brief(body)
    said = answer.get("error_description") or answer.get("error") if isinstance(answer, dict) else None
    return brief(str(said or body))
