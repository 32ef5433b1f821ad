"""What Entra, Exchange and Graph share inside one simulator."""

from __future__ import annotations

from dataclasses import dataclass

from relay.simulator.faults import Faults
from relay.simulator.ledger import Ledger
from relay.simulator.state import State
from relay.simulator.store import Store


@dataclass(frozen=True)
class Services:
    """The tenant, the faults in force, the accepted mail and the limits used."""

    state: State
    faults: Faults
    store: Store
    ledger: Ledger
