"""`relay simulator`: one line of JSON, then service until it is told to stop; and what stays in the directory."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest
import typer
import uvloop
from typer.testing import CliRunner

from relay.simulator.app import Simulator
from relay.simulator.cli import add_command, read_send_as, read_size
from relay.simulator.options import SimulatorOptions
from tests.simulator.kit import MESSAGE, Connect, Dialog, Start

PROGRAM = (
    "import typer; from relay.simulator.cli import add_command; app = typer.Typer(); app.callback()(lambda: None); "
    "add_command(app); app()"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_announces_itself_and_stops_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The line names every address and the relay's environment; the exit status is 0."""
    options = [
        "--dir",
        str(tmp_path),
        "--mailbox",
        "it@contoso.com",
        "--fault",
        "mail:drop;times=1",
        "--no-keep",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "simulator", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        line = json.loads(await process.stdout.readline())
        _, writer = await asyncio.open_connection("127.0.0.1", int(line["smtp"].rpartition(":")[2]))
        writer.close()
        process.send_signal(number)
        assert await process.wait() == 0
    assert set(line) == {"smtp", "authority", "graph_url", "ca_file", "control", "directory", "env"}
    assert line["env"]["RELAY_FROM_EMAIL"] == "it@contoso.com"
    assert line["env"]["RELAY_CA_FILE"] == line["ca_file"] == str(tmp_path / "ca.pem")
    assert line["env"]["RELAY_AUTHORITY"] == line["authority"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "nonsense"],
        ["--permission", "Fly"],
        ["--message-size", "big"],
        ["--send-as", "x"],
        ["--certificate", __file__],
    ],
)
def test_wrong_usage_is_status_two(tmp_path: Path, arguments: list[str]) -> None:
    """Before anything listens."""
    app = typer.Typer()
    app.callback()(lambda: None)
    add_command(app)
    result = CliRunner().invoke(app, ["simulator", "--dir", str(tmp_path), *arguments])
    assert result.exit_code == 2


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    """STARTTLS, a logon and a message, on the loop that the daemon uses where it can."""

    async def submit() -> int:
        async with Simulator(SimulatorOptions(directory=tmp_path)) as sim:
            dialog = Dialog(sim, *await asyncio.open_connection("127.0.0.1", sim.smtp_port))
            assert (await dialog.read()).startswith("220 ")
            assert (await dialog.say("EHLO relay.test")).startswith("250")
            await dialog.starttls()
            assert (await dialog.say("EHLO relay.test")).startswith("250")
            assert (await dialog.auth()).startswith("235 ")
            assert (await dialog.message(MESSAGE)).startswith("250 ")
            dialog.writer.close()
            return len(sim.messages)

    assert uvloop.run(submit()) == 1


def test_sizes_and_pairs() -> None:
    """Powers of 1024; several addresses for one mailbox."""
    assert (read_size("35MB"), read_size("512KB"), read_size("7")) == (36_700_160, 524_288, 7)
    assert read_send_as(["a@x=b@x", "a@x=c@x"]) == {"a@x": {"b@x", "c@x"}}


async def test_the_ca_and_the_mail_outlive_a_run(start: Start, connect: Connect, tmp_path: Path) -> None:
    """A second simulator in the same directory shows the same CA, and numbers its mail onwards."""
    first = await start(directory=tmp_path)
    await (await connect(first)).message(MESSAGE)
    ca = first.ca_file.read_bytes()
    await first.stop()
    second = await start(directory=tmp_path)
    assert second.ca_file.read_bytes() == ca
    await (await connect(second)).message(MESSAGE)
    assert sorted(path.name for path in (tmp_path / "messages").iterdir()) == ["00000001.eml", "00000002.eml"]


async def test_counting_only_keeps_nothing(start: Start, connect: Connect) -> None:
    """``keep=False``: the counter goes up, neither list nor file grows."""
    sim = await start(keep=False)
    assert (await (await connect(sim)).message(MESSAGE)).startswith("250 ")
    assert (sim.counters["messages"], sim.messages) == (1, [])
    assert list((sim.directory / "messages").iterdir()) == []


async def test_a_taken_port_is_an_error_that_leaves_nothing_open(tmp_path: Path) -> None:
    """OSError, and what was already listening is closed again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sim = Simulator(SimulatorOptions(directory=tmp_path, smtp_port=taken.getsockname()[1]))
        with pytest.raises(OSError):
            await sim.start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(sim.authority.rpartition(":")[2]))


async def test_any_mailbox_takes_every_address_of_the_domains(start: Start, connect: Connect) -> None:
    """And of no other domain."""
    sim = await start(any_mailbox=True, domains=["contoso.com"])
    dialog = await connect(sim, "tls")
    assert (await dialog.auth("who@fabrikam.com")).startswith("535 ")
    assert (await dialog.auth("who@contoso.com")).startswith("235 ")


async def test_an_address_may_be_its_name(tmp_path: Path) -> None:
    """A client that verifies whom it speaks with finds the address in the certificate."""
    options = SimulatorOptions(directory=tmp_path, host="127.0.0.2", public_name="127.0.0.2")
    async with Simulator(options) as sim:
        port = int(sim.authority.rpartition(":")[2])
        trusted = ssl.create_default_context(cafile=str(sim.ca_file))
        _, writer = await asyncio.open_connection("127.0.0.2", port, ssl=trusted)
        assert ("IP Address", "127.0.0.2") in writer.get_extra_info("peercert")["subjectAltName"]
        writer.close()
