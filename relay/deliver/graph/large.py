"""Mail above sendMail's ceiling. Not built yet: such a message is held with the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.deliver.graph.contract import Answer, Http, Lost, WriteDown
from relay.deliver.graph.judge import no_read_write
from relay.deliver.parcel import Parcel
from relay.message import Outcome, Recipient
from relay.settings import Upstream


@dataclass(frozen=True, slots=True)
class LargeResult:
    """What became of it: an outcome, or the answer or the break that is to be judged."""

    outcome: Outcome | None = None
    answer: Answer | None = None
    lost: Lost | None = None
    step: str = ""
    notes: tuple[str, ...] = ()


async def send_large(
    http: Http,
    mailbox: str,
    parcel: Parcel,
    recipients: Sequence[Recipient],
    begin: WriteDown,
    settings: Upstream,
) -> LargeResult:
    """Held: drafts and upload sessions need Mail.ReadWrite."""
    return LargeResult(no_read_write(Answer(403)), step="draft")
