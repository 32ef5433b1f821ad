"""The From a message leaves with, and what goes with it: Reply-To and Sender.

RFC 5322 section 3.6.2; Exchange's side is facts section 5: the address sent as is the mailbox, or one it may send
as; several From addresses need a Sender (5.1.20); Reply-To is free.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.rewrite.addresses import (
    Mailbox,
    comparable,
    encode_name,
    is_address,
    write_address,
    write_mailbox,
    write_phrase,
)
from relay.rewrite.contract import Route
from relay.rewrite.encoding import decode_words, visible
from relay.rewrite.headers import Originators
from relay.rewrite.repairs import Work, write_list

_REPLY_LIMIT = 20
"""Original senders named in a Reply-To; a From with more is no one's correspondence."""
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class NewFrom:
    """The From decided on."""

    value: str
    """In header syntax."""
    addresses: tuple[str, ...]
    """One, or (``from: keep``) all that were there, written strictly."""
    unchanged: bool
    """The field that is there may stay byte for byte."""


def decide(originators: Originators, route: Route, mailbox: str, sender: str, smtputf8: bool) -> NewFrom:
    """The From by the route: the rule's address under the original's name, or what was there, made valid."""
    given = list(originators.mailboxes)
    if route.from_address is None:
        kept = _kept(given, route, mailbox, sender, smtputf8)
        addresses = tuple(comparable(one.address) for one in given if one.address)
        same = (
            originators.simple
            and route.name == "keep"
            and tuple(map(comparable, kept.addresses)) == addresses
        )
        return NewFrom(kept.value, kept.addresses, same)
    address = write_address(route.from_address, smtputf8=smtputf8) or mailbox
    same_address = len(given) == 1 and comparable(given[0].address) == comparable(address)
    if same_address and originators.simple and route.name in ("keep", "address"):
        return NewFrom(originators.text, (address,), unchanged=True)
    phrase = _name(given, route.name, sender, same_address, smtputf8)
    return NewFrom(write_mailbox(phrase, address), (address,), unchanged=False)


def _kept(given: list[Mailbox], route: Route, mailbox: str, sender: str, smtputf8: bool) -> NewFrom:
    """``from: keep``: every address that was readable, else the envelope sender, else the mailbox."""
    named = [Mailbox(_kept_name(one, route.name, smtputf8), one.address) for one in given if one.address]
    value = write_list(named, smtputf8=smtputf8)
    if value:
        written = (write_address(one.address, smtputf8=smtputf8) for one in named)
        return NewFrom(value, tuple(one for one in written if one), unchanged=False)
    address = write_address(sender, smtputf8=smtputf8) or mailbox
    phrase = _name(given, route.name, sender, True, smtputf8)
    return NewFrom(write_mailbox(phrase, address), (address,), unchanged=False)


def _kept_name(one: Mailbox, policy: str, smtputf8: bool) -> str:
    if policy in ("keep", "address"):
        return write_phrase(one.phrase, smtputf8=smtputf8)
    return encode_name(policy)


def _name(given: list[Mailbox], policy: str, sender: str, same_address: bool, smtputf8: bool) -> str:
    """The display name by policy: ``keep``, ``address`` (the original one, where it changed), or a text."""
    first = given[0] if given else Mailbox("", "")
    if policy == "address" and not same_address:
        return encode_name(first.address or sender) or write_phrase(first.phrase, smtputf8=smtputf8)
    if policy in ("keep", "address"):
        return write_phrase(first.phrase, smtputf8=smtputf8)
    return encode_name(policy)


def set_from(work: Work, new: NewFrom) -> None:
    """Exactly one From field, where the first one stood, or at the end."""
    there = sum(name == b"from" for name, _ in work.fields)
    if new.unchanged and there == 1:
        return
    work.put("From", new.value)
    if not there:
        work.notes.append("From added")
    elif there > 1:
        work.notes.append(
            "several From fields joined" if len(new.addresses) > 1 else "several From fields made one"
        )


def set_reply_to(work: Work, new: NewFrom, originators: Originators, policy: str, sender: str) -> None:
    """Answers still reach the original sender (policy ``original``), or the address the rule gives."""
    if policy == "none":
        return
    if policy != "original":
        work.put("Reply-To", write_address(policy, smtputf8=work.smtputf8) or new.addresses[0])
    elif not work.has(b"reply-to"):
        value = _original(new, originators, sender, work.smtputf8)
        if value:
            work.add("Reply-To", value)


def _original(new: NewFrom, originators: Originators, sender: str, smtputf8: bool) -> str:
    """The original From addresses, else the envelope sender; empty when that is where answers go anyway."""
    addresses = originators.addresses[:_REPLY_LIMIT] or ((sender,) if is_address(sender) else ())
    written = [text for one in addresses if (text := write_address(one, smtputf8=smtputf8))]
    written = list({comparable(one): one for one in reversed(written)}.values())[::-1]
    ours = {comparable(one) for one in new.addresses}
    return "" if {comparable(one) for one in written} <= ours else ", ".join(written)


def set_sender(work: Work, new: NewFrom, route: Route, mailbox: str) -> None:
    """Sender says who really submitted: nobody else once From was rewritten; the mailbox when From names several."""
    if route.from_address is not None:
        if work.drop(b"sender"):
            work.notes.append("Sender removed")
    elif len(new.addresses) > 1:
        if not work.has(b"sender"):
            work.add("Sender", mailbox)
            work.notes.append("Sender added")
    elif comparable(new.addresses[0]) == comparable(mailbox) and work.drop(b"sender"):
        work.notes.append("Sender removed")


def shown(text: str) -> str:
    """A From value for people."""
    return visible(decode_words(text), _SHOWN) if text else ""
