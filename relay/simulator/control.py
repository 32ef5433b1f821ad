"""The control address: what a rehearsal reads and changes while the simulator runs. Plain HTTP, for this machine."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from relay.simulator.entra_users import UserFlows
from relay.simulator.faults import Fault
from relay.simulator.graph_store import GraphStore
from relay.simulator.services import Services

Report = Callable[[], dict[str, Any]]
LONGEST_WAIT = 300.0  # seconds


class Control:
    """Lists mail, counters and limits; sets faults and state. ``applied`` is awaited after each change of state."""

    def __init__(
        self,
        services: Services,
        drafts: GraphStore,
        users: UserFlows,
        report: Report,
        applied: Callable[[], Awaitable[None]],
    ) -> None:
        self._services = services
        self._store = services.store
        self._draft_store = drafts
        self._users = users
        self._report = report
        self._applied = applied

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._errors])
        app.router.add_get("/messages", self._messages)
        app.router.add_get("/messages/{id}", self._message)
        app.router.add_delete("/messages", self._messages_clear)
        app.router.add_get("/counters", self._counters)
        app.router.add_get("/refusals", self._refusals)
        app.router.add_get("/limits", self._limits)
        app.router.add_get("/drafts", self._drafts)
        app.router.add_get("/faults", self._faults)
        app.router.add_post("/faults", self._faults_add)
        app.router.add_delete("/faults", self._faults_clear)
        app.router.add_get("/devicecodes", self._device_codes)
        app.router.add_post("/devicecodes", self._device_code_decide)
        app.router.add_post("/revoke", self._revoke)
        app.router.add_get("/state", self._state)
        app.router.add_patch("/state", self._state_patch)
        return app

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """What cannot be read or does not fit is answered 400 with the reason."""
        try:
            return await handler(request)
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _messages(self, request: web.Request) -> web.Response:
        """The accepted mail; ``?count=N&timeout=S`` waits until there are so many (or the time is over)."""
        count = int(request.query.get("count", 0))
        seconds = min(float(request.query.get("timeout", 10)), LONGEST_WAIT)
        if count:
            await self._store.wait(lambda: len(self._store.messages) >= count, seconds)
        return web.json_response([message.to_json() for message in self._store.messages])

    async def _message(self, request: web.Request) -> web.StreamResponse:
        message = self._store.find(request.match_info["id"])
        if message is None:
            return web.json_response({"error": "no such message"}, status=404)
        return web.FileResponse(message.path, headers={"Content-Type": "message/rfc822"})

    async def _messages_clear(self, request: web.Request) -> web.Response:
        return web.json_response({"deleted": self._store.clear()})

    async def _counters(self, request: web.Request) -> web.Response:
        return web.json_response(dict(self._store.counters))

    async def _refusals(self, request: web.Request) -> web.Response:
        return web.json_response(list(self._store.refusals))

    async def _limits(self, request: web.Request) -> web.Response:
        return web.json_response(self._report())

    async def _drafts(self, request: web.Request) -> web.Response:
        return web.json_response(self._draft_store.to_control())

    async def _faults(self, request: web.Request) -> web.Response:
        return web.json_response([fault.to_json() for fault in self._services.faults.list()])

    async def _faults_add(self, request: web.Request) -> web.Response:
        """One fault or a list of them; as text (also a body that is no JSON at all) or as objects."""
        text = (await request.text()).strip()
        given = json.loads(text) if text[:1] in ("[", "{", '"') else text
        faults = [Fault.from_json(item) for item in (given if isinstance(given, list) else [given])]
        return web.json_response([self._services.faults.add(fault).to_json() for fault in faults], status=201)

    async def _faults_clear(self, request: web.Request) -> web.Response:
        self._services.faults.clear()
        return web.Response(status=204)

    async def _device_codes(self, request: web.Request) -> web.Response:
        return web.json_response([vars(device) for device in self._users.devices.values()])

    async def _device_code_decide(self, request: web.Request) -> web.Response:
        """``{"user": .., "user_code": .., "approve": false}``: a code is entered; without one, the newest."""
        given = await _object(request, {"user", "user_code", "approve"})
        device = self._users.decide(
            given.get("user", ""), approved=given.get("approve", True), user_code=given.get("user_code")
        )
        return web.json_response(vars(device))

    async def _revoke(self, request: web.Request) -> web.Response:
        """``{"user": ..}``: the password was changed, so that refresh tokens are void."""
        self._users.revoke((await _object(request, {"user"}))["user"])
        return web.Response(status=204)

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self._services.state.to_json())

    async def _state_patch(self, request: web.Request) -> web.Response:
        changes = await _object(request)
        self._services.state.patch(changes)
        await self._applied()
        return web.json_response(self._services.state.to_json())


async def _object(request: web.Request, known: set[str] | None = None) -> dict[str, Any]:
    """The body as an object of the known keys. Raises ValueError."""
    given = json.loads(await request.text())
    if not isinstance(given, dict):
        raise ValueError("an object is needed")
    if known is not None and not set(given) <= known:
        raise ValueError(f"unknown key: known are {', '.join(sorted(known))}")
    return given
