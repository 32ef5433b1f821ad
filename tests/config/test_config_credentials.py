"""Credentials in the configuration: the second one, a certificate that is rotated, a user's sign-in."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from relay.config.show import show
from relay.settings import Certificate, ClientSecret, Rotation, UserLogin
from tests.config.config_kit import SECRET, UPSTREAM, faults_of, load_text, only_fault, write

WITHOUT = UPSTREAM.replace("    client_secret: env:SECRET\n", "")
USER = WITHOUT + "    user_login: {file: user.json}\n"
NEXT = UPSTREAM + "    next_credential:\n"


def test_a_second_secret(tmp_path: Path) -> None:
    """Read like the first, shown like the first."""
    settings = load_text(
        tmp_path, NEXT + "      client_secret: env:COMING\n      client_secret_expires: 2030-11-01\n", {"COMING": "next~value"}
    )  # fmt: skip
    upstream = settings.upstreams[0]
    assert isinstance(upstream.next_credential, ClientSecret)
    assert upstream.next_credential.secret.reveal() == "next~value"
    assert upstream.next_secret_expires == datetime.date(2030, 11, 1)
    shown = show(settings)["upstreams"][0]
    assert shown["next_credential"] == {
        "client_secret": "env:COMING (set)", "client_secret_expires": "2030-11-01"
    }  # fmt: skip
    assert "next~value" not in repr(settings)


@pytest.mark.parametrize("name", ["RELAY_CLIENT_SECRET_NEXT", "RELAY_CLIENT_SECRET_NEXT_FILE"])
def test_a_second_secret_by_the_environment(tmp_path: Path, name: str) -> None:
    """Over what the file says of it; the first stays the file's."""
    value = str(write(tmp_path, "of-env~value\n", "next.txt")) if name.endswith("_FILE") else "of-env~value"
    text = NEXT + "      client_secret: env:SECRET\n      client_secret_expires: 2030-11-01\n"
    upstream = load_text(tmp_path, text, {name: value}).upstreams[0]
    assert isinstance(upstream.next_credential, ClientSecret)
    assert upstream.next_credential.secret.reveal() == "of-env~value"
    assert upstream.next_secret_expires is None
    assert isinstance(upstream.credential, ClientSecret) and upstream.credential.secret.reveal() == SECRET


def test_both_variables_are_a_fault(tmp_path: Path) -> None:
    environ = {"RELAY_CLIENT_SECRET_NEXT": "a", "RELAY_CLIENT_SECRET_NEXT_FILE": "b"}
    fault = only_fault(tmp_path, UPSTREAM, environ)
    assert (fault.path, "both set" in fault.problem) == ("upstreams[0].next_credential.client_secret", True)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (NEXT + "      client_secret_expires: 2030-11-01\n", "upstreams[0].next_credential", "names no credential"),
        (NEXT + "      client_secret: env:SECRET\n      certificate: {file: config.yaml}\n",
         "upstreams[0].next_credential", "more than one"),
        (WITHOUT + "    managed_identity: system\n    next_credential: {client_secret: env:SECRET}\n",
         "upstreams[0].next_credential", "goes with client_secret or certificate alone"),
        (NEXT + "      certificate: {file: gone.pfx}\n",
         "upstreams[0].next_credential.certificate.file", "cannot be read"),
        (NEXT + "      client_secret: env:NOT_SET\n",
         "upstreams[0].next_credential.client_secret", "NOT_SET is not set"),
        (UPSTREAM + "    user_login: {file: user.json}\n", "upstreams[0].user_login", "more than one credential"),
        (WITHOUT + "    user_login: {}\n", "upstreams[0].user_login.file", ""),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path: Path, text: str, path: str, words: str) -> None:
    """Each with its place and its words."""
    fault = faults_of(tmp_path, text)[0]
    assert (fault.path, words in fault.problem) == (path, True), fault


def test_the_same_secret_twice_is_doubtful(tmp_path: Path) -> None:
    (warning,) = load_text(tmp_path, NEXT + "      client_secret: env:SECRET\n").warnings
    assert "it cannot help" in warning


def test_a_certificate_that_is_rotated(tmp_path: Path) -> None:
    """Its keys, and how `relay config show` says them."""
    write(tmp_path, "x", "app.pem")
    keys = "file: app.pem, rotate: true, lifetime: 100d, remove_old: yes"
    guid = "0B1EC7ED-0000-4000-8000-00000000B1EC"
    settings = load_text(tmp_path, WITHOUT + f"    certificate: {{{keys}, object_id: {guid}}}\n")
    credential = settings.upstreams[0].credential
    assert isinstance(credential, Certificate)
    assert credential.rotation == Rotation(True, 100 * 86400.0, guid.lower(), True)
    assert show(settings)["upstreams"][0]["certificate"]["rotate"] is True


def test_a_users_sign_in(tmp_path: Path) -> None:
    """The mailbox is from_email's; the file may come later, with a word on how."""
    settings = load_text(tmp_path, USER)
    assert settings.upstreams[0].credential == UserLogin(
        tmp_path / "user.json", "notifications@contoso.com", None
    )
    (warning,) = settings.warnings
    assert "notifications@contoso.com has not signed in yet; run `relay login`" in warning
    write(tmp_path, "{}", "user.json")
    assert load_text(tmp_path, USER).warnings == ()
    keyed = WITHOUT + "    user_login: {file: user.json, key: env:SECRET}\n"
    settings = load_text(tmp_path, keyed)
    shown = show(settings)["upstreams"][0]["user_login"]
    assert shown == {"file": str(tmp_path / "user.json"), "key": "env:SECRET (set)"}


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ('{match: "*", from: scans@contoso.com}', "from"),
        ('{match: "*", from: keep}', "from"),
        ('{match: "*", login: scans@contoso.com}', "login"),
        ('{match: "*", login: [notifications@contoso.com, scans@contoso.com]}', "login"),
    ],
)
def test_a_user_sends_by_no_other_mailbox(tmp_path: Path, rule: str, key: str) -> None:
    """A rule that would need another one's mailbox is a fault, not mail that is held later."""
    fault = only_fault(tmp_path, f"{USER}senders:\n  - {rule}\n")
    assert fault.path == f"senders[0].{key}"
    assert "as notifications@contoso.com alone" in fault.problem
    assert "login: notifications@contoso.com" in fault.remedy


@pytest.mark.parametrize(
    "rule",
    [
        '{match: "*"}',
        '{match: "*", login: Notifications@contoso.com}',
        '{match: "*", from: scans@contoso.com, login: notifications@contoso.com}',
    ],
)
def test_rules_for_the_users_own_mailbox_are_fine(tmp_path: Path, rule: str) -> None:
    write(tmp_path, "{}", "user.json")
    assert load_text(tmp_path, f"{USER}senders:\n  - {rule}\n").warnings == ()
