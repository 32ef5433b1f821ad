"""A mailbox user's sign-in: by code, kept encrypted, renewed at each use, and ended with a word on what to do."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import pytest

from relay.errors import TokenError
from relay.settings import ClientSecret, Secret, Upstream, UserLogin
from relay.tokens import claims, vault
from relay.tokens.away import away
from relay.tokens.contract import Resource
from relay.tokens.entra import EntraTokens
from relay.tokens.signin import Prompt, SignedIn, sign_in
from tests.tokens.fake_entra_server import CLIENT, TENANT, FakeClock, make_upstream
from tests.tokens.fake_registration import USER, FakeRegistration

TOKEN = "refresh-of-old"


class Desk:
    """One upstream with ``user_login``, and what the user is shown."""

    def __init__(self, fake: FakeRegistration, folder: Path, clock: FakeClock) -> None:
        self.fake = fake
        self.login = UserLogin(folder / "user.json", USER, None)
        self.clock = clock
        self.transport = "auto"
        self.shown: list[Prompt] = []

    @property
    def upstream(self) -> Upstream:
        return make_upstream(
            self.fake.authority, self.fake.ca_file, credential=self.login, transport=self.transport
        )

    async def sign_in(self, expect: str | None = None) -> SignedIn:
        upstream = self.upstream
        return await away(lambda: sign_in(upstream, self.clock, self.shown.append, expect=expect), "test")

    def keep(self, token: str = TOKEN, **changes: object) -> None:
        """A sign-in from before."""
        now = self.clock.now()
        kept = vault.SignIn(USER, TENANT, CLIENT, now, now, token)
        vault.write(self.login, dataclasses.replace(kept, **changes))  # type: ignore[arg-type]
        self.fake.refresh_token = token

    def tokens(self) -> EntraTokens:
        return EntraTokens(self.upstream, clock=self.clock)

    async def refused(self) -> TokenError:
        tokens = self.tokens()
        with pytest.raises(TokenError) as caught:
            await tokens.token(Resource.SMTP)
        await tokens.close()
        return caught.value


@pytest.fixture
def desk(registration: FakeRegistration, tmp_path: Path, clock: FakeClock) -> Desk:
    return Desk(registration, tmp_path, clock)


async def test_a_user_signs_in_once_and_tokens_follow(desk: Desk) -> None:
    """The code is shown, the refresh token kept, and both services get tokens from it without the user."""
    desk.fake.waiting = 0
    done = await desk.sign_in()
    assert desk.shown == [Prompt("https://microsoft.com/devicelogin", "ABC123", 900)]
    assert done.granted == (Resource.SMTP, Resource.GRAPH)
    assert done.sign_in.user == USER
    scopes = [form["scope"].split() for form in desk.fake.requests if "scope" in form]
    assert any("https://outlook.office.com/SMTP.Send" in one and "offline_access" in one for one in scopes)
    tokens = desk.tokens()
    token = await tokens.token(Resource.SMTP)
    await tokens.close()
    assert token.scopes == ("SMTP.Send",)
    (finding,) = claims.judge(token, desk.upstream)
    assert (finding.slug, finding.level) == ("scope-present", "ok")
    assert claims.may_send(token)


async def test_the_user_is_waited_for(desk: Desk) -> None:
    desk.transport = "smtp"
    assert desk.fake.waiting == 1
    assert (await desk.sign_in()).granted == (Resource.SMTP,)
    assert desk.fake.waiting == 0


async def test_what_is_kept_is_encrypted_and_private(desk: Desk) -> None:
    """No token in clear on disk; only the owner may read file and key; what status needs is readable."""
    desk.keep()
    for file in (desk.login.file, vault.key_file(desk.login)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert TOKEN not in file.read_text()
    assert TOKEN not in repr(vault.read(desk.login))
    assert vault.read(desk.login).refresh_token == TOKEN
    known = vault.peek(desk.login)
    assert known is not None
    assert (known.user, known.refresh_token) == (USER, "")
    assert known.lapses == known.used + 90 * 86400


async def test_a_key_given_elsewhere_leaves_none_on_disk(desk: Desk) -> None:
    """And without it the file is of no use."""
    desk.login = dataclasses.replace(desk.login, key=Secret("correct horse", "credential:key"))
    desk.keep()
    assert not vault.key_file(desk.login).exists()
    assert vault.read(desk.login).refresh_token == TOKEN
    desk.login = dataclasses.replace(desk.login, key=Secret("wrong horse"))
    error = await desk.refused()
    assert (error.code, error.temporary) == ("user-login-unreadable", False)
    assert "horse" not in f"{error} {error.remedy} {error.evidence}"


async def test_each_refresh_token_is_on_disk_before_its_access_token_is_used(desk: Desk) -> None:
    """The fake takes each one once, as a strict server would; two resources and a restart go on from the newest."""
    desk.keep()
    desk.clock.advance(5 * 86400)
    tokens = desk.tokens()
    await tokens.token(Resource.SMTP)
    assert vault.read(desk.login).refresh_token == desk.fake.refresh_token != TOKEN
    await tokens.token(Resource.GRAPH)
    await tokens.close()
    again = desk.tokens()
    assert (await again.token(Resource.SMTP)).value
    await again.close()
    assert vault.read(desk.login).used == desk.clock.now()


@pytest.mark.parametrize(
    ("code", "error", "slug"),
    [
        (700082, "invalid_grant", "user-login-lapsed"),
        (50173, "invalid_grant", "user-login-lapsed"),
        (70008, "invalid_grant", "user-login-lapsed"),
        (123456, "invalid_grant", "user-login-lapsed"),
        (50076, "interaction_required", "user-login-again"),
        (50057, "invalid_grant", "user-login-again"),
        (65001, "invalid_grant", "consent-missing"),
        (7000218, "invalid_client", "public-client-off"),
    ],
)
async def test_a_sign_in_that_ended_is_held_with_its_remedy(
    desk: Desk, code: int, error: str, slug: str
) -> None:
    """Waiting does not help; `relay login` does. What is kept stays as it is."""
    desk.keep()
    desk.fake.revoked = (code, error)
    found = await desk.refused()
    assert (found.code, found.temporary) == (slug, False)
    assert "run `relay login` again" in found.remedy.replace("Run", "run")
    assert f"AADSTS{code}" in found.evidence
    assert vault.read(desk.login).refresh_token == TOKEN


async def test_nobody_signed_in_yet(desk: Desk) -> None:
    error = await desk.refused()
    assert (error.code, error.temporary) == ("user-login-missing", False)
    assert "relay login" in error.remedy


async def test_a_sign_in_of_another_application_is_not_used(desk: Desk) -> None:
    desk.keep(client_id="99999999-7777-8888-9999-aaaaaaaaaaaa")
    assert (await desk.refused()).code == "user-login-other"
    assert desk.fake.requests == []


async def test_somebody_else_signing_in_keeps_what_there_was(desk: Desk) -> None:
    """A colleague's mailbox must not be used by mistake; another name of the same user is said with expect."""
    desk.keep()
    desk.fake.user, desk.fake.waiting = "boss@contoso.com", 0
    with pytest.raises(TokenError) as caught:
        await desk.sign_in()
    assert caught.value.code == "user-login-other-user"
    assert "boss@contoso.com" in caught.value.evidence
    assert vault.read(desk.login).refresh_token == TOKEN
    assert (await desk.sign_in("Boss@contoso.com")).sign_in.user == "boss@contoso.com"


