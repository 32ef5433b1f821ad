"""What the tests of the check share: settings that point at the simulator, and a report that is easy to ask."""

from __future__ import annotations

import socket
from pathlib import Path

from relay.check.contract import CheckReport, Step
from relay.config.load import load
from relay.settings import Settings
from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions

MAILBOX = "notifications@contoso.com"
CONFIG = """\
upstreams:
  - server_name: Microsoft 365
    from_email: {from_email}
    tenant_id: {tenant_id}
    client_id: {client_id}
    client_secret: file:client-secret
    host: {host}
    port: {port}
    timeout: {timeout}
    authority: {authority}
    graph_url: {graph_url}
    ca_file: {ca_file}
    transport: {transport}
{more}
listeners:
  - bind: {bind}
{senders}
spool:
  url: sqlite:///spool.db
postmaster: it@contoso.com
alerts: {{command: /bin/true}}
"""


def simulator(folder: Path, **options: object) -> Simulator:
    """A tenant of its own, not started yet."""
    return Simulator(SimulatorOptions(directory=folder / "sim", **options))  # type: ignore[arg-type]


def free_port() -> int:
    """A port nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_for(sim: Simulator, folder: Path, **changes: object) -> Settings:
    """The configuration of a relay that uses this tenant, read from a file; ``secret`` is written to its own."""
    return load(write_config(sim, folder, **changes), {})


def write_config(sim: Simulator, folder: Path, **changes: object) -> Path:
    """The file alone."""
    values: dict[str, object] = {
        "from_email": MAILBOX, "tenant_id": sim.state.tenant_id, "client_id": sim.state.client_id,
        "host": sim.options.public_name, "port": sim.smtp_port, "authority": sim.authority, "graph_url": sim.graph_url,
        "ca_file": sim.ca_file, "transport": "auto", "timeout": 5, "more": "", "senders": "", "bind": f"127.0.0.1:{free_port()}",
    }  # fmt: skip
    secret = folder / "client-secret"
    secret.write_text(str(changes.pop("secret", sim.state.client_secret)))
    secret.chmod(0o600)
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(**{**values, **changes}))
    file.chmod(0o600)
    return file


def step(report: CheckReport, id: str) -> Step:
    """The step of that id."""
    found = [one for one in report.steps if one.id == id]
    assert len(found) == 1, [one.id for one in report.steps]
    return found[0]


def failed(report: CheckReport) -> list[str]:
    """Ids of the steps that failed, in the report's order."""
    return [one.id for one in report.steps if one.status == "fail"]


def everything(report: CheckReport) -> str:
    """All that a person or a script may see."""
    return "\n".join(str(one.to_json()) for one in report.steps)
