"""When the credential ends: asked of Graph where that is allowed, else from the configuration or the certificate."""

from __future__ import annotations

import datetime

from relay.check import catalogue
from relay.check.contract import Status, Step
from relay.check.graph import secret_end
from relay.check.verdicts import filled
from relay.errors import TokenError
from relay.settings import Certificate, ClientSecret, Upstream
from relay.tokens.contract import Token
from relay.tokens.credentials import expires
from relay.tokens.reasons import APP

SOON, VERY_SOON = 60, 14
"""Days left from which it is worth a word, and from which it is urgent."""


async def expiry_step(upstream: Upstream, graph: Token | None, now: datetime.datetime, about: str) -> Step:
    """``graph``: a token to ask with; None when there is none, or Graph cannot be reached."""
    kind = catalogue.EXPIRY
    if not isinstance(upstream.credential, Certificate | ClientSecret):
        return kind.step(Status.OK, "this kind of credential has no day of expiry of its own", about=about)
    why = ""
    if isinstance(upstream.credential, ClientSecret) and graph is not None:
        told = await secret_end(upstream, graph)
        if isinstance(told, datetime.datetime):
            return _judge(upstream, told, now, "from the app registration", about)
        why = told
    try:
        end = expires(upstream)
    except TokenError as error:
        return kind.step(Status.FAIL, f"{error} {error.evidence}".strip(), error.remedy, about=about)
    if end is not None:
        source = "the certificate's own" if isinstance(upstream.credential, Certificate) else "as configured"
        return _judge(upstream, end, now, source, about)
    return kind.step(
        Status.WARN,
        "the day is unknown" + (f": {why}, and client_secret_expires is not set" if why else ""),
        f"Look it up (step 5: {filled(APP, upstream)} > Certificates & secrets > Client secrets, column Expires) and "
        "write it into `client_secret_expires`; or grant the app Application.Read.All.",
        about=about,
    )


def _judge(
    upstream: Upstream, end: datetime.datetime, now: datetime.datetime, source: str, about: str
) -> Step:
    kind, days = catalogue.EXPIRY, (end - now).total_seconds() / 86400
    what = "certificate" if isinstance(upstream.credential, Certificate) else "client secret"
    seen = f"the {what} ends on {end:%Y-%m-%d} ({source}), in {days:.0f} days"
    where = f"{filled(APP, upstream)} > Certificates & secrets"
    remedy = (
        f"Step 5: {where}: upload the public part of a new certificate, then put it into `certificate`."
        if what == "certificate"
        else f"Step 5: {where} > New client secret: put its Value into `client_secret` and its day into "
        "`client_secret_expires`; delete the old one afterwards."
    )
    if days < 0:
        seen = f"the {what} has ended on {end:%Y-%m-%d} ({source})"
        return kind.step(Status.FAIL, seen, remedy, about=about)
    if days > SOON:
        return kind.step(Status.OK, seen, about=about)
    urgent = "Now: " if days <= VERY_SOON else ""
    return kind.step(Status.WARN, seen, urgent + remedy, about=about)
