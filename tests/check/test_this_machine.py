"""The steps about this machine: listeners, who may connect, certificates, secrets, spool, who is told."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relay.check.board import secrets_of
from relay.check.contract import CheckReport, Step
from relay.check.engine import run_check
from relay.check.interfaces import Interface, interfaces
from relay.check.listeners import listener_steps
from relay.check.local import invalid_step, secrets_step
from relay.check.running import Running
from relay.check.storage import spool_step
from relay.config.faults import ConfigError
from relay.config.load import load
from relay.settings import Certificate, Secret, Settings
from tests.check.kit import free_port

NONE = Running()
NOW = datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC)
LAN = Interface("eth0", "192.168.10.5", ipaddress.ip_network("192.168.10.0/24"))
PUBLIC = Interface("eth1", "8.8.4.4", ipaddress.ip_network("8.8.4.0/24"))
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b27sa"
BASE = """\
upstreams:
  - from_email: notifications@contoso.com
    server_name: Microsoft 365
    tenant_id: 7f1c0c5e-5a7b-4a6e-9d3f-2b8f6f1f0a01
    client_id: b7a0d3f2-91c4-4c55-8e0a-6c1b2d3e4f05
    client_secret: env:SECRET
spool: {url: "sqlite:///spool.db"}
"""


def settings(folder: Path, more: str = "", base: str = BASE) -> Settings:
    file = folder / "config.yaml"
    file.write_text(base + more)
    file.chmod(0o600)
    return load(file, {"SECRET": "s3cret-value"})


def listener(folder: Path, text: str, own: list[Interface], relay: Running = NONE) -> dict[str, Step]:
    """The steps about one listener, by kind."""
    found = settings(folder, f"listeners:\n  - {text}\n")
    steps = listener_steps(found.listeners, None, own, relay, NOW)
    return {one.id.partition(":")[0]: one for one in steps}


def test_a_free_port_and_one_that_is_taken(tmp_path: Path) -> None:
    """Tried by binding; the remedy names the line that shows who has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        steps = listener(tmp_path, f"bind: {bind}", [])
        assert steps["listener"].status == "fail"
        assert "ss -ltnp" in steps["listener"].remedy
        served = listener(tmp_path, f"bind: {bind}", [], Running((bind,)))
        assert served["listener"].status == "ok"
        hidden = listener(tmp_path, f"bind: {bind}", [], Running(hidden=True))["listener"]
        assert (hidden.status, "sudo -u relay relay check" in hidden.remedy) == ("warn", True)
    assert listener(tmp_path, f"bind: 127.0.0.1:{free_port()}", [])["listener"].status == "ok"
    stale = listener(tmp_path, f"bind: 127.0.0.1:{free_port()}", [], Running(("127.0.0.1:1",)))["listener"]
    assert (stale.status, "Reload" in stale.remedy) == ("warn", True)


def test_an_address_this_machine_does_not_have(tmp_path: Path) -> None:
    """Named as such."""
    step = listener(tmp_path, "{bind: '192.0.2.1:2525', allow: [192.0.2.0/24]}", [LAN])["listener"]
    assert step.status == "fail"
    assert "no such address" in step.remedy


@pytest.mark.parametrize(
    ("text", "own", "status", "words"),
    [
        ("bind: 127.0.0.1:0", [LAN], "ok", "this machine only"),
        ("{bind: '0.0.0.0:0', allow: [192.168.10.0/24]}", [LAN], "ok", "192.168.10.0/24"),
        ("{bind: '0.0.0.0:0', allow: [10.0.0.0/8]}", [LAN], "warn", "none of this machine's own networks"),
        ("{bind: '0.0.0.0:0', allow: [0.0.0.0/0]}", [LAN], "warn", "open relay"),
        ("{bind: '0.0.0.0:0', allow: [0.0.0.0/0]}", [LAN, PUBLIC], "fail", "8.8.4.4"),
        (
            "{bind: '0.0.0.0:0', auth: required, tls: {mode: none}, auth_in_clear: true}",
            [LAN],
            "warn",
            "readable",
        ),
        (
            "{bind: '0.0.0.0:0', allow: [10.0.0.0/8], proxy_protocol_from: ['0.0.0.0/0']}",
            [LAN],
            "warn",
            "any address",
        ),
    ],
)
def test_who_may_connect(tmp_path: Path, text: str, own: list[Interface], status: str, words: str) -> None:
    """Networks against this machine's own, open relays, passwords in clear."""
    step = listener(tmp_path, text, own)["listener-networks"]
    assert (step.status, words in step.seen) == (status, True), step.seen
    assert bool(step.remedy) == (status != "ok")


