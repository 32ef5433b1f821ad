"""Settings: the guide's eight fields first, then the rest; Save checks step by step and stores what works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay.config.faults import ConfigError, Fault
from relay.config.validate import path_of
from relay.settings import ClientSecret, Settings, Upstream
from relay.web import forms
from relay.web.configfile import REFERENCES, Changes, KeyPath
from relay.web.page import FORM, LIVE, asked, fragment, go, page_of, shown, text, trouble

UPSTREAM = (*forms.EIGHT, *forms.ADVANCED)
_SENT_BY = ("authority", "proxy", "ca_file")
"""What decides who gets to see the secret."""


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/settings", settings)
    router.add_post("/settings/upstream/{index:[0-9]{1,3}}", save_upstream)
    router.add_post("/settings/upstream/{index:[0-9]{1,3}}/check", check_upstream)
    router.add_get("/settings/listener/{index:[0-9]{1,3}}", listener)
    router.add_post("/settings/listener/{index:[0-9]{1,3}}", save_listener)
    router.add_post("/settings/listener/{index:[0-9]{1,3}}/remove", remove_listener)
    router.add_get("/settings/saving/{id}", saving)
    router.add_post("/settings/saving/{id}", insist)


def _number(request: web.Request) -> int:
    return int(request.match_info["index"])


def _members(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _member(data: Mapping[str, Any], name: str, index: int) -> Any:
    members = _members(data, name)
    return members[index] if index < len(members) else {}


async def settings(request: web.Request) -> web.Response:
    """The page."""
    page = page_of(request)
    index = int(asked(request, "upstream", 3) or 0) if asked(request, "upstream", 3).isdecimal() else 0
    again = page.savings.find(asked(request, "again", 40))
    typed = again.typed if again is not None and again.back.startswith("/settings?") else None
    return await _page(request, min(index, len(page.desk.settings.upstreams) - 1), typed=typed)


async def _page(
    request: web.Request,
    index: int,
    status: int = 200,
    *,
    typed: Mapping[str, str] | None = None,
    faults: ConfigError | None = None,
) -> web.Response:
    page = page_of(request)
    data, now = await page.savings.config.data(), page.desk.settings
    effective = _effective(now.upstreams[index])
    section = _member(data, "upstreams", index) if data else effective
    at: KeyPath = ("upstreams", index)
    credential = now.upstreams[index].credential
    shared: dict[str, Any] = {
        "typed": typed, "faults": faults, "variables": dict(now.variables),
        "effective": effective,
        "secret_set": isinstance(credential, ClientSecret) and bool(credential.secret.reveal()),
    }  # fmt: skip
    eight = forms.filled(forms.EIGHT, section, at, **shared)
    advanced = forms.filled(forms.ADVANCED, section, at, **shared)
    return shown(
        request,
        "settings.html",
        status,
        eight=eight,
        advanced=advanced,
        options=forms.options,
        index=index,
        upstreams=now.upstreams,
        listeners=now.listeners,
        other_credential=_other_credential(now.upstreams[index]),
        secret_source=credential.secret.source if isinstance(credential, ClientSecret) else "",
        obstacle=page.savings.config.obstacle(),
        source=now.source,
        warnings=now.warnings,
        beside=forms.elsewhere(faults, [*eight, *advanced]) if faults else [],
        advanced_open=any(one.fault for one in advanced),
    )


def _other_credential(upstream: Upstream) -> str:
    """The kind of credential in use, when it is not a secret."""
    kinds = {"Certificate": "a certificate", "ManagedIdentity": "a managed identity",
             "FederatedTokenFile": "a workload identity"}  # fmt: skip
    name = type(upstream.credential).__name__
    return "" if name == "ClientSecret" else kinds.get(name, "another credential")


def _effective(upstream: Upstream) -> dict[str, Any]:
    """The section as a file would say it, for a relay that has none."""
    timeout = upstream.timeout
    batch = {10: "small", 30: "medium", 100: "large"}.get(upstream.batch_size, str(upstream.batch_size))
    return {
        "server_name": upstream.name,
        "from_email": upstream.from_email,
        "tenant_id": upstream.tenant_id,
        "client_id": upstream.client_id,
        "port": str(upstream.port),
        "timeout": f"{timeout:.0f}",
        "batch_size": batch,
        "host": upstream.host,
        "transport": upstream.transport,
        "cloud": upstream.cloud,
    }


def _typed(request: web.Request, fields: tuple[forms.Field, ...]) -> dict[str, str]:
    """What was sent of these fields, the secret left out."""
    return {
        one.name: text(request, one.name)
        for one in fields
        if one.kind != "secret" and one.name in request[FORM]
    }


async def save_upstream(request: web.Request) -> web.Response:
    """Save: judged as a whole, tried at Microsoft step by step, then stored."""
    page, index = page_of(request), _number(request)
    config, at = page.savings.config, ("upstreams", _number(request))
    if index >= len(page.desk.settings.upstreams):
        return trouble(request, 404, "There is no such upstream.")
    typed, secret = _typed(request, UPSTREAM), text(request, "client_secret")
    section = _member(await config.data(), "upstreams", index)
    changes = forms.changes(UPSTREAM, section, at, typed)
    if secret.startswith(REFERENCES):
        changes[(*at, "client_secret")], secret = secret, ""
    if not changes and not secret:
        return go(
            request, f"/settings?upstream={index}", ("ok", "Nothing was changed, so nothing was stored.")
        )
    try:
        if not secret and (*at, "client_secret") not in changes:
            _must_type_secret(page.desk.settings.upstreams[index], changes, at)
        draft = await config.draft(changes, secret, (*at, "client_secret"))
    except ConfigError as error:
        return await _page(request, index, 422, typed=typed, faults=error)
    upstream = draft.settings.upstreams[index]
    begun = page.savings.begin(
        f"Saving {upstream.name}", f"/settings?upstream={index}", draft, upstream, typed
    )
    return go(request, f"/settings/saving/{begun.id}")


def _must_type_secret(upstream: Upstream, changes: Changes, at: KeyPath) -> None:
    """Raises ConfigError when the stored secret would go to another place: who changes that must know the secret."""
    if isinstance(upstream.credential, ClientSecret) and any((*at, key) in changes for key in _SENT_BY):
        problem = "has to be typed again, since the way by which it is sent was changed"
        remedy = "type the secret's Value, too (the guide's step 5)"
        raise ConfigError([Fault(path_of((*at, "client_secret")), None, problem, remedy, "form")])


async def check_upstream(request: web.Request) -> web.Response:
    """Check what is in force, and store nothing."""
    page, index = page_of(request), _number(request)
    if index >= len(page.desk.settings.upstreams):
        return trouble(request, 404, "There is no such upstream.")
    upstream = page.desk.settings.upstreams[index]
    begun = page.savings.begin(f"Checking {upstream.name}", f"/settings?upstream={index}", None, upstream)
    return go(request, f"/settings/saving/{begun.id}")


async def saving(request: web.Request) -> web.Response:
    """The steps of a save, as they come."""
    found = page_of(request).savings.find(request.match_info["id"])
    if found is None:
        return trouble(
            request,
            404,
            "This save is no longer remembered.",
            "Look at the settings: they say what is stored.",
        )
    if LIVE in request.headers:
        return fragment(request, "saving_live.html", saving=found, done=not found.running)
    return shown(request, "saving.html", saving=found)


async def insist(request: web.Request) -> web.Response:
    """Store although a step failed."""
    page = page_of(request)
    found = page.savings.find(request.match_info["id"])
    if found is None:
        return trouble(request, 404, "This save is no longer remembered.")
    await page.savings.insist(found)
    return go(request, f"/settings/saving/{found.id}")


# listeners


async def listener(request: web.Request) -> web.Response:
    """One listener, or the form for a new one."""
    page, index = page_of(request), _number(request)
    if index > len(page.desk.settings.listeners):
        return trouble(request, 404, "There is no such listener.")
    return await _listener_page(request, index)


async def _listener_page(
    request: web.Request,
    index: int,
    status: int = 200,
    *,
    typed: Mapping[str, str] | None = None,
    faults: ConfigError | None = None,
) -> web.Response:
    page = page_of(request)
    data, now = await page.savings.config.data(), page.desk.settings
    section = _member(data, "listeners", index) or _as_listener(now, index)
    filled = forms.filled(
        forms.LISTENER,
        section,
        ("listeners", index),
        typed=typed,
        faults=faults,
        variables=dict(now.variables),
    )
    return shown(
        request, "listener.html", status, fields=filled, options=forms.options, index=index,
        is_new=index >= len(now.listeners), obstacle=page.savings.config.obstacle(),
        beside=forms.elsewhere(faults, filled) if faults else [],
        removable=len(_members(data, "listeners")) > 1 and index < len(_members(data, "listeners")),
    )  # fmt: skip


def _as_listener(now: Settings, index: int) -> dict[str, Any]:
    """The section of a listener that the file does not name: the default one, or one of the environment."""
    if index >= len(now.listeners):
        return {}
    one = now.listeners[index]
    return {
        "bind": one.bind,
        "allow": [str(network) for network in one.allow],
        "auth": one.auth,
        "answer_after": one.answer_after,
        "newlines": one.newlines,
    }


async def save_listener(request: web.Request) -> web.Response:
    """Change a listener, or add one."""
    page, index = page_of(request), _number(request)
    config, typed = page.savings.config, _typed(request, forms.LISTENER)
    data = await config.data()
    count = len(_members(data, "listeners"))
    wanted: dict[KeyPath, object]
    if index < count:
        wanted = forms.changes(forms.LISTENER, _member(data, "listeners", index), ("listeners", index), typed)
    else:
        wanted = (
            {("listeners", 0): {"bind": page.desk.settings.listeners[0].bind}} if count == 0 and index else {}
        )
        wanted[("listeners", index)] = forms.section_of(forms.LISTENER, typed)
    if not wanted:
        return go(request, "/settings", ("ok", "Nothing was changed, so nothing was stored."))
    try:
        draft = await config.draft(wanted)
    except ConfigError as error:
        return await _listener_page(request, index, 422, typed=typed, faults=error)
    begun = page.savings.begin("Saving the listener", f"/settings/listener/{index}", draft, None, typed)
    return go(request, f"/settings/saving/{begun.id}")


async def remove_listener(request: web.Request) -> web.Response:
    """Take a listener out, after a question."""
    page, index = page_of(request), _number(request)
    config = page.savings.config
    if not text(request, "sure"):
        section = _member(await config.data(), "listeners", index)
        return shown(request, "sure.html", what=f"Remove the listener {forms.raw(section, ('bind',))}?",
                     more="Clients that use it can no longer connect. What it accepted stays in the queue.",
                     action=f"/settings/listener/{index}/remove", button="Remove", back="/settings")  # fmt: skip
    try:
        warning = await config.change({("listeners", index): None})
    except ConfigError as error:
        return go(
            request, "/settings", ("fail", "Not removed. " + " ".join(str(one) for one in error.faults))
        )
    return go(request, "/settings", ("warn", warning) if warning else ("ok", "The listener is removed."))
