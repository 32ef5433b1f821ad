"""The assistant on a real pseudo-terminal: questions, refusals at once, and nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path

from relay.config.load import load
from tests.check.kit import free_port
from tests.setup.kit import Conversation, conversation, running_simulator


def answer_about_the_registration(talk: Conversation, env: dict[str, str]) -> None:
    """Tenant, application and secret: each wrong first."""
    talk.expect("Step 6")
    talk.expect("Directory (tenant) ID:")
    talk.answer("not-an-id")
    talk.expect("Not accepted")
    talk.answer(env["RELAY_CLIENT_ID"])
    talk.expect("Microsoft knows no tenant with this id")
    talk.answer("  " + env["RELAY_TENANT_ID"] + " ")
    talk.expect("Application (client) ID:")
    talk.answer(env["RELAY_TENANT_ID"])
    talk.expect("this is the tenant id again")
    talk.answer(env["RELAY_CLIENT_ID"])
    talk.expect("Certificates & secrets")
    talk.expect("Client secret: its Value: ")  # the last blank comes when nothing is shown any more
    talk.answer("0b5c9a4e-1111-4222-8333-444455556666")
    talk.expect("this is the Secret ID, not its Value")
    talk.expect("Client secret: its Value: ")
    talk.answer(env["RELAY_CLIENT_SECRET"])
    talk.expect("The day it expires")
    talk.answer("2030-01-31")


def answer_about_this_side(talk: Conversation, env: dict[str, str], port: int) -> None:
    """Mailbox, clients, listener and admin page, up to the word that writes it all."""
    talk.expect("From Email")
    talk.answer("nobody")
    talk.expect("Not accepted")
    talk.answer(env["RELAY_FROM_EMAIL"])
    talk.expect("Server Name")
    talk.answer("")
    talk.expect("Postmaster")
    talk.answer("it@contoso.com")
    talk.expect("host, lan or containers")
    talk.answer("host")
    talk.expect("Address and port to listen on")
    talk.answer(f"127.0.0.1:{port}")
    talk.expect("Test it now?")
    talk.answer("y")
    talk.expect("is free")
    talk.expect("Switch on the admin page")
    talk.answer("")
    talk.expect("Write")
    talk.answer("y")


def test_the_whole_dialogue(tmp_path: Path) -> None:
    """Every kind of wrong answer is refused on the spot; the end is a configuration that passes its own check."""
    home = tmp_path / "home"
    home.mkdir()
    port = free_port()
    with running_simulator(tmp_path) as sim:
        env = sim.environment()
        config = home / "config.yaml"
        config.write_text(
            f"# mine\nupstreams:\n  - host: {env['RELAY_HOST']}\n    port: {env['RELAY_PORT']}\n"
            f"    authority: {env['RELAY_AUTHORITY']}\n    graph_url: {env['RELAY_GRAPH_URL']}\n"
            f"    ca_file: {env['RELAY_CA_FILE']}  # ours\n"
            f"spool: {{url: sqlite:///spool.db}}\n"
        )
        config.chmod(0o600)
        with conversation(home, "setup") as talk:
            answer_about_the_registration(talk, env)
            answer_about_this_side(talk, env, port)
            talk.expect("Login to Exchange as (notifications@contoso.com)")
            talk.expect(f"server localhost, port {port}, credentials: none")
            talk.expect("Admin page: http://127.0.0.1:8025/")
            assert talk.end() == 0
    assert env["RELAY_CLIENT_SECRET"] not in talk.shown
    settings = load(config, {})
    assert settings.upstreams[0].from_email == env["RELAY_FROM_EMAIL"]
    assert str(settings.upstreams[0].client_secret_expires) == "2030-01-31"
    assert settings.web is not None and settings.web.bind == "127.0.0.1:8025"
    assert config.read_text().startswith("# mine\n")
    assert "# ours" in config.read_text()
    assert (home / "client-secret").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """In the middle of the questions: a word, exit 1, and no file."""
    with conversation(
        tmp_path, "setup", "--no-check", "--config", str(tmp_path / "new" / "config.yaml")
    ) as talk:
        talk.expect("Before you start")
        talk.expect("Directory (tenant) ID:")
        talk.press(b"\x03")
        talk.expect("nothing was written")
        assert talk.end() == 1
    assert os.listdir(tmp_path) == []