def certificate(folder: Path, days: int) -> None:
    """cert.pem and key.pem for mail.contoso.com, which end so many days from NOW."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.contoso.com")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(NOW - datetime.timedelta(days=400))
        .not_valid_after(NOW + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "key.pem").chmod(0o600)


@pytest.mark.parametrize(("days", "status"), [(200, "ok"), (10, "warn"), (-3, "fail")])
def test_a_listeners_certificate(tmp_path: Path, days: int, status: str) -> None:
    """Valid, about to end, ended."""
    certificate(tmp_path, days)
    text = "{bind: '127.0.0.1:0', tls: {mode: starttls, certificate: cert.pem, key: key.pem}}"
    step = listener(tmp_path, text, [])["listener-tls"]
    assert step.status == status
    assert "mail.contoso.com" in step.seen


def test_a_certificate_that_went_after_the_start(tmp_path: Path) -> None:
    """The check reads the files as they are now."""
    certificate(tmp_path, 100)
    text = (
        "listeners:\n  - {bind: '127.0.0.1:0', tls: {mode: starttls, certificate: cert.pem, key: key.pem}}\n"
    )
    found = settings(tmp_path, text)
    (tmp_path / "key.pem").write_text("nothing")
    steps = listener_steps(found.listeners, None, [], NONE, NOW)
    assert [one.status for one in steps if one.id.startswith("listener-tls")] == ["fail"]


def test_own_interfaces_are_found() -> None:
    """Whatever this machine has: addresses within their networks, no loopback."""
    for one in interfaces():
        assert ipaddress.ip_address(one.address) in one.network
        assert not one.network.is_loopback


def test_a_secret_in_the_file_and_files_others_may_read(tmp_path: Path) -> None:
    """Both are told with the configuration's own words; the secret itself is not."""
    found = settings(tmp_path, base=BASE.replace("env:SECRET", "s3cret~plain"))
    step = secrets_step(found)
    assert (step.status, "written plainly" in step.seen, "s3cret" in step.seen) == ("warn", True, False)
    (tmp_path / "secret").write_text("s3cret~plain")
    (tmp_path / "secret").chmod(0o644)
    step = secrets_step(settings(tmp_path, base=BASE.replace("env:SECRET", "file:secret")))
    assert (step.status, "mode 0644" in step.seen) == ("warn", True)
    (tmp_path / "secret").chmod(0o600)
    assert secrets_step(settings(tmp_path, base=BASE.replace("env:SECRET", "file:secret"))).status == "ok"


def test_secrets_are_found_wherever_a_credential_keeps_them(tmp_path: Path) -> None:
    """A certificate's passphrase and a proxy's password as well as a client secret."""
    upstream = settings(tmp_path).upstreams[0]
    locked = dataclasses.replace(
        upstream,
        credential=Certificate(tmp_path / "app.pfx", Secret("passphrase")),
        proxy="http://u:pr0xypass@h:1",
    )
    found = {one.reveal() for one in secrets_of([upstream, locked])}
    assert found == {"s3cret-value", "passphrase", "u:pr0xypass", "pr0xypass"}


def test_an_invalid_configuration_is_one_step(tmp_path: Path) -> None:
    """Every fault in it."""
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, "log: {level: loud}\nweb: {bind: nowhere}\n")
    step = invalid_step(caught.value)
    assert (step.id, step.status) == ("configuration", "fail")
    assert "log.level" in step.seen and "web.bind" in step.seen


async def test_the_spools_place(tmp_path: Path) -> None:
    """Writable and with room; what is in the way is named, and nothing is left behind."""
    found = settings(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert (await spool_step(found.spool)).status == "ok"
    assert sorted(os.listdir(tmp_path)) == before
    (tmp_path / "taken").write_text("a file where a folder should be")
    found = settings(tmp_path, base=BASE.replace("spool.db", "taken/spool.db"))
    step = await spool_step(found.spool)
    assert (step.status, str(tmp_path / "taken") in step.seen) == ("fail", True)
    assert "sudo -u relay relay check" in step.remedy


async def test_the_local_spools_place(tmp_path: Path) -> None:
    """Its folder must be there for the day on which the database is not; and the database must answer today."""
    (tmp_path / "taken").write_text("a file where a folder should be")
    away = dataclasses.replace(settings(tmp_path).spool, url=f"postgresql://relay@/relay?host={tmp_path}")
    step = await spool_step(dataclasses.replace(away, local=f"sqlite:///{tmp_path}/taken/local.db"))
    assert (step.status, str(tmp_path / "taken") in step.seen) == ("fail", True)
    assert "Or set `spool.local`" in step.remedy
    step = await spool_step(dataclasses.replace(away, local=f"sqlite:///{tmp_path}/local.db"))
    assert step.status == "fail"
    assert "database of the spool cannot be used" in step.seen


@pytest.mark.parametrize(("megabytes", "status"), [(50, "fail"), (500, "warn"), (5000, "ok")])
async def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int, status: str) -> None:
    """What the disk still takes."""
    usage: Any = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=megabytes * 2**20))
    assert (await spool_step(settings(tmp_path).spool)).status == status


async def test_secrets_of_every_kind_stay_inside(tmp_path: Path) -> None:
    """Client secret, proxy login, hashes, webhook: whatever a step quotes, they are not in it."""
    more = (
        f"listeners: [{{bind: '127.0.0.1:{free_port()}'}}]\n"
        f"clients: [{{username: a, password: '{HASH}', may_send_as: ['*']}}]\n"
        "alerts: {webhook: 'https://hooks.example/T0/secret-part'}\n"
    )
    base = BASE.replace(
        "client_secret: env:SECRET",
        "client_secret: env:SECRET\n    proxy: http://joe:pr0xypass@127.0.0.1:9\n    timeout: 2",
    )
    report: CheckReport = await run_check(settings(tmp_path, more, base))
    shown = str(report.to_json())
    assert not report.ok
    for secret in ("s3cret-value", "pr0xypass", HASH, "secret-part"):
        assert secret not in shown
    assert "through the proxy 127.0.0.1:9" in shown
