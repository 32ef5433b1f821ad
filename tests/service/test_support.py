"""The support bundle: enough to help with, nothing secret, no people."""

from __future__ import annotations

import asyncio
import base64
import json
import smtplib
import zipfile
from pathlib import Path

from typer.testing import CliRunner

from relay import events
from relay.cli.app import build_app
from relay.config.load import load
from tests.monitor.test_metrics import send
from tests.web.client import CONFIG, Site, hashed

SECRET = "a-secret-nobody-may-see"


def bundle(config: Path, output: Path) -> dict[str, str]:
    """Run the command; file name -> text."""
    words = ["support", "--config", str(config), "--output", str(output)]
    done = CliRunner().invoke(build_app("support"), words)
    assert done.exit_code == 0, done.output
    assert output.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(output) as file:
        return {name.removeprefix("relay-support/"): file.read(name).decode() for name in file.namelist()}


async def in_trouble(site: Site, folder: Path) -> dict[str, str]:
    """The bundle of a relay whose mail cannot leave; waits until it knows."""
    async with asyncio.timeout(30):
        while not (await site.daemon.health())["warnings"]:
            await asyncio.sleep(0.05)
    return await asyncio.to_thread(bundle, site.config, folder / "running.zip")


async def test_it_holds_what_helps_and_nothing_secret(tmp_path):
    site = Site(tmp_path)
    await site.start()
    try:
        await asyncio.to_thread(send, site, "ann@private.example", "ben@secret.example")
        events.trouble(
            where="test", what="token=eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0. for you", link="http://one-time/"
        )
        running = await in_trouble(site, tmp_path)
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


PLANTED = {
    "alerts.webhook": "https://hooks.example/services/T000/B000/w3bh00k-k3y",
    "alerts.command": "/bin/true --key c0mmand-k3y",
    "upstreams[0].proxy": "http://proxyuser:pr0xy-passw0rd@127.0.0.1:9",
    "upstreams[0].client_secret": "cl1ent~s3cret~in~the~environment",
    "the other secret": "s3cond~s3cret~in~a~file",
    "a subject": "Salary-of-Ann-Subj3ct",
    "a body": "B0dy-of-the-letter",
}
"""Where something secret or personal may stand, and a piece of each that must not come out."""
PIECES = (
    "w3bh00k-k3y",
    "c0mmand-k3y",
    "pr0xy-passw0rd",
    "cl1ent~s3cret",
    "s3cond~s3cret",
    "Subj3ct",
    "B0dy-of",
)


async def test_whatever_is_planted_stays_out(tmp_path, monkeypatch):
    """Secrets in file, environment, addresses and arguments, and in mail that waits: none is in any part, in any form."""
    (tmp_path / "second").write_text(PLANTED["the other secret"])
    (tmp_path / "second").chmod(0o600)
    config = (
        CONFIG.replace("client_secret: a-secret-nobody-may-see", "client_secret: env:PLANTED_SECRET\n"
        "    next_credential: {{client_secret: 'file:second'}}\n"
        f"    proxy: {PLANTED['upstreams[0].proxy']}")
        + f"alerts: {{{{webhook: '{PLANTED['alerts.webhook']}', command: '{PLANTED['alerts.command']}'}}}}\n"
    )  # fmt: skip
    monkeypatch.setenv("PLANTED_SECRET", PLANTED["upstreams[0].client_secret"])
    # alerts stand at the end, and the site puts the page's password there
    site = Site(tmp_path, password=False, config=config)
    text = site.config.read_text().replace(
        "  bind: 127.0.0.1:0\n  names", f"  password: {hashed()}\n  bind: 127.0.0.1:0\n  names"
    )
    site.config.write_text(text)
    monkeypatch.setattr("tests.web.client.load", lambda path, _environ: load(path))
    await site.start()
    try:

        def submit() -> None:
            host, port = next(iter(site.daemon.listeners.values())).address
            with smtplib.SMTP(host, port, timeout=20) as client:
                client.sendmail(
                    "ann@private.example", ["ben@secret.example"],
                    f"From: ann@private.example\r\nSubject: {PLANTED['a subject']}\r\n\r\n{PLANTED['a body']}\r\n",
                )  # fmt: skip

        await asyncio.to_thread(submit)
        running = await in_trouble(site, tmp_path)
    finally:
        await site.stop()
    stopped = await asyncio.to_thread(bundle, site.config, tmp_path / "stopped.zip")
    site.config.write_text(text.replace("batch", "").replace("host: 127.0.0.1", "hots: 127.0.0.1"))
    faulty = await asyncio.to_thread(bundle, site.config, tmp_path / "faulty.zip")
    assert "faults.txt" in faulty
    for parts in (running, stopped, faulty):
        everything = "".join(parts.values())
        for piece in (*PIECES, hashed(), "ann@private", "ben@secret"):
            assert piece not in everything, piece
            assert base64.b64encode(piece.encode()).decode().rstrip("=")[:-1] not in everything, piece
