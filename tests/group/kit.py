"""A group of relays on one PostgreSQL, as outsiders see it: processes, doors, and gates in front of what they share."""

from __future__ import annotations

import functools
import signal
import time
from pathlib import Path

from tests.fakes.gate import Gate
from tests.fakes.postgres import PostgresServer
from tests.group.hosts import Hosts
from tests.group.judge import Bounds, Findings, check_limits, check_mail, look, queued
from tests.group.senders import Door, Letter, Senders
from tests.journeys.kit import PYTHON, Microsoft, Relay
from tests.journeys.kit import until as until_at_once

until = functools.partial(until_at_once, pause=0.2)
"""Asks seldom: a test has three relays, a database and Exchange on a machine that may have two processors."""
BOXES = tuple(f"box{number}" for number in range(1, 9))
"""The mailboxes; what app@box1.local sends leaves as box1@contoso.com."""
FROZEN_CONNECTIONS = 3
"""What Exchange takes of a mailbox: a frozen replica's connections are still open when another takes its work over."""

_CONFIG = """
upstreams:
  - server_name: Microsoft 365
    from_email: box1@contoso.com
    tenant_id: {tenant}
    client_id: {client}
    client_secret: env:RELAY_CLIENT_SECRET
    timeout: 20
    limits: {{messages_per_minute: {minute}, recipients_per_day: {day}, connections: {connections}}}
senders:
{senders}
spool: {{retry: [1s, 2s]}}
{more}
"""


