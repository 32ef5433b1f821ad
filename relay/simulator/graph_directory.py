"""The app's own registration, as Graph shows it."""

from __future__ import annotations

import datetime
import re
import urllib.parse
from typing import Any

from aiohttp import web

from relay.simulator import graph_errors as refusal
from relay.simulator.graph_gate import Gate
from relay.simulator.services import Services

_APPLICATION = re.compile(r"applications\(appId='([^']*)'\)")


class Directory:
    """Answers about the app registration."""

    def __init__(self, services: Services, gate: Gate) -> None:
        self._state = services.state
        self._gate = gate

    def add_routes(self, app: web.Application) -> None:
        """Reading the registration."""
        self._gate.add_route(
            app, "GET", "/v1.0/{resource:applications.*}", self._application, "graph-application"
        )

    async def _application(self, request: web.Request) -> web.Response:
        """``applications(appId='..')``: when the secret ends, for who may read it."""
        roles = set(self._gate.claims(request).get("roles", []))
        asked = _APPLICATION.fullmatch(urllib.parse.unquote(request.match_info["resource"]))
        if asked is None:
            raise refusal.no_such_path("applications")
        if not roles & {"Application.Read.All", "Application.ReadWrite.OwnedBy"}:
            raise refusal.directory_denied()
        if asked[1].lower() != self._state.client_id.lower():
            raise refusal.GraphError(
                404, "Request_ResourceNotFound", f"Resource '{asked[1]}' does not exist."
            )
        return web.json_response(self._registration(request))

    def _registration(self, request: web.Request) -> dict[str, Any]:
        state = self._state
        ends = datetime.datetime.fromtimestamp(state.secret_expires, datetime.UTC)
        secret = {
            "customKeyIdentifier": None,
            "displayName": "relay",
            "endDateTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hint": state.client_secret[:3],
            "keyId": state.secret_key_id,
            "secretText": None,
            "startDateTime": None,
        }
        return {
            "@odata.context": f"https://{request.host}/v1.0/$metadata#applications/$entity",
            "appId": state.client_id,
            "displayName": "relay (simulated)",
            "passwordCredentials": [secret],
            "keyCredentials": [],
        }
