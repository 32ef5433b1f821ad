"""The support bundle: enough to help with, nothing secret, no people."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path

from typer.testing import CliRunner

from relay import events
from relay.cli.app import build_app
from tests.monitor.test_metrics import send
from tests.web.client import Site, hashed

SECRET = "a-secret-nobody-may-see"


def bundle(config: Path, output: Path) -> dict[str, str]:
    """Run the command; file name -> text."""
    words = ["support", "--config", str(config), "--output", str(output)]
    done = CliRunner().invoke(build_app("support"), words)
    assert done.exit_code == 0, done.output
    assert output.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(output) as file:
        return {name.removeprefix("relay-support/"): file.read(name).decode() for name in file.namelist()}


async def test_it_holds_what_helps_and_nothing_secret(tmp_path):
    site = Site(tmp_path)
    await site.start()
    try:
        await asyncio.to_thread(send, site, "ann@private.example", "ben@secret.example")
        events.trouble(
            where="test", what="token=eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0. for you", link="http://one-time/"
        )
        async with asyncio.timeout(30):
            while not (await site.daemon.health())["warnings"]:
                await asyncio.sleep(0.05)
        running = await asyncio.to_thread(bundle, site.config, tmp_path / "running.zip")
    finally:
        await site.stop()
    assert set(running) == {
        "README.txt", "versions.json", "configuration.yaml", "status.json", "health.json", "events.jsonl", "queue.jsonl",
    }  # fmt: skip
    everything = "".join(running.values())
    for word in (SECRET, hashed(), "eyJhbGci", "ann@", "ben@", "Hello", "one-time"):
        assert word not in everything
    assert "client_secret" in running["configuration.yaml"]
    assert json.loads(running["versions.json"])["libraries"]["msal"]
    assert json.loads(running["health.json"])["warnings"]
    lines = [json.loads(one) for one in running["events.jsonl"].splitlines()]
    assert [one["where"] for one in lines if one["event"] == "trouble" and one["where"] == "test"] == ["test"]
    (message,) = [json.loads(one) for one in running["queue.jsonl"].splitlines()]
    assert (message["sender"], message["recipients"][0]["domain"]) == ("@private.example", "@secret.example")
    stopped = await asyncio.to_thread(bundle, site.config, tmp_path / "stopped.zip")
    assert json.loads(stopped["status.json"])["started"] is None
    assert "no running relay" in stopped["health.missing.txt"]


def test_a_faulty_configuration_is_told_in_the_bundle(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("upstreams: [{from_email: nonsense}]\n")
    parts = bundle(config, tmp_path / "out.zip")
    assert set(parts) == {"README.txt", "versions.json", "faults.txt"}
    assert "from_email" in parts["faults.txt"]


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "out.zip").write_text("mine")
    words = ["support", "--config", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "out.zip")]
    done = CliRunner().invoke(build_app("support"), words)
    assert done.exit_code == 1
    assert (tmp_path / "out.zip").read_text() == "mine"
