"""What is said, and what it says in words: the same for every way, so that a page, a chat and a mail agree."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from relay.alert.causes import Cause
from relay.errors import RelayError

LONGEST_TITLE = 150
"""Characters: Slack refuses a header block beyond it."""
LONGEST = 1500
"""Characters of each other text: Teams takes 28 KB in all, Slack 3000 characters in a block."""


@dataclass(frozen=True, slots=True)
class News:
    """A cause that begins, or (``over``) that ended."""

    cause: Cause
    over: bool
    heard: frozenset[str] = frozenset()
    """Names of the ways that carried it already: when it is told again, only the others are asked."""
    tries: int = 0
    """How often it was tried before."""


class WayFailed(RelayError):
    """A way did not carry the news: what happened, and the remedy. Never shows the webhook's address whole."""


def clean(text: str, longest: int = LONGEST) -> str:
    """Without control characters (new lines stay) and lone surrogates, at most ``longest`` characters."""
    kept = "".join(char if char == "\n" or (char >= " " and char != "\x7f") else " " for char in text)
    kept = kept.encode("utf-8", "replace").decode().strip()
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def iso(when: float) -> str:
    """ISO 8601, UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(int(when), datetime.UTC).isoformat().replace("+00:00", "Z")


def title(news: News) -> str:
    """One line, for a header or a subject."""
    line = clean(news.cause.title.replace("\n", " "))
    return clean(f"Over: {line}" if news.over else line, LONGEST_TITLE)


def facts(news: News) -> list[tuple[str, str]]:
    """Label and text, in the order in which they are read; empty ones left out. Over: there is nothing left to do."""
    cause = news.cause
    waiting = str(cause.messages) if cause.messages and not news.over else ""
    rows = [
        ("What happened" if news.over else "Why", clean(cause.reason)),
        ("What to do", "" if news.over else clean(cause.remedy)),
        ("Evidence", clean(cause.evidence)),
        ("Messages waiting", waiting),
        ("Since", iso(cause.since)),
    ]
    return [(label, text) for label, text in rows if text]


def text(news: News, host: str) -> str:
    """All of it as plain text, the title first."""
    lines = [f"{title(news)} (relay on {clean(host, LONGEST_TITLE)})"]
    return "\n".join(lines + [f"{label}: {value}" for label, value in facts(news)])


def fields(news: News, host: str) -> dict[str, object]:
    """The generic form: what a program wants, and ``text`` for people. Always the same keys."""
    cause = news.cause
    return {
        "event": clean(cause.key.partition(":")[0]),
        "cause": clean(cause.key),
        "title": title(News(cause, over=False)),
        "reason": clean(cause.reason),
        "remedy": "" if news.over else clean(cause.remedy),
        "evidence": clean(cause.evidence),
        "since": iso(cause.since),
        "over": news.over,
        "host": clean(host, LONGEST_TITLE),
        "lane": clean(cause.lane),
        "messages": cause.messages,
        "text": text(news, host),
    }