class Replica(Relay):
    """One relay of the group, on a host of its own, with gates in front of each database server and of Exchange."""

    def __init__(self, name: str, folder: Path, group: Group, number: int, code: Path | None) -> None:
        folder.mkdir()
        hosts = group.hosts
        self.name = name
        self.number = number
        self.address = hosts.address(number)
        self._hosts = hosts
        self.databases = [Gate(one.folder / ".s.PGSQL.5432", hosts.hub, hosts.enter) for one in group.servers]
        self.database = self.databases[0]
        self.exchange = Gate((hosts.hub, int(group.microsoft.env["RELAY_PORT"])), hosts.hub, hosts.enter)
        config = folder / "config.yaml"
        config.write_text(group.config)
        super().__init__(folder, group.microsoft.env, config)
        self.env |= {
            "RELAY_REPLICA": name,
            "RELAY_PORT": str(self.exchange.port),
            "RELAY_LISTEN": f"{self.address}:{self.port}",
            "RELAY_ALLOW": "127.0.0.0/8,10.99.0.0/16",
            "RELAY_SPOOL_URL": f"postgresql://relay@{','.join(f'{one.address}:{one.port}' for one in self.databases)}/postgres",
            "TMPDIR": str(folder),  # the control channel is there: as on a host of its own
        }
        if code is not None:
            self.env["PYTHONPATH"] = str(code)

    def _words(self, *words: str) -> list[str]:
        return self._hosts.on(self.number, [*PYTHON, *words])

    def _listening(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        with self._hosts.at_hub():
            return super()._listening()

    @property
    def listens(self) -> bool:
        """Whether it greets clients just now."""
        return self._listening()

    @property
    def door(self) -> Door:
        """For clients."""
        return Door(self.name, self.address, self.port)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it."""
        assert self.process is not None
        self.process.send_signal(number)

    def serve(self) -> None:
        """As its service does: start it again when it has ended by itself."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.start(wait=False)

    def delivered(self) -> int:
        """How many messages it says it has delivered."""
        return len(self.events("delivered"))

    def vanish(self) -> None:
        """Its host goes off the network, without a word to anybody."""
        if not self._hosts.plug(self.number, on=False):
            for gate in self._gates:
                gate.stall()

    def reappear(self) -> None:
        """And is back."""
        if not self._hosts.plug(self.number, on=True):
            for gate in self._gates:
                gate.restore()

    @property
    def _gates(self) -> list[Gate]:
        return [*self.databases, self.exchange]

    def close(self) -> None:
        super().close()
        for gate in self._gates:
            gate.close()


class Group:
    """Replicas that share a database, the Exchange they deliver to, and the clients that send to them."""

    def __init__(
        self,
        folder: Path,
        hosts: Hosts,
        servers: list[PostgresServer],
        bounds: Bounds,
        *simulator: str,
        more: str = "",
    ) -> None:
        """``bounds``: the limits of each mailbox, the same for the relays and for Exchange (but for its connections).
        ``servers``: the database's, the primary first. ``more``: further lines of the relays' configuration.
        """
        self.folder = folder
        self.hosts = hosts
        self.servers = servers
        self.bounds = bounds
        servers[0].database()
        (folder / "microsoft").mkdir(parents=True)
        self.microsoft = Microsoft(
            folder / "microsoft",
            *(word for box in BOXES for word in ("--mailbox", f"{box}@contoso.com")),
            *("--host", hosts.hub, "--name", hosts.hub, "--connections", str(FROZEN_CONNECTIONS)),
            *("--messages-per-minute", str(bounds.minute), "--recipients-per-day", str(bounds.day)),
            *simulator,
            prefix=hosts.on(None, []),
        )
        self.config = _CONFIG.format(
            tenant=self.microsoft.env["RELAY_TENANT_ID"],
            client=self.microsoft.env["RELAY_CLIENT_ID"],
            minute=bounds.minute,
            day=bounds.day,
            connections=bounds.connections,
            more=more,
            senders="\n".join(f'  - {{match: "*@{box}.local", from: {box}@contoso.com}}' for box in BOXES),
        )
        self.replicas: list[Replica] = []
        self._senders: list[Senders] = []

    def replica(self, name: str, code: Path | None = None) -> Replica:
        """One more, not started; ``code``: the folder of another release, which it runs."""
        one = Replica(name, self.folder / name, self, len(self.replicas), code)
        self.replicas.append(one)
        return one

    def start(self, *names: str) -> list[Replica]:
        """Replicas of this release, all started and listening."""
        made = [self.replica(name) for name in names]
        for one in made:
            one.start(wait=False)
        for one in made:
            self.ready(one)
        return made

    def ready(self, one: Replica, seconds: float = 60.0) -> None:
        """Wait until it listens; started again when it has ended by itself, as its service does."""

        def works() -> bool:
            one.serve()
            return one.listens

        until(works, seconds, f"{one.name} listens; its log: {one.log}")

    def senders(self, *doors: Replica) -> Senders:
        """Clients of these replicas (all of them without any), not at work yet."""
        made = Senders([one.door for one in doors or self.replicas], self.hosts.enter)
        self._senders.append(made)
        return made

    def worker(self, box: str) -> Replica:
        """The replica that delivered the last message of a mailbox."""

        def last() -> Replica | None:
            times = {
                max(
                    (event["time"] for event in one.events("delivered") if box in event["lane"]), default=""
                ): one
                for one in self.replicas
            }
            return times[max(times)] if max(times) else None

        return until(last, what=f"mail of {box} is delivered")

    def look(self) -> Findings:
        """What Exchange recorded so far."""
        with self.hosts.at_hub():
            return look(self.microsoft)

    def received(self) -> set[str]:
        """The Message-IDs at Exchange."""
        return set(self.look().arrived)

    def await_delivery(self, senders: Senders, boxes: tuple[str, ...] = BOXES, seconds: float = 60.0) -> None:
        """Until all that was acknowledged for these mailboxes is at Exchange."""
        expected = set().union(*(senders.taken(box) for box in boxes))
        until(lambda: expected <= self.received(), seconds, f"{len(expected)} messages are delivered")

    def seconds_to_exchange(self, door: Replica, letter: Letter) -> float:
        """From the 250 at one replica to the end of the message at Exchange."""
        (one,) = self.senders(door).start([letter]).wait().tries
        until(lambda: one.message_id in self.received(), what=f"{one} is delivered")
        return self.look().when[one.message_id] - one.answered

    def verdict(
        self, senders: Senders, connections: int = 0, *, full: bool = False, witness: Replica | None = None
    ) -> Findings:
        """The judge's; ``connections`` instead of the relay's own limit; ``full``: mail may wait for its limit."""
        witness = witness or self.replicas[0]
        bounds = self.bounds
        if connections:
            bounds = Bounds(bounds.minute, bounds.day, connections)
        until(lambda: counts_agree(witness, full=full), 20, f"status and queue agree; {witness.log}")
        waiting = queued(witness) if full else frozenset[str]()
        found = self.look()
        check_limits(found, bounds)
        check_mail(found, senders, witness, waiting)
        return found

    def close(self) -> None:
        """End all of it, whatever state it is in."""
        for senders in self._senders:
            senders.abandon()
        for one in self.replicas:
            one.close()
        self.microsoft.stop()


def pass_time(seconds: float) -> None:
    """Time that passes is part of these tests."""
    ends = time.monotonic() + seconds
    until(lambda: time.monotonic() > ends, seconds + 10)


def counts_agree(witness: Relay, *, full: bool) -> bool:
    """What `relay status` counts is what `relay queue list` shows; nothing of either, unless mail may be left."""
    counted = witness.status()["spool"]["messages"]
    return counted == len(queued(witness)) and (full or counted == 0)
