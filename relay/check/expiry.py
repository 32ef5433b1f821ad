"""When the credentials end: asked of Graph where that is allowed, else from the configuration and the files."""

from __future__ import annotations

from relay.check import catalogue
from relay.check.bounds import dialogue_bound, in_thread
from relay.check.contract import Status, Step
from relay.check.verdicts import filled
from relay.errors import TokenError
from relay.settings import ClientSecret, Upstream
from relay.tokens.choice import NAMES
from relay.tokens.contract import Token
from relay.tokens.expiry import Ends, credential_findings

_LEVELS = (Status.OK, Status.WARN, Status.FAIL)


async def expiry_step(upstream: Upstream, graph: Token | None, now: float, about: str) -> Step:
    """``graph``: a token to ask with; None when there is none, or Graph cannot be reached. ``now``: wall seconds."""
    kind, seconds = catalogue.EXPIRY, dialogue_bound(upstream)
    roles = graph.roles if graph is not None else None
    try:
        ends, note = await in_thread(lambda: _asked(upstream, graph), seconds)
        found = await in_thread(lambda: credential_findings(upstream, now, ends, roles), seconds)
    except TimeoutError:
        return kind.step(Status.WARN, f"timed out after {seconds:g} s", "Run relay check again.", about=about)
    worst = max((Status(one.level) for one in found), key=_LEVELS.index)
    seen = " ".join([*(one.seen for one in found), *([note] if note else [])])
    remedy = " ".join(dict.fromkeys(filled(one.remedy, upstream) for one in found if one.remedy))
    return kind.step(worst, seen, "" if worst is Status.OK else remedy, about=about)


def _asked(upstream: Upstream, graph: Token | None) -> tuple[Ends, str]:
    """What the app registration says of the client secrets, and a word on that. Blocking."""
    from relay.tokens.directory import Directory, may_read

    secrets = {NAMES[0]: upstream.credential, NAMES[1]: upstream.next_credential}
    if graph is None or not any(isinstance(one, ClientSecret) for one in secrets.values()):
        return {}, ""
    if not may_read(graph):
        return {}, "(The app may not read its own registration: that needs Application.Read.All.)"
    try:
        registration = Directory(upstream, graph).registration()
    except TokenError as error:
        return {}, f"(The app registration could not be read: {error} {error.evidence})"
    ends = {
        (upstream.name, slot): end
        for slot, one in secrets.items()
        if isinstance(one, ClientSecret)
        and (end := registration.secret_ends(one.secret.reveal())) is not None
    }
    return (
        ends,
        "(According to the app registration.)" if ends else "(The app registration lists no such secret.)",
    )
