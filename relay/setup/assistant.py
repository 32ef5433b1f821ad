"""The dialogue: explains, asks, checks each answer as it comes, and gives back what to write.

It talks through `Talk`, so the terminal is the command's affair, and a test can play the administrator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from relay.check.interfaces import Interface
from relay.check.listeners import try_to_bind
from relay.check.tenant import tenant_exists
from relay.config.clouds import CLOUDS
from relay.config.values import split_bind
from relay.setup import values, words
from relay.setup.answers import CLIENTS, Answers, Known
from relay.setup.plan import PAGE, allow_for, listen_for
from relay.setup.values import Refused

T = TypeVar("T")


class Talk(Protocol):
    """How the assistant speaks with somebody."""

    def say(self, text: str) -> None:
        """Tell, without waiting."""
        ...

    def ask(self, question: str, *, default: str | None = None, secret: bool = False) -> str:
        """One line of answer; ``secret``: not shown while it is typed."""
        ...

    def confirm(self, question: str, *, default: bool) -> bool:
        """Yes or no."""
        ...


class Assistant:
    """`run` fills in what is missing in the answers. What options gave is not asked again."""

    def __init__(
        self, talk: Talk, answers: Answers, known: Known, own: list[Interface], *, online: bool
    ) -> None:
        self._talk = talk
        self._answers = answers
        self._known = known
        self._own = own
        self._online = online

    def run(self) -> Answers:
        """All questions, in an order in which each answer can be checked. Ctrl-C leaves nothing behind."""
        answers, talk = self._answers, self._talk
        if not self._known.exists:
            for text in (words.BEFORE, words.REGISTER, words.PERMISSIONS):
                talk.say(text)
        self._ids()
        self._secret()
        talk.say(words.SETTINGS)
        answers.from_email = answers.from_email or self._ask(
            "From Email: the mailbox that mail is sent from",
            values.address,
            self._known.upstream.get("from_email"),
        )
        answers.server_name = answers.server_name or self._ask(
            "Server Name: any name",
            values.short_text,
            self._known.upstream.get("server_name") or "Microsoft 365",
        )
        self._postmaster()
        self._listeners()
        self._page()
        return answers

    # the questions

    def _ids(self) -> None:
        answers, upstream = self._answers, self._known.upstream
        if answers.tenant_id is None or answers.client_id is None:
            self._talk.say(words.IDS)
        if answers.tenant_id is None:
            answers.tenant_id = self._ask("Directory (tenant) ID", self._tenant, upstream.get("tenant_id"))
        if answers.client_id is None:
            answers.client_id = self._ask("Application (client) ID", self._client, upstream.get("client_id"))

    def _tenant(self, text: str) -> str:
        tenant = values.tenant_id(text)
        if self._exists(tenant) is False:
            raise Refused(
                "Microsoft knows no tenant with this id. If it is the Application (client) ID, the two are swapped: "
                "copy Directory (tenant) ID from the Overview page"
            )
        return tenant

    def _client(self, text: str) -> str:
        client = values.client_id(text)
        if client.lower() == (self._answers.tenant_id or "").lower():
            raise Refused("this is the tenant id again; copy Application (client) ID")
        if self._exists(client):
            raise Refused("this is the id of a tenant, not of an application; copy Application (client) ID")
        return client

    def _exists(self, tenant: str) -> bool | None:
        if not self._online:
            return None
        places, upstream = self._answers.places, self._known.upstream
        authority = places.get("authority") or upstream.get("authority")
        authority = authority or CLOUDS[upstream.get("cloud") or "public"].authority
        ca_file = places.get("ca_file") or upstream.get("ca_file")
        return tenant_exists(
            authority.rstrip("/"),
            tenant,
            proxy=upstream.get("proxy"),
            ca_file=Path(ca_file) if ca_file else None,
        )

    def _secret(self) -> None:
        answers, known = self._answers, self._known
        if answers.secret is not None:
            return
        if known.has_credential and not self._talk.confirm(
            "The configuration has a credential already. Enter a new secret?", default=False
        ):
            return
        self._talk.say(words.CREDENTIAL)
        answers.secret = self._ask("Client secret: its Value", values.client_secret, secret=True)
        if answers.secret_expires is None:
            answers.secret_expires = self._ask(
                "The day it expires (YYYY-MM-DD; Enter: not known)", _optional(values.day), ""
            )

    def _postmaster(self) -> None:
        if self._answers.postmaster is None and not self._known.rest.get("postmaster"):
            self._answers.postmaster = self._ask(
                "Postmaster: who gets notices nobody else can get (Enter: nobody)",
                _optional(values.address),
                "",
            )

    def _listeners(self) -> None:
        answers, talk = self._answers, self._talk
        if answers.listen and answers.allow:
            return
        if self._known.listeners and answers.clients is None and not answers.listen and not answers.allow:
            shown = ", ".join(str(one.get("bind")) for one in self._known.listeners)
            if not talk.confirm(f"It listens on {shown}. Change that?", default=False):
                return
        if answers.clients is None:
            talk.say(words.WHO)
            answers.clients = self._ask("host, lan or containers", _client_kind, "host")
        if not answers.listen:
            answers.listen = [self._ask_bind(listen_for(answers.clients, self._own))]
        if not answers.allow:
            self._ask_networks()

    def _page(self) -> None:
        if self._answers.web is not None or self._known.rest.get("web") is not None:
            return
        if self._talk.confirm(f"Switch on the admin page in the browser, at http://{PAGE}/?", default=True):
            self._answers.web = PAGE

    def _ask_bind(self, offered: str) -> str:
        while True:
            bind = self._ask("Address and port to listen on", values.bind, offered)
            if not self._talk.confirm("Test it now?", default=True):
                return bind
            result = try_to_bind(*split_bind(bind))
            if result.error is None:
                self._talk.say(f"  {bind} is free.")
                return bind
            self._talk.say(f"  {bind} cannot be used: {result.error.strerror}. {result.remedy}")
            if self._talk.confirm("Keep it all the same?", default=False):
                return bind

    def _ask_networks(self) -> None:
        answers = self._answers
        offered = allow_for(answers.clients or "host", self._own)
        if answers.clients == "host":
            answers.allow = offered
            return
        own = "; ".join(f"{one.name} {one.network}" for one in self._own) or "not known"
        self._talk.say(f"  This machine's networks: {own}")
        answers.allow = self._ask(
            "Networks that may connect, separated by commas", values.networks, ", ".join(offered)
        )

    def _ask(
        self, question: str, read: Callable[[str], T], default: str | None = None, *, secret: bool = False
    ) -> T:
        """Until the answer can be right."""
        while True:
            text = self._talk.ask(question, default=default, secret=secret)
            if text != text.strip():
                self._talk.say("  (blanks around it were taken off)")
            try:
                return read(text)
            except Refused as refusal:
                self._talk.say(f"  Not accepted: {refusal}.")


def _client_kind(text: str) -> str:
    word = text.strip().lower()
    if word not in CLIENTS:
        raise Refused(f"answer one of: {', '.join(CLIENTS)}")
    return word


def _optional(read: Callable[[str], str]) -> Callable[[str], str | None]:
    return lambda text: read(text) if text.strip() else None


def fill_in(answers: Answers, known: Known, own: list[Interface]) -> None:
    """Without questions: what options did not give gets what the assistant would offer; the file's listeners stay."""
    if known.listeners and answers.clients is None:
        return
    clients = answers.clients or "host"
    if not answers.listen:
        answers.listen = [listen_for(clients, own)]
    if not answers.allow:
        local = all(split_bind(one)[0] in ("127.0.0.1", "::1", "localhost") for one in answers.listen)
        answers.allow = allow_for("host" if local else clients, own)
