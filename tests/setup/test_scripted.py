"""The set-up by options alone: what is written, what is refused, and that nothing is overwritten unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli.app import build_app
from relay.config.load import load
from relay.simulator.app import Simulator
from tests.check.kit import free_port
from tests.setup.kit import running_simulator, told_by

TENANT = "7f1c0c5e-5a7b-4a6e-9d3f-2b8f6f1f0a01"
CLIENT = "b7a0d3f2-91c4-4c55-8e0a-6c1b2d3e4f05"
SECRET = "x8Q~very-secret-value"
IDS = ("--tenant-id", TENANT, "--client-id", CLIENT, "--from-email", "notifications@contoso.com")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and no RELAY_ variables of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def setup(*words: str, secret: str | None = SECRET, yes: bool = True) -> Result:
    """`relay setup --config config.yaml WORDS...`, nothing asked."""
    more = [*(["--yes"] if yes else []), *(["--client-secret-stdin"] if secret is not None else [])]
    words = ("setup", "--config", "config.yaml", *more, *words)
    return CliRunner().invoke(build_app("setup"), words, input=secret)


def test_the_least_that_is_needed(place: Path) -> None:
    """A file that loads, the secret in a file of its own, listening for this machine alone."""
    result = setup(*IDS, "--no-check")
    assert result.exit_code == 0, result.output
    settings = load(place / "config.yaml", {})
    upstream = settings.upstreams[0]
    assert (upstream.name, upstream.tenant_id, upstream.client_id) == ("Microsoft 365", TENANT, CLIENT)
    assert (upstream.port, upstream.timeout, upstream.batch_size, upstream.transport) == (
        587,
        120,
        30,
        "auto",
    )
    assert [one.bind for one in settings.listeners] == ["127.0.0.1:25"]
    assert settings.warnings == ()
    assert SECRET not in (place / "config.yaml").read_text() + result.output
    assert (place / "client-secret").read_text() == SECRET + "\n"
    assert {(place / one).stat().st_mode & 0o777 for one in ("config.yaml", "client-secret")} == {0o600}
    assert "server localhost, port 25, credentials: none" in result.stdout


def test_a_network_of_printers(place: Path) -> None:
    """Networks as given; the end says what goes into the printer."""
    words = ("--clients", "lan", "--listen", "0.0.0.0:2525", "--allow", "192.168.10.0/24,10.1.0.0/16")
    result = setup(*IDS, *words, "--no-check", "--transport", "graph", "--postmaster", "it@contoso.com")
    assert result.exit_code == 0, result.output
    settings = load(place / "config.yaml", {})
    assert [str(one) for one in settings.listeners[0].allow] == ["192.168.10.0/24", "10.1.0.0/16"]
    assert (settings.upstreams[0].transport, settings.postmaster) == ("graph", "it@contoso.com")
    assert "On the printer or scanner: server" in result.stdout
    assert "port 2525" in result.stdout


def test_the_page_is_switched_on_when_asked_for(place: Path) -> None:
    """With a word on how its password is set; without the option a script gets no page."""
    result = setup(*IDS, "--no-check", "--web", "127.0.0.1:8026")
    assert result.exit_code == 0, result.output
    web = load(place / "config.yaml", {}).web
    assert web is not None and web.bind == "127.0.0.1:8026"
    assert "Admin page: http://127.0.0.1:8026/\n  relay run writes a link into its log" in result.stdout


def test_containers_get_their_own_networks(place: Path) -> None:
    """Never everybody."""
    result = setup(*IDS, "--clients", "containers", "--no-check")
    assert result.exit_code == 0, result.output
    listener = load(place / "config.yaml", {}).listeners[0]
    assert listener.port == 2525
    assert all(network.is_private for network in listener.allow)


@pytest.mark.parametrize(
    ("words", "secret", "says"),
    [
        (("--client-id", CLIENT), SECRET, "--tenant-id, --from-email"),
        (IDS, None, "--client-secret-file"),
        ((*IDS, "--tenant-id", CLIENT), SECRET, "the same as the tenant id"),
        ((*IDS, "--client-id", "12"), SECRET, "GUID"),
        ((*IDS, "--tenant-id", "common"), SECRET, "common"),
        ((*IDS, "--from-email", "nobody"), SECRET, "--from-email"),
        (IDS, TENANT, "this is the Secret ID"),
        (IDS, "  \n", "nothing was entered"),
        (IDS, "two words here", "no blanks"),
        (IDS, "Bearer eyJ0eXAi.abc", "no blanks"),
        (IDS, '"abc~a-secret-in-quotes"', "quotes"),
        ((*IDS, "--web", "8025x"), SECRET, "--web"),
        ((*IDS, "--clients", "everybody"), SECRET, "host, lan, containers"),
        ((*IDS, "--allow", "10.0.0.0/99"), SECRET, "network"),
        ((*IDS, "--listen", "nowhere"), SECRET, "--listen"),
        ((*IDS, "--client-secret-file", "x"), SECRET, "not both"),
        ((*IDS, "--transport", "pigeon"), SECRET, "pigeon"),
        ((*IDS, "--simulator", "absent.json"), SECRET, "relay simulator"),
    ],
)
def test_what_cannot_be_right_is_refused(
    place: Path, words: tuple[str, ...], secret: str | None, says: str
) -> None:
    """Exit 2 (1 for a simulator that is not there), a word about it, and nothing written."""
    result = setup(*words, "--no-check", secret=secret)
    assert result.exit_code == (1 if "--simulator" in words else 2), result.output
    assert says in result.output
    assert os.listdir(place) == []


def test_an_open_relay_is_not_written(place: Path) -> None:
    """The whole configuration is validated first; a secret that was already there stays."""
    (place / "client-secret").write_text("before\n")
    result = setup(
        *IDS, "--listen", "0.0.0.0:2525", "--clients", "host", "--no-check", "--allow", "not-used.example"
    )
    assert result.exit_code == 2
    bad = setup(*IDS, "--listen", "127.0.0.1:2525", "--listen", "127.0.0.1:2525", "--no-check")
    assert bad.exit_code == 2
    assert "already" in bad.output
    assert (place / "client-secret").read_text() == "before\n"
    assert os.listdir(place) == ["client-secret"]


HAND_MADE = f"""\
# our relay, by hand
upstreams:
- server_name: 'Contoso'   # as in Signify
  from_email: old@contoso.com
  tenant_id: {TENANT}
  client_id: {CLIENT}
  client_secret: file:our-secret # rotate in spring
  proxy: http://proxy.contoso.com:3128
