"""`relay certificate` and `relay login`: what an administrator types, sees, and is told to click."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.cli.kit import Bench, daemon
from tests.tokens.fake_entra_server import CLIENT, TENANT, make_identity
from tests.tokens.fake_registration import OBJECT_ID, USER, FakeRegistration

CONFIG = """\
upstreams:
  - from_email: {user}
    tenant_id: {tenant}
    client_id: {client}
    authority: {authority}
    graph_url: {authority}
    ca_file: ca.pem
    {credential}
spool: {{url: "sqlite:///{folder}/spool.db"}}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRegistration]:
    """The fake in a thread of its own: the commands block."""
    loop = asyncio.new_event_loop()
    one = FakeRegistration(tmp_path, make_identity("Test Root", ca=True))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(one.start(), loop).result(20)
    yield one
    asyncio.run_coroutine_threadsafe(one.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def configure(bench: Bench, fake: FakeRegistration, credential: str) -> None:
    text = CONFIG.format(
        user=USER, tenant=TENANT, client=CLIENT, authority=fake.authority, credential=credential,
        folder=bench.directory,
    )  # fmt: skip
    bench.config.write_text(text)


def test_a_new_certificate_and_where_to_upload_it(bench: Bench) -> None:
    """The key stays in a private file; the public part lies beside it; the clicks and the snippet are shown."""
    file = bench.directory / "app.pem"
    result = bench.run(
        "certificate", "new", str(file), "--days", "90", "--name", "relay on mx1", config=False
    )
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    public = bench.directory / "app.pem.cer"
    leaf = x509.load_pem_x509_certificate(public.read_bytes())
    assert b"PRIVATE" not in public.read_bytes()
    assert leaf.subject.rfc4514_string() == "CN=relay on mx1"
    assert "Certificates & secrets > Certificates > Upload certificate" in result.output
    assert str(public) in result.output and f"file: {file}" in result.output
    shown = bench.json_plain("certificate", "show", str(file), "--json")
    assert f"SHA-1:         {shown[0]['sha1']}" in result.output
    assert (shown[0]["days_left"], shown[0]["mode"]) == (90, "0600")
    again = bench.run("certificate", "new", str(file), config=False)
    assert (again.exit_code, "exists already" in again.output) == (2, True)
    assert leaf == x509.load_pem_x509_certificate(file.read_bytes())


def test_rotating_by_hand(bench: Bench, fake: FakeRegistration) -> None:
    """From `new` to a second certificate that has logged in; `show` and `status` know it."""
    file = bench.directory / "app.pem"
    assert bench.run("certificate", "new", str(file), config=False).exit_code == 0
    fake.register(x509.load_pem_x509_certificate((bench.directory / "app.pem.cer").read_bytes()))
    configure(bench, fake, f"certificate: {{file: app.pem, object_id: {OBJECT_ID}, lifetime: 730d}}")
    (before,) = bench.json("certificate", "show")
    assert (before["upstream"], before["rotate"], before["next"]) == ("Microsoft 365", False, None)
    done = bench.json("certificate", "rotate")
    assert done["old"]["sha1"] == before["sha1"] != done["new"]["sha1"]
    assert done["new"]["days_left"] == 730
    (after,) = bench.json("certificate", "show")
    assert after["sha1"] == done["new"]["sha1"]
    (row,) = bench.json("status")["credentials"]
    assert (row["kind"], row["days_left"], row["about"]) == ("certificate", 730, f"SHA-1 {after['sha1']}")
    told = bench.run("status").output
    assert "days left" in told and "730" in told


def test_rotating_without_the_object_id(bench: Bench, fake: FakeRegistration) -> None:
    """Exit status 1, the reason and the remedy."""
    file = bench.directory / "app.pem"
    bench.run("certificate", "new", str(file), config=False)
    fake.register(x509.load_pem_x509_certificate((bench.directory / "app.pem.cer").read_bytes()))
    fake.roles = ["Mail.Send"]
    configure(bench, fake, "certificate: {file: app.pem}")
    result = bench.run("certificate", "rotate")
    assert result.exit_code == 1
    assert "Object ID of the app registration is not known" in result.output
    assert "Set `certificate: object_id`" in result.output


def test_commands_say_when_there_is_nothing_for_them(bench: Bench) -> None:
    for words in (("certificate", "rotate"), ("certificate", "show"), ("login",)):
        result = bench.run(*words)
        assert result.exit_code == 2, words
        assert "no upstream with" in result.output


def test_a_user_signs_in(bench: Bench, fake: FakeRegistration) -> None:
    """The code, the account, the file; a running daemon is told; status shows whose sign-in it is."""
    fake.waiting = 0
    configure(bench, fake, "user_login: {file: user.json}")
    from relay.config.load import load

    with daemon(load(bench.config, {}), {"reload": {}}) as asked:
        result = bench.run("login")
    assert result.exit_code == 0, result.output
    assert "https://microsoft.com/devicelogin" in result.output and "ABC123" in result.output
    assert f"Signed in as {USER}: smtp, graph may be used." in result.output
    assert "The running relay uses it from now on." in result.output
    assert [do for do, _ in asked] == ["reload"]
    assert fake.refresh_token not in result.output + (bench.directory / "user.json").read_text()
    (row,) = bench.json("status")["credentials"]
    assert (row["kind"], row["about"], row["days_left"]) == ("user_login", USER, 90)


def test_a_user_who_declines(bench: Bench, fake: FakeRegistration) -> None:
    fake.waiting, fake.revoked = 0, None
    configure(bench, fake, "user_login: {file: user.json}")
    fake.user = "boss@contoso.com"
    result = bench.run("login")
    assert (result.exit_code, "nothing was kept" in result.output) == (1, True)
    assert "--user" in result.output
    assert not (bench.directory / "user.json").exists()
    shown = json.loads(bench.run("login", "--user", "boss@contoso.com", "--json").stdout)
    assert (shown["user"], shown["granted"], shown["running"]) == (
        "boss@contoso.com",
        ["smtp", "graph"],
        False,
    )
