"""Senders: the rules in their order, and what would happen to one sender's mail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay.config.faults import ConfigError
from relay.errors import RelayError
from relay.settings import SenderRule
from relay.web import forms
from relay.web.configfile import Changes
from relay.web.page import FORM, asked, go, page_of, shown, text, trouble

_RULE = r"/senders/{index:[0-9]{1,4}}"


def add_routes(router: web.UrlDispatcher) -> None:
    """Register the routes of this module."""
    router.add_get("/senders", senders)
    router.add_post("/senders", set_default)
    router.add_get(_RULE, rule)
    router.add_post(_RULE, save_rule)
    router.add_post(_RULE + "/move", move)
    router.add_post(_RULE + "/remove", remove)


def _number(request: web.Request) -> int:
    return int(request.match_info["index"])


async def senders(request: web.Request) -> web.Response:
    """The rules, and the box that asks the real router."""
    page = page_of(request)
    now, address = page.desk.settings, asked(request, "address") or "127.0.0.1"
    sender, user = asked(request, "sender"), asked(request, "user")
    preview = page.desk.preview(sender, sender, address, user or None) if sender else None
    return shown(
        request, "senders.html", rules=[_shown(one) for one in now.senders], default=now.default_sender,
        first=now.upstreams[0], preview=preview, sender=sender, address=address, user=user,
        users=[one.username for one in now.clients], obstacle=page.savings.config.obstacle(),
    )  # fmt: skip


def _shown(rule: SenderRule) -> dict[str, str]:
    """A rule in force, in the words of the file."""
    match = f"/{rule.match.pattern}/" if isinstance(rule.match, re.Pattern) else rule.match
    client = f"user {rule.user}" if rule.user else str(rule.network or "")
    return {
        "match": match,
        "client": client,
        "from": rule.from_address or "keeps its own",
        "login": ", ".join(rule.login),
        "name": rule.name,
        "reply_to": rule.reply_to,
        "upstream": rule.upstream,
    }


async def _raw_rules(request: web.Request) -> list[Any]:
    found = (await page_of(request).savings.config.data()).get("senders")
    return found if isinstance(found, list) else []


async def rule(request: web.Request) -> web.Response:
    """One rule, or the form for a new one."""
    rules, index = await _raw_rules(request), _number(request)
    if index > len(rules):
        return trouble(request, 404, "There is no such rule.")
    return _rule_page(request, rules, index)


def _rule_page(
    request: web.Request,
    rules: list[Any],
    index: int,
    status: int = 200,
    *,
    typed: Mapping[str, str] | None = None,
    faults: ConfigError | None = None,
) -> web.Response:
    section = rules[index] if index < len(rules) else {"match": asked(request, "match")}
    filled = forms.filled(forms.SENDER, section, ("senders", index), typed=typed, faults=faults)
    return shown(
        request, "rule.html", status, fields=filled, options=forms.options, index=index, is_new=index >= len(rules),
        obstacle=page_of(request).savings.config.obstacle(),
        beside=forms.elsewhere(faults, filled) if faults else [],
    )  # fmt: skip


async def save_rule(request: web.Request) -> web.Response:
    """Change a rule, or add one at the end."""
    rules, index = await _raw_rules(request), _number(request)
    if index > len(rules):
        return trouble(request, 404, "There is no such rule.")
    typed = {one.name: text(request, one.name) for one in forms.SENDER if one.name in request[FORM]}
    if index < len(rules):
        changes: Changes = forms.changes(forms.SENDER, rules[index], ("senders", index), typed)
    else:
        changes = {("senders", index): forms.section_of(forms.SENDER, typed)}
    try:
        warning = await page_of(request).savings.config.change(changes) if changes else ""
    except ConfigError as error:
        return _rule_page(request, rules, index, 422, typed=typed, faults=error)
    said = (
        ("warn", warning)
        if warning
        else ("ok", f"Rule {index + 1} is stored and in force; waiting mail follows it.")
    )
    return go(request, "/senders", said)


async def move(request: web.Request) -> web.Response:
    """One place up or down: the first rule that matches decides."""
    rules, index = await _raw_rules(request), _number(request)
    other = index - 1 if text(request, "to") == "up" else index + 1
    if not (0 <= index < len(rules) and 0 <= other < len(rules)):
        return go(request, "/senders", ("warn", "It cannot move further."))
    changes: Changes = {("senders", index): rules[other], ("senders", other): rules[index]}
    return await _changed(request, changes, f"Rule {index + 1} is number {other + 1} now.")


async def remove(request: web.Request) -> web.Response:
    """Take a rule out, after a question."""
    rules, index = await _raw_rules(request), _number(request)
    if index >= len(rules):
        return trouble(request, 404, "There is no such rule.")
    if not text(request, "sure"):
        return shown(request, "sure.html", what=f"Delete rule {index + 1}, {forms.raw(rules[index], ('match',))}?",
                     more="Mail of these senders goes by the rules after it, or by the default.",
                     action=f"/senders/{index}/remove", button="Delete", back="/senders")  # fmt: skip
    return await _changed(request, {("senders", index): None}, f"Rule {index + 1} is deleted.")


async def set_default(request: web.Request) -> web.Response:
    """What happens to a sender that no rule names."""
    value = "reject" if text(request, "default_sender") == "reject" else "rewrite"
    return await _changed(request, {("default_sender",): value}, "The default for other senders is stored.")


async def _changed(request: web.Request, changes: Changes, success: str) -> web.Response:
    try:
        warning = await page_of(request).savings.config.change(changes)
    except ConfigError as error:
        return go(request, "/senders", ("fail", "Not stored. " + " ".join(str(one) for one in error.faults)))
    except RelayError as error:
        return go(request, "/senders", ("fail", f"Not stored: {error} {error.remedy}"))
    return go(request, "/senders", ("warn", warning) if warning else ("ok", success))
