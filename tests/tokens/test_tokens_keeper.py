"""What the daemon does for the credentials by itself: rotation in time, ends read from Graph, a sign-in kept in use."""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.keeper import PAUSE, PENDING_PAUSE, Keeper
from relay.settings import Certificate, Rotation, Settings, Upstream, UserLogin
from relay.spool.contract import Spool
from relay.tokens import keypair, vault
from relay.tokens.contract import Resource
from relay.tokens.credentials import load_certificate
from relay.tokens.entra import EntraTokens
from tests.fakes.settings import settings as make_settings
from tests.fakes.spool import opened
from tests.tokens.fake_entra_server import CLIENT, SECRET, TENANT, FakeClock, make_upstream
from tests.tokens.fake_registration import OBJECT_ID, USER, FakeRegistration

DAY = 86400.0
END = "2031-05-04T10:00:00Z"
ENDS = datetime.datetime(2031, 5, 4, 10, tzinfo=datetime.UTC).timestamp()
Logged = list[tuple[str, dict[str, object]]]


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with opened(tmp_path) as spool:
        yield spool


class Host:
    """A keeper with the tokens it looks after."""

    def __init__(self, folder: Path, spool: Spool, fake: FakeRegistration) -> None:
        self.folder, self.spool, self.fake = folder, spool, fake
        self.clock: FakeClock | SystemClock = FakeClock()

    def start(self, **changes: object) -> Keeper:
        fake = self.fake
        upstream = make_upstream(fake.authority, fake.ca_file, graph_url=fake.graph_url, **changes)
        self.tokens = EntraTokens(upstream, clock=self.clock)
        return Keeper(self.spool, self.settings(upstream), {upstream.name: self.tokens}, self.clock)

    def settings(self, upstream: Upstream) -> Settings:
        return make_settings(self.folder, upstreams=(upstream,))


@pytest.fixture
def host(tmp_path: Path, spool: Spool, registration: FakeRegistration) -> Host:
    return Host(tmp_path, spool, registration)


def certificate(
    host: Host, days: float, *, automatic: bool = True, object_id: str | None = OBJECT_ID
) -> Certificate:
    """One that began long ago: ``days`` are left of 400."""
    pair = keypair.make("relay", 400 * DAY, time.time() - (400 - days) * DAY)
    file = host.folder / "app.pem"
    keypair.write_private(file, keypair.to_pem(pair))
    host.fake.register(pair.leaf)
    return Certificate(file, None, Rotation(automatic, 365 * DAY, object_id, remove_old=False))


async def test_a_certificate_is_replaced_in_time(host: Host, logged: Logged) -> None:
    """And the reminders then know the new end. Entra's lag only makes the next round come sooner."""
    credential = certificate(host, 50)
    host.fake.pending = 1
    keeper = host.start(credential=credential)
    (cause,) = await keeper.causes(time.time())
    assert cause.step == "60"
    assert await keeper.tend() == PENDING_PAUSE
    assert await keeper.tend() == PAUSE
    assert keypair.facts(load_certificate(credential).leaf).ends > time.time() + 360 * DAY
    assert await keeper.causes(time.time()) == []
    (said,) = [fields["what"] for event, fields in logged if event == "notice"]
    assert str(said).startswith("the certificate of Microsoft 365 was replaced; the new one (SHA-1 ")


@pytest.mark.parametrize(("days", "automatic"), [(300, True), (5, False)])
async def test_one_that_is_not_due_or_not_ours_is_left_alone(
    host: Host, days: float, automatic: bool
) -> None:
    keeper = host.start(credential=certificate(host, days, automatic=automatic))
    assert await keeper.tend() == PAUSE
    assert host.fake.graph_calls == [] and host.fake.requests == []


async def test_a_rotation_that_cannot_be_is_told_months_before_the_end(host: Host, logged: Logged) -> None:
    """A third of its life before: an alert with what to set, and one line in the log."""
    host.fake.roles = ["Mail.Send"]
    keeper = host.start(credential=certificate(host, 130, object_id=None))
    for _ in range(3):
        assert await keeper.tend() == PAUSE
    (cause,) = await keeper.causes(time.time())
    assert (cause.key, cause.title) == (
        "renewal:Microsoft 365",
        "The certificate of Microsoft 365 could not be replaced",
    )
    assert "certificate: object_id" in cause.remedy
    assert len([event for event, _ in logged if event == "advice"]) == 1
    assert host.tokens.states() == []


async def test_the_secrets_end_is_read_once_a_day_and_kept(host: Host) -> None:
    """Matched by its first three characters; known again after a restart, forgotten with another secret."""
    host.fake.roles = ["Application.Read.All"]
    host.fake.secrets = [
        {"hint": "zzz", "endDateTime": "2027-01-01T00:00:00Z"},
        {"hint": SECRET[:3], "endDateTime": END},
    ]
    keeper = host.start()
    await keeper.tend()
    assert host.fake.requests == []  # nobody has sent mail yet: nothing is asked for its own sake
    await host.tokens.token(Resource.SMTP)
    for _ in range(3):
        await keeper.tend()
    assert len(host.fake.graph_calls) == 1
    assert keeper.ends == {("Microsoft 365", "credential"): ENDS}
    (cause,) = await keeper.causes(ENDS - 6 * DAY)
    assert "according to graph" in cause.evidence
    again = host.start()
    await again.causes(ENDS)
    assert again.ends == keeper.ends
    from relay.settings import ClientSecret, Secret

    other = host.start(credential=ClientSecret(Secret("another")))
    await other.causes(ENDS)
    assert other.ends == {}


async def test_without_the_permission_graph_is_not_bothered(host: Host) -> None:
    """The token shows what it may: no refusal is provoked."""
    host.fake.roles = ["Mail.Send"]
    keeper = host.start()
    await host.tokens.token(Resource.SMTP)
    await keeper.tend()
    assert host.fake.graph_calls == []
    assert keeper.ends == {}


async def test_a_sign_in_that_nobody_uses_is_used_by_the_daemon(host: Host) -> None:
    """Weeks without mail must not cost the sign-in."""
    login = UserLogin(host.folder / "user.json", USER, None)
    now = host.clock.now()
    vault.write(login, vault.SignIn(USER, TENANT, CLIENT, now, now - 8 * DAY, "r1"))
    host.fake.refresh_token = "r1"
    keeper = host.start(credential=login)
    await keeper.tend()
    await keeper.tend()
    assert len(host.fake.requests) == 1
    known = vault.peek(login)
    assert known is not None and known.used == now
    await host.tokens.close()


async def test_a_sign_in_that_was_revoked_is_told_before_mail_is_lost_time(host: Host) -> None:
    login = UserLogin(host.folder / "user.json", USER, None)
    now = host.clock.now()
    vault.write(login, vault.SignIn(USER, TENANT, CLIENT, now, now - 8 * DAY, "r1"))
    host.fake.revoked = (50173, "invalid_grant")
    keeper = host.start(credential=login)
    await keeper.tend()
    (cause,) = await keeper.causes(now)
    assert (cause.key, "relay login" in cause.remedy) == ("renewal:Microsoft 365", True)
    vault.write(login, vault.SignIn(USER, TENANT, CLIENT, now, now, "r2"))  # as `relay login` does
    await keeper.tend()
    assert await keeper.causes(now) == []
    await host.tokens.close()


def test_hexadecimal_thumbprints_are_understood() -> None:
    """Older entries of a registration have them."""
    from relay.tokens.directory import _thumbprint

    digest = bytes(range(20))
    assert _thumbprint(base64.b64encode(digest).decode()) == _thumbprint(digest.hex()) == digest.hex().upper()
