"""The demo from start to end: set up, send, watch, compare, clean up."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from relay.demo.letters import Letter, letters
from relay.demo.process import Event, RelayProcess
from relay.demo.result import Arrival, compare, table
from relay.errors import RelayError
from relay.logs import visible
from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions
from relay.tokens.contract import NEEDED_ROLE, Resource

START = 30.0
"""Seconds that the relay may take to listen, on a slow machine."""
DELIVERY = 60.0
"""Seconds that all mail may take to arrive."""
GUIDE_TENANT = "9d1e0000-6c2a-4f5d-8b3e-0c0ffee00009"
CONFIG = """\
# The eight fields of the set-up guide ...
upstreams:
  - server_name: Microsoft 365 (simulated)
    from_email: {from_email}
    tenant_id: {tenant}
    client_id: {client}
    client_secret: file:client-secret
    port: {port}
    timeout: 120
    batch_size: medium
    # ... and where the simulator is: no account, no Internet.
    host: {host}
    authority: {authority}
    graph_url: {graph}
    ca_file: {ca}
  # A second tenant, set up by the guide to the letter: Graph's Mail.Send and nothing else.
  - server_name: By the guide (simulated)
    from_email: {from_email}
    tenant_id: {guide_tenant}
    client_id: {client}
    client_secret: file:client-secret
    port: {guide_port}
    timeout: 120
    batch_size: medium
    host: {host}
    authority: {guide_authority}
    graph_url: {guide_graph}
    ca_file: {guide_ca}
listeners:
  - bind: 127.0.0.1:{listen}
senders:
  - {{match: "*@scanners.local", from: {scans}}}
  - {{match: "*@guide.local", upstream: By the guide (simulated)}}
spool:
  url: "sqlite:///{spool}"