listeners:
    - bind: 192.168.1.9:2500
      allow: [192.168.1.0/24]
"""


def test_a_file_made_by_hand_is_changed_not_replaced(place: Path) -> None:
    """Not without --force; then only what was asked for, and the rest letter by letter: mail stays in its spool, too."""
    config = place / "config.yaml"
    config.write_text(HAND_MADE)
    config.chmod(0o640)
    (place / "our-secret").write_text("old-secret-value")
    (place / "our-secret").chmod(0o600)
    refused = setup("--from-email", "new@contoso.com", "--no-check", secret=None)
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    assert config.read_text() == HAND_MADE
    result = setup("--from-email", "new@contoso.com", "--no-check", "--force")
    assert result.exit_code == 0, result.output
    expected = HAND_MADE.replace("old@contoso.com", "new@contoso.com")
    assert config.read_text() == expected
    assert config.stat().st_mode & 0o777 == 0o640
    assert (place / "our-secret").read_text() == SECRET + "\n"
    assert (place / "config.yaml.bak").read_text() == HAND_MADE


def test_without_a_terminal_and_without_yes_nothing_happens(place: Path) -> None:
    """A script that forgot --yes hears of it."""
    result = setup(*IDS, yes=False)
    assert (result.exit_code, "--yes" in result.output) == (2, True)
    assert os.listdir(place) == []


@pytest.fixture
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with running_simulator(tmp_path_factory.mktemp("tenant")) as sim:
        yield sim


def test_a_rehearsal_from_setup_to_a_delivered_message(place: Path, sim: Simulator) -> None:
    """What README shows a newcomer: set up against the simulator, check, and a message that arrives."""
    told = told_by(sim, place)
    result = setup("--simulator", str(told), "--listen", f"127.0.0.1:{free_port()}", secret=None)
    assert result.exit_code == 0, result.output
    assert "Login to Exchange as (notifications@contoso.com): Exchange took the login" in result.stdout
    assert sim.state.client_secret not in result.output
    words = ["check", "--config", "config.yaml", "--send-to", "you@contoso.com"]
    checked = CliRunner().invoke(build_app("check"), words)
    assert checked.exit_code == 0, checked.output
    assert [one.recipients for one in sim.messages] == [["you@contoso.com"]]


def test_a_failed_check_is_exit_1_and_the_file_is_there(place: Path, sim: Simulator) -> None:
    """What is wrong at Microsoft's side may be mended later."""
    told = told_by(sim, place)
    words = ("--simulator", str(told), "--listen", f"127.0.0.1:{free_port()}")
    result = setup(*words, secret="abc~the-wrong-one")
    assert result.exit_code == 1
    assert "copy its Value" in result.stdout
    assert load(place / "config.yaml", {}).upstreams[0].client_id == sim.state.client_id
