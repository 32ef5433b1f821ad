"""`relay check`: what it prints, its exit status, its JSON, and that a running relay hears of a good one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli.app import build_app
from relay.config.load import load
from relay.simulator.app import Simulator
from tests.check.kit import MAILBOX, write_config
from tests.cli.kit import daemon
from tests.setup.kit import conversation, running_simulator


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with running_simulator(tmp_path_factory.mktemp("tenant")) as sim:
        yield sim


def check(*words: str) -> Result:
    """`relay check WORDS...`."""
    return CliRunner().invoke(build_app("check"), ["check", *words], env={"RELAY_CONFIG": None})


def test_a_good_one(sim: Simulator, tmp_path: Path) -> None:
    """Plain lines, one for each step; exit 0 although there is something to look at."""
    config = write_config(sim, tmp_path)
    result = check("--config", str(config))
    assert result.exit_code == 0, result.output
    assert f"ok      Login to Exchange as ({MAILBOX}): Exchange took the login (235)" in result.stdout
    assert "warn    Expiry of the credential" in result.stdout
    assert "(the guide's step 5)" in result.stdout
    assert "\x1b" not in result.output
    assert "no step failed" in result.stderr


def test_a_bad_one(sim: Simulator, tmp_path: Path) -> None:
    """Exit 1; the first thing to mend is named; the secret is nowhere."""
    config = write_config(sim, tmp_path, secret="abc~not-the-right-one")
    result = check("--config", str(config))
    assert result.exit_code == 1
    assert "FAIL    Token for Exchange Online: The client secret is wrong." in result.stdout
    assert "begin with: Token for Exchange Online [token-smtp]" in result.stderr
    assert "not-the-right-one" not in result.output


def test_json(sim: Simulator, tmp_path: Path) -> None:
    """The shape of the contract, on standard output alone."""
    config = write_config(sim, tmp_path, secret="abc~not-the-right-one")
    result = check("--config", str(config), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert {tuple(one) for one in report["steps"]} == {
        ("id", "title", "guide_step", "status", "seen", "remedy")
    }
    by_id = {one["id"]: one for one in report["steps"]}
    assert by_id["token-smtp"]["status"] == "fail"
    assert by_id[f"smtp-login:{MAILBOX}"]["status"] == "skipped"


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    """Exit 2; with --json still a report, whose one step says every fault."""
    config = tmp_path / "config.yaml"
    config.write_text("upstreams: []\nlog: {level: loud}\n")
    plain = check("--config", str(config))
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert "log.level" in plain.stderr
    result = check("--config", str(config), "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert [one["id"] for one in report["steps"]] == ["configuration"]
    assert "log.level" in report["steps"][0]["seen"]


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """Wrong usage."""
    result = check("--send-to", "nobody")
    assert (result.exit_code, "--send-to" in result.stderr) == (2, True)


def test_a_running_relay_hears_of_a_good_check(sim: Simulator, tmp_path: Path) -> None:
    """The lanes whose mailbox was let in, so that what was held for them goes on; after a bad check nothing."""
    config = write_config(sim, tmp_path)
    settings = load(config, {})
    status = {"listeners": [{"bind": one.bind} for one in settings.listeners]}
    with daemon(settings, {"status": status, "release": {}}) as asked:
        assert check("--config", str(config)).exit_code == 0
        assert ("release", {"lanes": [f"Microsoft 365/{MAILBOX}"]}) in asked
        asked.clear()
        write_config(sim, tmp_path, secret="abc~not-the-right-one", bind=settings.listeners[0].bind)
        assert check("--config", str(config)).exit_code == 1
        assert [do for do, _ in asked] == ["status"]


def test_on_a_terminal(sim: Simulator, tmp_path: Path) -> None:
    """The same lines, live, on a real pseudo-terminal."""
    config = write_config(sim, tmp_path)
    with conversation(tmp_path, "check", "--config", str(config)) as talk:
        talk.expect("Token for Exchange Online")
        talk.expect(f"Login to Exchange as ({MAILBOX})")
        assert talk.end() == 0


def test_a_file_that_may_not_be_read_is_reported_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In our own words, and to a script as a report: an administrator without `sudo` meets it first."""
    config = tmp_path / "config.yaml"
    config.write_text("upstreams: []\n")
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # as for another user's file; root may read all
    result = check("--config", str(config), "--json")
    assert result.exit_code == 2
    assert [one["id"] for one in json.loads(result.stdout)["steps"]] == ["configuration"]
