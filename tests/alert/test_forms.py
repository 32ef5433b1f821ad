"""The shapes of an alert, and that nobody's words become markup in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.alert.forms import form_for, slack, teams
from relay.alert.news import News, fields, text, title
from tests.alert.kit import a_cause

FORMS = (fields, slack, teams)


@pytest.mark.parametrize(
    ("host", "form"),
    [
        ("hooks.slack.com", slack),
        ("HOOKS.SLACK.COM.", slack),
        ("contoso.webhook.office.com", teams),
        ("prod-12.westeurope.logic.azure.com", teams),
        ("default1234.56.environment.api.powerplatform.com", teams),
        ("alerts.example.com", fields),
        ("evilhooks.slack.com.example", fields),
        ("notlogic.azure.com.example", fields),
        ("mylogic.azure.com", fields),
        ("", fields),
    ],
)
def test_the_host_chooses_the_form(host: str, form: object) -> None:
    """A whole label must match: other people's hosts get the generic form."""
    assert form_for(host) is form


def test_the_generic_form_has_every_key_always() -> None:
    """Programs rely on it; the end of a cause leaves nothing to do."""
    begins, ends = fields(News(a_cause(), False), "mx1"), fields(News(a_cause(), True), "mx1")
    assert begins == {
        "event": "hold",
        "cause": "hold:lane:Microsoft 365/scans@contoso.com",
        "title": "Mail of scans@contoso.com is held",
        "reason": "SMTP AUTH is switched off.",
        "remedy": "Switch it on.",
        "evidence": "535 5.7.139 disabled",
        "since": "2026-11-18T11:06:40Z",
        "over": False,
        "host": "mx1",
        "lane": "Microsoft 365/scans@contoso.com",
        "messages": 7,
        "text": text(News(a_cause(), False), "mx1"),
    }
    assert list(ends) == list(begins)
    assert (ends["over"], ends["remedy"], ends["title"]) == (True, "", begins["title"])
    assert str(ends["text"]).startswith("Over: Mail of scans@contoso.com is held (relay on mx1)")


def test_slack_gets_blocks_within_its_limits_and_a_text() -> None:
    """The header block at most 150 characters, a section at most 3000 (Slack refuses the whole message otherwise)."""
    long = a_cause(title="t" * 400, reason="r" * 9000, remedy="m" * 9000, evidence="e" * 9000)
    form = slack(News(long, False), "mx1")
    header, *sections = form["blocks"]
    assert header["type"] == "header" and len(header["text"]["text"]) == 150
    assert {one["type"] for one in sections} == {"section"}
    assert max(len(one["text"]["text"]) for one in sections) <= 3000
    assert form["text"].startswith("ttt")


def test_slack_reads_no_markup_from_a_sender_or_a_server() -> None:
    """``<!channel>`` in a sender's address calls nobody."""
    news = News(
        a_cause(title="Mail from <!channel>@x is held", evidence="550 <http://evil|click> & more"), False
    )
    form = slack(news, "mx1")
    assert "<" not in form["text"] and "&lt;!channel&gt;" in form["text"] and "&amp; more" in form["text"]
    assert {one["text"]["type"] for one in form["blocks"]} == {"plain_text"}


def card_of(news: News) -> dict[str, Any]:
    form = teams(news, "mx1")
    assert form["type"] == "message"
    (attachment,) = form["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert isinstance(card, dict)
    return card


def test_teams_gets_an_adaptive_card() -> None:
    """The essentials of the schema: type, version, body of known elements, each run with its text."""
    card = card_of(News(a_cause(), False))
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["$schema"] == "http://adaptivecards.io/schemas/adaptive-card.json"
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    runs = [run for block in card["body"] for run in block["inlines"]]
    assert all(run["type"] == "TextRun" and run["text"] for run in runs)
    assert runs[0]["text"] == "Mail of scans@contoso.com is held" and runs[0]["color"] == "Attention"
    assert ["What to do: ", "Switch it on."] in [
        [run["text"] for run in block["inlines"]] for block in card["body"]
    ]


def test_teams_shows_the_line_to_copy_by_itself() -> None:
    """A run does not break lines."""
    card = card_of(News(a_cause(remedy='Add and reload:\n- {match: "*"}'), False))
    texts = [[run["text"] for run in block["inlines"]] for block in card["body"]]
    assert ['- {match: "*"}'] in texts
    assert not any("\n" in run for runs in texts for run in runs)


def test_teams_shows_the_end_in_green() -> None:
    card = card_of(News(a_cause(), True))
    assert card["body"][0]["inlines"][0]["color"] == "Good"
    assert card["body"][0]["inlines"][0]["text"].startswith("Over: ")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("over", [False, True])
def test_every_form_is_json_whatever_the_words(form: Any, over: bool) -> None:
    """Control characters, lone surrogates and long texts from a server or a sender do no harm; Teams' 28 KB hold."""
    nasty = "\x00\x1b[2J\r\n\ud800 ü 漢 " * 2000
    body = json.dumps(
        form(News(a_cause(nasty, title=nasty, reason=nasty, remedy=nasty, evidence=nasty), over), "mx1"),
        ensure_ascii=False,
    )
    assert json.loads(body.encode()) == json.loads(body)
    assert "\\u0000" not in body and "\\u001b" not in body
    assert len(body.encode()) < 28 * 1024


def test_the_title_is_one_line() -> None:
    assert title(News(a_cause(title="a\nb\rc"), True)) == "Over: a b c"