@pytest.mark.parametrize(
    ("code", "error", "slug"),
    [
        (7000218, "invalid_client", "public-client-off"),
        (70019, "expired_token", "device-code-expired"),
        (65004, "authorization_declined", "user-declined"),
    ],
)
async def test_a_refused_code_says_what_to_do(desk: Desk, code: int, error: str, slug: str) -> None:
    desk.fake.revoked = (code, error)
    with pytest.raises(TokenError) as caught:
        await desk.sign_in()
    assert caught.value.code == slug
    assert not desk.login.file.exists()


async def test_a_missing_consent_for_one_service_is_told(desk: Desk) -> None:
    """Signed in all the same: the other transport works."""
    desk.fake.scopes, desk.fake.waiting = {"SMTP.Send"}, 0
    done = await desk.sign_in()
    assert done.granted == (Resource.SMTP,)
    ((resource, error),) = done.refused
    assert (resource, error.code) == (Resource.GRAPH, "consent-missing")


async def test_a_folder_that_cannot_be_written_is_found_before_anybody_is_asked(
    desk: Desk, tmp_path: Path
) -> None:
    desk.login = UserLogin(tmp_path / "no-such-folder" / "user.json", USER, None)
    with pytest.raises(TokenError) as caught:
        await desk.sign_in()
    assert caught.value.code == "user-login-unwritable"
    assert desk.shown == []


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"version": 1}), json.dumps({"version": 9})])
async def test_a_damaged_file_is_named(desk: Desk, text: str) -> None:
    desk.login.file.write_text(text)
    error = await desk.refused()
    assert error.code == "user-login-unreadable"
    assert str(desk.login.file) in error.evidence


def test_an_applications_token_is_not_a_users(desk: Desk) -> None:
    """And a user's token is wrong where an application signs in."""
    from relay.tokens.contract import Token

    users = Token(
        "x", Resource.SMTP, 0.0, (), {"aud": "https://outlook.office.com", "scp": "SMTP.Send"}, ("SMTP.Send",)
    )
    apps = Token("x", Resource.SMTP, 0.0, ("SMTP.SendAsApp",), {"aud": "https://outlook.office365.com"})
    assert [one.slug for one in claims.judge(apps, desk.upstream)] == ["not-delegated"]
    secret = dataclasses.replace(desk.upstream, credential=ClientSecret(Secret("x")))
    assert [one.level for one in claims.judge(users, secret)] == ["fail"]
    without = dataclasses.replace(users, scopes=("User.Read",))
    assert [one.slug for one in claims.judge(without, desk.upstream)] == ["scope-absent"]
