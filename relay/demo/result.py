"""What arrived at Exchange, compared with what was sent."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from relay.demo.letters import MARK, Letter, body_of, fingerprint
from relay.logs import visible
from relay.simulator.store import Accepted


@dataclass(slots=True)
class Arrival:
    """One letter, and what Exchange received of it."""

    letter: Letter
    copies: list[tuple[Accepted, bytes]] = field(default_factory=list)

    @property
    def recipients_seen(self) -> int:
        """For how many recipients it was accepted."""
        return sum(len(accepted.recipients) for accepted, _ in self.copies)

    @property
    def from_before(self) -> str:
        """The From field that the client wrote."""
        return _from(self.letter.data)

    @property
    def from_after(self) -> str:
        """The From field that Exchange saw; empty when nothing arrived."""
        return _from(self.copies[0][1]) if self.copies else ""

    @property
    def body_intact(self) -> bool:
        """Whether every copy's body has the SHA-256 of the one that was sent."""
        wanted = fingerprint(self.letter.body)
        return bool(self.copies) and all(fingerprint(body_of(data)) == wanted for _, data in self.copies)

    @property
    def intact(self) -> bool:
        """Whether it arrived exactly once for each recipient, from the right address, its body unchanged."""
        seen = sorted(address for accepted, _ in self.copies for address in accepted.recipients)
        right = all(accepted.mail_from == self.letter.expected_from for accepted, _ in self.copies)
        return (
            self.body_intact
            and right
            and seen == sorted(self.letter.recipients)
            and self.letter.expected_from in self.from_after
        )


def compare(sent: Iterable[Letter], received: Iterable[Accepted]) -> list[Arrival]:
    """Each letter with its copies, recognised by the demo's mark, or where Graph has dropped that, by the Message-ID."""
    arrivals = [Arrival(letter) for letter in sent]
    known = {str(one.letter.number): one for one in arrivals}
    known |= {identity: one for one in arrivals if (identity := _headers(one.letter.data)["Message-ID"])}
    for accepted in received:
        data = accepted.bytes()
        headers = _headers(data)
        arrival = known.get(str(headers[MARK] or headers["Message-ID"]))
        if arrival is not None:
            arrival.copies.append((accepted, data))
    return arrivals


def _headers(data: bytes) -> email.message.EmailMessage:
    head = data.partition(b"\r\n\r\n")[0]
    return email.message_from_bytes(head, policy=email.policy.default)


def _from(data: bytes) -> str:
    return str(_headers(data)["From"] or "")


def table(arrivals: Iterable[Arrival]) -> Table:
    """The closing table."""
    shown = Table(title="What Exchange received", title_justify="left")
    for column in ("Message", "From, as sent", "From, as received", "Recipients"):
        shown.add_column(column, overflow="fold")
    shown.add_column("Size", justify="right")
    shown.add_column("Body SHA-256")
    shown.add_column("Intact")
    for arrival in arrivals:
        size = sum(accepted.size for accepted, _ in arrival.copies[:1])
        shown.add_row(
            Text(arrival.letter.title),
            Text(visible(arrival.from_before)),
            Text(visible(arrival.from_after) or "(nothing arrived)"),
            f"{arrival.recipients_seen} of {len(arrival.letter.recipients)}",
            f"{size:,}" if size else "",
            fingerprint(arrival.letter.body)[:16] if arrival.body_intact else "differs",
            "[green]yes[/]" if arrival.intact else "[red]no[/]",
        )
    return shown
