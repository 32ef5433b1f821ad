"""What Microsoft Graph lets the application do, asked without sending anything to anybody.

Blocking HTTP by the tokens room's own client (verified TLS, proxies), run in a thread.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from relay.check.bounds import brief, dialogue_bound, in_thread
from relay.settings import Upstream
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
    return await _post(upstream, token, f"/users/{user}/sendMail", body)


async def _post(upstream: Upstream, token: Token, path: str, body: str) -> Answer:
    def ask() -> Answer:
        from relay.tokens.wire import Http

        http = Http.for_entra(upstream.graph_url, upstream.proxy, upstream.ca_file, dialogue_bound(upstream))
        headers = {"Authorization": f"Bearer {token.value}", "Content-Type": "text/plain"}
        try:
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
