"""`Simulator`: a stand-in for Entra ID, Exchange Online's SMTP submission and Microsoft Graph on this machine."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from relay.simulator import pki
from relay.simulator.control import Control
from relay.simulator.entra import Entra
from relay.simulator.entra_users import UserFlows
from relay.simulator.exchange import Exchange
from relay.simulator.faults import Faults
from relay.simulator.graph import Graph
from relay.simulator.graph_store import GraphStore
from relay.simulator.ledger import Ledger
from relay.simulator.options import SimulatorOptions
from relay.simulator.services import Services
from relay.simulator.state import State
from relay.simulator.store import Accepted, Store

SHUTDOWN = 0.1  # seconds that open HTTP requests get when a service goes down


class HttpService:
    """One aiohttp application on one port, which can be closed and opened again."""

    def __init__(self, app: web.Application, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.port = port
        self._host = host
        self._context = context
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN)
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Listen; a port of 0 is replaced by the one the system chose. Raises OSError."""
        await self._runner.setup()
        await self._open()

    async def _open(self) -> None:
        self._site = web.TCPSite(self._runner, self._host, self.port, ssl_context=self._context)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def follow(self, *, down: bool) -> None:
        """Refuse connections (and drop the open ones), or take them, as the state says."""
        if down and self._site is not None:
            await self._site.stop()
            self._site = None
            if self._runner.server is not None:
                await self._runner.server.shutdown(SHUTDOWN)
        elif not down and self._site is None:
            await self._open()

    async def stop(self) -> None:
        """Close everything."""
        await self._runner.cleanup()


class Simulator:
    """The whole stand-in. `start` opens four ports, `stop` closes them; the mail stays in the directory."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.directory = Path(options.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(options.faults)
        self.state = State(options)
        self.ledger = Ledger(lambda: self.state.limits, options.clock)
        self.store = Store(self.directory, options.clock, keep=options.keep)
        self.ca_file, server_file = pki.prepare(self.directory, (options.public_name,))
        proxy = pki.interceptor_context(self.directory / "interceptor", (options.public_name,))
        smtp_tls = pki.server_context(server_file, proxy, lambda: self.state.smtp_front == "intercepts-tls")
        context = pki.server_context(server_file, proxy, lambda: self.state.https_front == "intercepts-tls")
        services = Services(self.state, self.faults, self.store, self.ledger)
        self._entra = Entra(self.state, self.faults, self.store)
        self._drafts = GraphStore(self.directory)
        self._graph = Graph(services, self._drafts)
        control = Control(services, self._drafts, self._entra.users, self.limits_report, self.apply)
        host = options.host
        self._exchange = Exchange(services, smtp_tls, host, options.smtp_port)
        self._entra_service = HttpService(self._entra.application(), host, options.https_port, context)
        self._graph_service = HttpService(self._graph.application(), host, options.graph_port, context)
        self._control_service = HttpService(control.application(), host, options.control_port, None)

    def __repr__(self) -> str:
        return (
            f"Simulator(smtp={self._exchange.port}, authority={self.authority!r}, directory={self.directory})"
        )

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on all ports. Raises OSError when one is taken."""
        try:
            for service in (self._entra_service, self._graph_service, self._control_service, self._exchange):
                await service.start()
        except OSError:
            await self.stop()
            raise
        self._entra.authority = self.authority
        self._graph.url = self.graph_url
        await self.apply()

    async def stop(self) -> None:
        """Close everything; open connections are cut."""
        for service in (self._exchange, self._entra_service, self._graph_service, self._control_service):
            await service.stop()
        self.store.close()

    async def apply(self) -> None:
        """Take services down or bring them back as the state says; call it after changing ``state`` directly."""
        await self._exchange.follow(down=self.state.exchange_down)
        await self._entra_service.follow(down=self.state.entra_down == "refuse")
        await self._graph_service.follow(down=self.state.graph_down == "refuse")

    async def change(self, **changes: Any) -> None:
        """Change the tenant as PATCH /state does. Raises ValueError for an unknown key or a bad value."""
        self.state.patch(changes)
        await self.apply()

    async def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until the condition holds, checked whenever mail is accepted or refused; False when time is over."""
        return await self.store.wait(condition, timeout)

    async def wait_for_messages(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until so many messages have been accepted in all."""
        return await self.wait_for(lambda: self.store.counters["messages"] >= count, timeout)

    @property
    def smtp_port(self) -> int:
        """The port of the SMTP service."""
        return self._exchange.port

    @property
    def authority(self) -> str:
        """Entra's address, without the tenant."""
        return f"https://{self.options.public_name}:{self._entra_service.port}"

    @property
    def graph_url(self) -> str:
        """Graph's address, without the version."""
        return f"https://{self.options.public_name}:{self._graph_service.port}"

    @property
    def control_url(self) -> str:
        """The address of the control service."""
        return f"http://{self.options.host}:{self._control_service.port}"

    @property
    def messages(self) -> list[Accepted]:
        """The accepted mail, oldest first."""
        return self.store.messages

    @property
    def counters(self) -> Counter[str]:
        """What has happened so far, by name."""
        return self.store.counters

    def limits_report(self) -> dict[str, Any]:
        """For judging: how near each mailbox came to its limits, and Graph's concurrency."""
        return {"mailboxes": self.ledger.report(), "graph": self._graph.gate.rates.report()}

    @property
    def users(self) -> UserFlows:
        """Who signs in: approve or decline a device code, revoke what a user has."""
        return self._entra.users

    def drafts(self) -> list[dict[str, Any]]:
        """Graph's drafts that were neither sent nor deleted, with their attachments and open upload sessions."""
        return self._drafts.to_control()

    def environment(self) -> dict[str, str]:
        """The variables with which a relay finds this tenant."""
        return {
            "RELAY_HOST": self.options.public_name,
            "RELAY_PORT": str(self.smtp_port),
            "RELAY_AUTHORITY": self.authority,
            "RELAY_GRAPH_URL": self.graph_url,
            "RELAY_CA_FILE": str(self.ca_file),
            "RELAY_TENANT_ID": self.state.tenant_id,
            "RELAY_CLIENT_ID": self.state.client_id,
            "RELAY_CLIENT_SECRET": self.state.client_secret,
            "RELAY_FROM_EMAIL": self.options.mailboxes[0] if self.options.mailboxes else "",
        }
