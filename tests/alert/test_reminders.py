"""Reminders of a credential's end: 60, 30, 14, 7 and 1 days before and when it is over, once each, across restarts."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.alert.causes import Cause
from relay.alert.watch import Watch
from relay.keeper import Keeper
from relay.settings import (
    Certificate,
    ClientSecret,
    ManagedIdentity,
    Rotation,
    Secret,
    Settings,
    Upstream,
    UserLogin,
)
from relay.spool.contract import Spool
from relay.tokens import keypair, vault
from relay.tokens.expiry import credential_findings, credential_states, days_left, says, stage
from tests.alert.kit import FakeStore, Logged, a_cause
from tests.alert.test_watch import tell
from tests.fakes.clock import ManualClock
from tests.fakes.settings import settings as make_settings
from tests.fakes.settings import upstream as make_upstream
from tests.fakes.spool import opened

DAY = 86400.0
END = datetime.date(2028, 11, 1)
OVER = datetime.datetime(2028, 11, 1, tzinfo=datetime.UTC).timestamp()


def secret(**changes: object) -> Upstream:
    return make_upstream(**{"client_secret_expires": END, **changes})


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    async with opened(tmp_path) as spool:
        yield spool


class Bench:
    """A keeper on a real spool, and a watch that tells by ways which work; `restart` begins both anew."""

    def __init__(self, path: Path, spool: Spool, *upstreams: Upstream) -> None:
        self.spool = spool
        self.settings: Settings = make_settings(path, upstreams=upstreams)
        self.store = FakeStore()
        self.restart()

    def restart(self) -> None:
        self.keeper = Keeper(self.spool, self.settings, {}, ManualClock())
        self.watch = Watch(self.store)

    async def look(self, now: float) -> list[Cause]:
        found = await self.keeper.causes(now)
        await self.keeper.tell(found)
        return found

    async def told(self, now: float) -> list[tuple[str, bool]]:
        return await tell(self.watch, await self.look(now), now)


@pytest.mark.parametrize(
    ("left", "expected"),
    [(61, None), (60, 60), (59, 60), (31, 60), (30, 30), (14, 14), (8, 14), (7, 7), (2, 7), (1, 1), (0.1, 1), (0, 0), (-9, 0)],
)  # fmt: skip
def test_the_steps(left: float, expected: int | None) -> None:
    assert stage(OVER, OVER - left * DAY) == expected


def test_days_are_counted_up() -> None:
    """A begun day counts: with an hour to go, "1 day" is true, "0 days" would not be."""
    assert [days_left(OVER, OVER - hours * 3600) for hours in (49, 48, 1, 0, -1)] == [3, 2, 1, 0, 0]


async def test_each_step_once_however_often_one_looks_or_restarts(
    tmp_path: Path, spool: Spool, logged: Logged
) -> None:
    """Day by day, with a restart every night: six reminders in log and alert, and then its end."""
    bench = Bench(tmp_path, spool, secret())
    told = []
    for day in range(70, -3, -1):
        for hours in (0, 8, 16):
            now = OVER - day * DAY + hours * 3600
            told += [(day, over) for _, over in await bench.told(now)]
        bench.restart()
    assert told == [(60, False), (30, False), (14, False), (7, False), (1, False), (0, False)]
    said = [fields for event, fields in logged if event == "advice"]
    assert len(said) == 6
    assert "ends in 60 days, on 2028-11-01" in str(said[0]["what"])
    assert "ends in 1 day, on" in str(said[4]["what"])
    assert "ended on 2028-11-01" in str(said[5]["what"])
    assert "New client secret" in str(said[0]["remedy"])


async def test_a_renewed_secret_ends_the_reminders(tmp_path: Path, spool: Spool) -> None:
    bench = Bench(tmp_path, spool, secret())
    key = "expiry:credential:Microsoft 365"
    assert await bench.told(OVER - 20 * DAY) == [(key, False)]
    later = dataclasses.replace(secret(), client_secret_expires=datetime.date(2030, 1, 1))
    bench.keeper.update(make_settings(tmp_path, upstreams=(later,)))
    assert await bench.told(OVER - 19 * DAY) == [(key, True)]
    assert await spool.remembered("reminder:") == {}


async def test_a_second_credential_that_lasts_changes_the_advice(tmp_path: Path, spool: Spool) -> None:
    """Nothing to make, only to tidy up."""
    following = ClientSecret(Secret("next~value"))
    upstream = secret(next_credential=following, next_secret_expires=datetime.date(2030, 1, 1))
    (cause,) = await Bench(tmp_path, spool, upstream).look(OVER - DAY)
    assert "`next_credential` takes over by itself" in cause.remedy


async def test_a_users_sign_in_is_warned_about_before_it_lapses(tmp_path: Path, spool: Spool) -> None:
    """90 days after its last use."""
    login = UserLogin(tmp_path / "user.json", "notifications@contoso.com", None)
    vault.write(login, vault.SignIn(login.user, "t", "c", OVER, OVER, "r"))
    bench = Bench(tmp_path, spool, make_upstream(credential=login))
    assert await bench.look(OVER + 29 * DAY) == []
    (cause,) = await bench.look(OVER + 80 * DAY)
    assert (cause.step, "relay login" in cause.remedy) == ("14", True)
    assert "unless it is used before" in cause.title


def test_what_a_check_says() -> None:
    """Unknown is a warning with the way to know; near is a warning; over is a failure; endless is fine."""
    now = OVER - 20 * DAY
    cases = {
        "unknown": (make_upstream(), "warn", "is not known"),
        "far": (secret(client_secret_expires=datetime.date(2029, 11, 1)), "ok", "ends in 385 days"),
        "near": (secret(), "warn", "ends in 20 days"),
        "over": (secret(client_secret_expires=datetime.date(2028, 10, 1)), "fail", "ended on 2028-10-01"),
        "endless": (make_upstream(credential=ManagedIdentity(None)), "ok", "does not end"),
    }
    for name, (upstream, level, words) in cases.items():
        (finding,) = credential_findings(upstream, now)
        assert (finding.slug, finding.level, words in finding.seen) == ("credential-expiry", level, True), (
            name
        )
        assert bool(finding.remedy) == (level != "ok"), name


def test_a_check_says_early_when_a_certificate_cannot_be_replaced(tmp_path: Path) -> None:
    """Its folder, and the Object ID; nothing of the kind for one that an administrator replaces."""
    pair = keypair.make("relay", 365 * DAY, OVER)
    file = tmp_path / "app.pem"
    keypair.write_private(file, keypair.to_pem(pair))

    def slugs(roles: list[str] | None = None, **changes: object) -> list[str]:
        rotation = dataclasses.replace(Rotation(True, 365 * DAY, None, False), **changes)  # type: ignore[arg-type]
        upstream = make_upstream(credential=Certificate(file, None, rotation))
        return [one.slug for one in credential_findings(upstream, OVER, graph_roles=roles)]

    assert slugs() == slugs(["Application.Read.All"]) == ["credential-expiry"]
    assert slugs(["Mail.Send"]) == ["credential-expiry", "rotation-impossible"]
    assert (
        slugs(["Mail.Send"], object_id="x") == slugs(["Mail.Send"], automatic=False) == ["credential-expiry"]
    )
    gone = make_upstream(credential=Certificate(tmp_path / "gone.pem", None))
    (finding,) = credential_findings(gone, OVER)
    assert (finding.slug, finding.level, bool(finding.remedy)) == ("credential-unusable", "fail", True)


def test_the_end_that_graph_knows_wins(tmp_path: Path) -> None:
    """Over what somebody typed in; the other credential keeps its own."""
    upstream = secret(
        next_credential=ClientSecret(Secret("b")), next_secret_expires=datetime.date(2030, 1, 1)
    )
    first, second = credential_states(upstream, {("Microsoft 365", "credential"): OVER + DAY})
    assert (first.expires, first.source) == (OVER + DAY, "graph")
    assert second.source == "configuration"
    assert says(first, OVER) == "The client secret of Microsoft 365 ends in 1 day, on 2028-11-02."


async def test_a_step_forward_is_told_again_and_its_end_once() -> None:
    """The watch: a new step is news to every way, also when an old one was still owed."""
    store = FakeStore()
    watch = Watch(store)
    first, second = a_cause("expiry:x", step="60"), a_cause("expiry:x", step="30", since=a_cause().since + 1)
    assert await tell(watch, [first], works=("mail",)) == [("expiry:x", False)]
    (news,) = await Watch(store).look([second], first.since)
    assert (news.cause, news.heard) == (second, frozenset())
    assert await tell(watch, [second]) == [("expiry:x", False)]
    assert await tell(watch, [second]) == []
    assert await tell(watch, []) == [("expiry:x", True)]