log: {{level: debug, format: json}}
"""


async def run(keep: Path | None) -> int:
    """The whole demo; 0 only if every message arrived intact. ``keep`` names a directory that stays."""
    console = Console(highlight=False, soft_wrap=True)
    async with AsyncExitStack() as stack:
        directory = keep
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-")))
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return await Journey(directory.resolve(), console).run()
        except (RelayError, OSError, smtplib.SMTPException) as error:
            console.print(f"[red]The demo failed:[/] {escape(str(error))}")
            return 1
        finally:
            if keep is not None:
                console.print(
                    f"Kept in {escape(str(directory))}: config.yaml, spool.db, exchange/messages/*.eml and guide/messages/*.eml"
                )


class Journey:
    """One run of the demo in one directory."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._began = time.monotonic()
        self._port = _free_port()
        self._simulator = Simulator(SimulatorOptions(directory=directory / "exchange"))
        self._guide = Simulator(
            SimulatorOptions(
                directory=directory / "guide",
                tenant_id=GUIDE_TENANT,
                permissions={NEEDED_ROLE[Resource.GRAPH]},
            )
        )
        self._relay = RelayProcess(directory / "config.yaml", self._hear)
        boxes = self._simulator.options.mailboxes
        self._default, self._scans = boxes[0], boxes[1]

    async def run(self) -> int:
        """Everything; what was started is stopped, whatever happens."""
        self._step("demo", "starting a simulated Microsoft 365 (Entra ID and Exchange Online, TLS, own CA)")
        await self._simulator.start()
        try:
            self._step(
                "demo",
                "and a second one, where the app has what the guide grants: Graph's Mail.Send, no more",
            )
            await self._guide.start()
            self._configure()
            self._step("demo", f"starting `relay run` on 127.0.0.1:{self._port}")
            await self._relay.start(START)
            arrivals = await self._send_all()
        finally:
            status = await self._relay.stop()
            await self._simulator.stop()
            await self._guide.stop()
        return self._conclude(arrivals, status)

    def _configure(self) -> None:
        secret = self._directory / "client-secret"
        secret.touch(mode=0o600)
        secret.write_text(self._simulator.options.client_secret)
        config = self._directory / "config.yaml"
        config.touch(mode=0o600)
        options = self._simulator.options
        config.write_text(
            CONFIG.format(
                from_email=self._default,
                scans=self._scans,
                tenant=options.tenant_id,
                client=options.client_id,
                host=options.public_name,
                port=self._simulator.smtp_port,
                authority=self._simulator.authority,
                graph=self._simulator.graph_url,
                ca=self._simulator.ca_file,
                guide_tenant=self._guide.options.tenant_id,
                guide_port=self._guide.smtp_port,
                guide_authority=self._guide.authority,
                guide_graph=self._guide.graph_url,
                guide_ca=self._guide.ca_file,
                listen=self._port,
                spool=self._directory / "spool.db",
            )
        )

    async def _send_all(self) -> list[Arrival]:
        sent = letters(self._default, self._scans)
        for letter in sent:
            words = await asyncio.to_thread(_send, letter, self._port)
            self._step(
                "client", f"{letter.title}: {letter.sender} sent {len(letter.data):,} octets; answer: {words}"
            )
        # a message with several recipients may come in one submission or in several
        guided = [letter for letter in sent if letter.guided]
        others = [letter for letter in sent if not letter.guided]
        await self._simulator.wait_for(lambda: _complete(self._simulator, others), DELIVERY)
        await self._guide.wait_for(lambda: _complete(self._guide, guided), DELIVERY)
        return compare(sent, [*self._simulator.messages, *self._guide.messages])

    def _hear(self, event: Event) -> None:
        shown = _told(event)
        if shown:
            self._step("relay", shown)

    def _step(self, who: str, what: str) -> None:
        colour = {"demo": "cyan", "client": "yellow", "relay": "green"}[who]
        elapsed = time.monotonic() - self._began
        self._console.print(f"{elapsed:6.2f} s  [{colour}]{who:7}[/] {escape(visible(what))}")

    def _conclude(self, arrivals: list[Arrival], status: int) -> int:
        self._console.print()
        wide = self._console if self._console.is_terminal else Console(width=200, highlight=False)
        wide.print(table(arrivals))
        intact = sum(arrival.intact for arrival in arrivals)
        elapsed = time.monotonic() - self._began
        self._console.print(f"{intact} of {len(arrivals)} messages arrived intact, in {elapsed:.1f} s.")
        count, guide = self._simulator.counters, self._guide.counters
        self._console.print(
            f"Exchange saw {count['messages']} submissions over {count['auths']} authenticated connections;"
            f" Entra ID issued {count['tokens']} token(s). The tenant set up by the guide took"
            f" {guide['messages_graph']} message over Graph, with {guide['auths']} logins over SMTP."
        )
        if status != 0:
            self._console.print(f"[red]The relay ended with status {status}.[/]")
        return 0 if intact == len(arrivals) and status == 0 else 1


def _complete(simulator: Simulator, sent: list[Letter]) -> bool:
    return all(
        arrival.recipients_seen >= len(arrival.letter.recipients)
        for arrival in compare(sent, simulator.messages)
    )


def _told(event: Event) -> str:
    """One event of the relay's log in words; empty for what does not matter here."""
    kind, message = event.get("event"), event.get("id", "")
    if kind == "accepted":
        return f"{message} accepted, safe on disk, queued for {event.get('lane')}"
    if kind == "attempted":
        return f"{message} being submitted"
    if kind == "login":
        return f"authenticated at {event.get('host')} with an OAuth2 token, for {event.get('transport')}"
    if kind == "transport":
        return f"{event.get('upstream')} sends by {event.get('transport')}: {event.get('why')}"
    if kind == "delivered":
        return f"{message} delivered: {event.get('reply')}"
    if kind in ("deferred", "failed", "held", "uncertain", "trouble", "rejected"):
        return f"{message} {kind}: {event.get('reason') or event.get('what') or ''}".strip()
    return ""


def _send(letter: Letter, port: int) -> str:
    """Submit by plain SMTP, as the old sender would; the server's answer. Raises SMTPException or OSError."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="old-device", timeout=60) as client:
        client.ehlo()
        for code, words in [
            client.mail(letter.sender, ["BODY=8BITMIME"] if not letter.data.isascii() else []),
            *(client.rcpt(address) for address in letter.recipients),
            client.data(letter.data),
        ]:
            if code not in (250, 251):
                raise smtplib.SMTPResponseException(code, words)
    return f"{code} {words.decode('utf-8', 'replace')}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
