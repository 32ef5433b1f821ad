"""What Microsoft Graph lets the application do, asked without sending anything to anybody.

Blocking HTTP by the tokens room's own client (verified TLS, proxies), run in a thread.
"""

from __future__ import annotations

import base64
import datetime
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from relay.check.bounds import brief, dialogue_bound, in_thread
from relay.settings import ClientSecret, Upstream
from relay.tokens.contract import Token

_RECIPIENTLESS = "From: {mailbox}\r\nTo: undisclosed-recipients:;\r\nSubject: relay check\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of Graph; status 0: none came, and ``text`` says why."""

    status: int
    code: str = ""
    text: str = ""
    content: dict[str, Any] | None = None

    @property
    def words(self) -> str:
        """For people."""
        return " ".join(part for part in (str(self.status or ""), self.code, self.text) if part)


async def try_mailbox(upstream: Upstream, token: Token, mailbox: str) -> Answer:
    """sendMail of a message without recipients: Graph refuses it (400 ErrorInvalidRecipients) once rights and mailbox
    are in order, and with 403 or 404 when they are not. Nothing can be delivered to anybody (facts 6.3, 6.7).
    """
    user = urllib.parse.quote(mailbox, safe="@")
    body = base64.b64encode(_RECIPIENTLESS.format(mailbox=mailbox).encode()).decode()
    return await _call(upstream, token, "POST", f"/users/{user}/sendMail", body)


async def secret_end(upstream: Upstream, token: Token) -> datetime.datetime | str:
    """When the client secret in use ends, from the app registration; a text: why Graph does not tell (facts 8)."""
    wanted = f"/applications(appId='{upstream.client_id}')?$select=appId,passwordCredentials"
    answer = await _call(upstream, token, "GET", wanted)
    if answer.status == 403:
        return "the app may not read its own registration (that needs Application.Read.All)"
    if answer.status != 200 or answer.content is None:
        return f"Graph did not tell: {answer.words}"
    return (
        _end_of_ours(upstream, answer.content)
        or "the app registration lists no secret that begins like this one"
    )


def _end_of_ours(upstream: Upstream, content: dict[str, Any]) -> datetime.datetime | None:
    """Graph shows the first three characters of each secret; of several that fit, the one that lasts longest."""
    credential = upstream.credential
    assert isinstance(credential, ClientSecret)
    listed = content.get("passwordCredentials")
    ends = [
        _moment(str(one.get("endDateTime")))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("hint") == credential.secret.reveal()[:3]
    ]
    return max((end for end in ends if end is not None), default=None)


def _moment(text: str) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


async def _call(upstream: Upstream, token: Token, method: str, path: str, body: str | None = None) -> Answer:
    def ask() -> Answer:
        from relay.tokens.wire import Http

        http = Http.for_entra(upstream.graph_url, upstream.proxy, upstream.ca_file, dialogue_bound(upstream))
        headers = {"Authorization": f"Bearer {token.value}", "Accept": "application/json"}
        try:
            if body is None:
                answer = http.get(upstream.graph_url + "/v1.0" + path, headers=headers)
            else:
                headers["Content-Type"] = "text/plain"
                answer = http.post(upstream.graph_url + "/v1.0" + path, headers=headers, data=body)
            return _read(answer.status_code, answer.text)
        finally:
            http.close()

    try:
        return await in_thread(ask, dialogue_bound(upstream))
    except TimeoutError:
        return Answer(0, "", f"timed out: no answer within {dialogue_bound(upstream):g} s")
    except OSError as error:  # requests' exceptions are OSErrors
        return Answer(0, "", brief(error))


def _read(status: int, text: str) -> Answer:
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Answer(status, "", " ".join(text.split())[:200])
    error = content.get("error")
    if isinstance(error, dict):
        return Answer(status, str(error.get("code") or ""), str(error.get("message") or "")[:200], content)
    return Answer(status, content=content)
