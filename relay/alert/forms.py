"""The shapes a webhook takes: generic JSON, Slack's, and the Adaptive Card of Teams. Chosen by the address's host.

Variable texts are put where the receiver does not read them as markup: a sender's address or a server's reply must
not be able to mention a whole channel or show a link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.alert.news import News, facts, fields, text, title

Form = Callable[[News, str], dict[str, Any]]

SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
TEAMS = ("webhook.office.com", "logic.azure.com", "logic.azure.us", "powerplatform.com", "powerplatform.us")
"""A connector's host, and those of Workflows (Power Automate), old and new."""


def form_for(host: str) -> Form:
    """By the host of the webhook's address; a host below a listed one counts, one that merely ends like it does not."""
    if _below(host, SLACK):
        return slack
    return teams if _below(host, TEAMS) else fields


def _below(host: str, names: tuple[str, ...]) -> bool:
    host = host.lower().rstrip(".")
    return any(host == name or host.endswith("." + name) for name in names)


def slack(news: News, host: str) -> dict[str, Any]:
    """``text`` for the notification, ``blocks`` for the channel.

    Source: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.
    """
    # only these three are special to Slack; escaped, <!channel> is a text
    plain = text(news, host).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    sections = [_section(f"{label}: {value}") for label, value in facts(news)]
    header = {"type": "header", "text": {"type": "plain_text", "text": title(news), "emoji": False}}
    return {"text": plain, "blocks": [header, *sections, _section(f"relay on {host}")]}


def _section(words: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "plain_text", "text": words, "emoji": False}}


def teams(news: News, host: str) -> dict[str, Any]:
    """A message with one Adaptive Card, as Workflows and connectors take it.

    Source: learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using. The texts are
    TextRuns, which know no Markdown; a TextBlock would read it.
    """
    heading = _rich(
        _run(title(news), weight="Bolder", size="Large", color="Good" if news.over else "Attention")
    )
    rows = [block for label, value in facts(news) for block in _paragraphs(label, value)]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": title(news),
        "msteams": {"width": "Full"},
        "body": [heading, *rows, _rich(_run(f"relay on {host}", isSubtle=True))],
    }
    return {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        ],
    }


def _paragraphs(label: str, value: str) -> list[dict[str, Any]]:
    """One block for each line, since a run does not break lines; what follows the first line is to be copied."""
    first, *more = value.split("\n", 2)  # no more: each block costs room, and Teams takes 28 KB
    copied = [_rich(_run(line.replace("\n", " "), fontType="Monospace")) for line in more if line]
    return [_rich(_run(f"{label}: ", weight="Bolder"), _run(first)), *copied]


def _rich(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs)}


def _run(words: str, **style: object) -> dict[str, Any]:
    return {"type": "TextRun", "text": words, **style}
