"""All ways to the administrator: each is tried, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from relay import events
from relay.alert.command import Command
from relay.alert.news import News, WayFailed, clean
from relay.alert.webhook import Pause, Webhook, check
from relay.settings import Alerts

Mail = Callable[[News], Awaitable[bool]]
"""Mails the news to ``postmaster``; False when no lane that works can carry it."""

_Tell = Callable[[News], Awaitable[None]]


class Ways:
    """The configured ways: ``webhook``, ``command``, ``mail``.

    ``proxy`` and ``ca_file`` are for the webhook (an upstream's own, as a rule); ``host`` is the name this relay shows.
    """

    def __init__(
        self,
        alerts: Alerts,
        *,
        mail: Mail | None,
        proxy: str | None = None,
        ca_file: Path | None = None,
        host: str = "",
        pause: Pause = asyncio.sleep,
    ) -> None:
        host = clean(host or socket.gethostname(), 100)
        self._ways: dict[str, _Tell] = {}
        if alerts.webhook:
            webhook = Webhook(alerts.webhook, host=host, proxy=proxy, ca_file=ca_file, pause=pause)
            self._ways["webhook"] = webhook.tell
            _advise("webhook", lambda: check(alerts.webhook or ""))
        if alerts.command:
            command = Command(alerts.command, host=host)
            self._ways["command"] = command.tell
            _advise("command", command.check)
        if mail is not None:
            self._ways["mail"] = _by(mail)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the ways that are configured."""
        return tuple(self._ways)

    async def tell(self, news: News) -> list[str]:
        """Tell by every way that has not carried it yet, at once; the names of those that did now. Never raises."""
        names = [name for name in self._ways if name not in news.heard]
        carried = await asyncio.gather(*(self._carried(name, news) for name in names))
        return [name for name, well in zip(names, carried, strict=True) if well]

    async def _carried(self, name: str, news: News) -> bool:
        try:
            await self._ways[name](news)
        except WayFailed as failed:
            _complain(name, news, str(failed), failed.remedy)
            return False
        except Exception as error:
            # the words of an unknown error are not shown: they may hold the webhook's address
            _complain(name, news, f"unexpected error: {type(error).__name__}", "")
            return False
        return True


def _advise(name: str, look: Callable[[], None]) -> None:
    """At start and reload: a way that cannot work should be mended before it is needed."""
    try:
        look()
    except WayFailed as failed:
        events.advice(where=f"alerts by {name}", what=str(failed), remedy=failed.remedy)


def _by(mail: Mail) -> _Tell:
    async def tell(news: News) -> None:
        if not await mail(news):
            raise WayFailed(
                "no lane that works can carry mail to postmaster now",
                remedy="Configure `alerts.webhook` or `alerts.command`, which do not depend on a mailbox.",
            )

    return tell


def _complain(name: str, news: News, what: str, remedy: str) -> None:
    """Once for each piece of news: it is tried again at the next looks, silently."""
    if news.tries:
        return
    events.trouble(
        where=f"alerts by {name}", what=what, remedy=remedy, alert=news.cause.title, over=news.over
    )
