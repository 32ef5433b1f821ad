"""What is worth an alert, at which figures, and what it advises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from relay.alert.causes import LaneFacts, causes, local_causes, pool_line, pool_size
from relay.spool.contract import LocalMail, SpoolStats
from tests.alert.kit import GB, LANE, MB, NOW, ROOMY, a_hold

NO_LANES: tuple[LaneFacts, ...] = ()


def judge(**given: object) -> list[str]:
    """Keys of the causes."""
    facts: dict[str, object] = {
        "holds": [],
        "lanes": [],
        "spool": ROOMY,
        "now": NOW,
        "max_size": 10 * GB,
        **given,
    }
    return [cause.key for cause in causes(**facts)]  # type: ignore[arg-type]


def backlog(messages: int, limit: int = 30, held: bool = False, **more: object) -> LaneFacts:
    return LaneFacts(LANE, messages, limit, held, **more)  # type: ignore[arg-type]


def test_nothing_is_wrong() -> None:
    """An idle relay, and one that works at its limit for a while, give no cause."""
    assert judge(lanes=[backlog(0), backlog(1800)]) == []


@pytest.mark.parametrize(
    ("scope", "key", "title", "lane", "messages"),
    [
        ("lane", LANE, "Mail of scans@contoso.com is held", LANE, 12),
        ("upstream", "Microsoft 365", "All mail through Microsoft 365 is held", "", 15),
        ("message", f"{LANE}|message-policy 5.7.1", "Some mail of scans@contoso.com is held", LANE, 0),
        ("sender", f"{LANE}|a@x.example", "Mail from a@x.example through scans@contoso.com is held", LANE, 0),
    ],
)
def test_a_hold_names_what_is_held(scope: str, key: str, title: str, lane: str, messages: int) -> None:
    """Reason, remedy and the server's words come from the hold; the messages that wait are counted."""
    lanes = [
        backlog(12, held=True),
        LaneFacts("Microsoft 365/b@contoso.com", 3, 30, True),
        LaneFacts("Other/c@x", 9, 30, False),
    ]
    (cause,) = causes(holds=[a_hold(scope, key)], lanes=lanes, spool=ROOMY, now=NOW)
    assert (cause.key, cause.title) == (f"hold:{scope}:{key}", title)
    assert (cause.lane, cause.messages, cause.since) == (lane, messages, NOW - 30)
    assert cause.evidence.startswith("535 5.7.139") and cause.remedy == "Switch it on: Set-CASMailbox."


def test_a_used_up_day_with_mail_waiting_is_a_backlog_until_a_tenth_of_it_is_free() -> None:
    """The window moves bit by bit: without a second threshold it would alert each minute."""
    key = f"backlog:{LANE}"

    def found(day_used: float, messages: int = 3, known: tuple[str, ...] = ()) -> list[str]:
        return judge(lanes=[backlog(messages, day_used=day_used)], known=known)

    assert found(0.99) == []
    assert found(1.0, messages=0) == []
    assert found(1.0) == [key]
    assert found(0.95, known=(key,)) == [key]
    assert found(0.89, known=(key,)) == []
    (cause,) = causes(holds=[], lanes=[backlog(3, day_used=1.0)], spool=ROOMY, now=NOW)
    assert "pool" in cause.remedy and "100 %" in cause.evidence


def test_a_hold_without_remedy_still_says_what_to_do() -> None:
    (cause,) = causes(holds=[a_hold(remedy="")], lanes=NO_LANES, spool=ROOMY, now=NOW)
    assert "relay queue release" in cause.remedy


@pytest.mark.parametrize(
    ("free", "max_size", "known", "full"),
    [
        (512 * MB, 10 * GB, False, False),
        (511 * MB, 10 * GB, False, True),  # 5 % of 10 GB
        (767 * MB, 10 * GB, True, True),
        (768 * MB, 10 * GB, True, False),  # over only with half as much again
        (64 * MB, GB, False, False),
        (63 * MB, GB, False, True),
        (0, 10 * GB, False, True),
        (63 * MB, 0, False, True),
        (26 * MB, 50 * MB, False, False),  # a spool smaller than 64 MB is not full while it is empty
        (24 * MB, 50 * MB, False, True),
    ],
)
def test_the_spool_is_full_below_five_percent_or_64_mb(
    free: int, max_size: int, known: bool, full: bool
) -> None:
    """And what is full is over only when clearly more is free again."""
    stats = SpoolStats("sqlite:////x", 100, 5 * GB, free)
    keys = judge(spool=stats, max_size=max_size, known={"spool-full"} if known else set())
    assert keys == (["spool-full"] if full else [])


@pytest.mark.parametrize(
    ("messages", "limit", "held", "known", "told"),
    [
        (1800, 30, False, False, False),
        (1801, 30, False, False, True),
        (1801, 60, False, False, False),
        (1351, 30, False, True, True),
        (1350, 30, False, True, False),  # 45 minutes
        (1_000_000, 0, False, False, False),  # no limit to reckon by
        (1801, 30, True, False, False),  # its hold is the alert
        (1801, 30, True, True, True),  # a hold does not make the backlog "over"
    ],
)
def test_a_backlog_counts_from_an_hour_and_ends_at_45_minutes(
    messages: int, limit: int, held: bool, known: bool, told: bool
) -> None:
    """Figures that waver around the hour do not alert again and again."""
    lane = backlog(messages, limit, held)
    assert judge(lanes=[lane], known={f"backlog:{LANE}"} if known else set()) == (
        [f"backlog:{LANE}"] if told else []
    )


@pytest.mark.parametrize(
    ("messages", "pool", "size"),
    [
        (1801, (), 2),
        (3600, (), 2),
        (3601, (), 3),
        (5401, (), 4),
        (1801, ("scans@contoso.com", "b@contoso.com"), 4),
    ],
)
def test_the_pool_that_is_advised_drains_within_the_hour(
    messages: int, pool: tuple[str, ...], size: int
) -> None:
    lane = backlog(messages, pool=pool)
    assert pool_size(lane) == size
    (cause,) = causes(holds=[], lanes=[lane], spool=ROOMY, now=NOW)
    assert f"a pool of {size} mailboxes" in cause.remedy
    assert (cause.lane, cause.messages, cause.since) == (LANE, messages, NOW)


def test_the_advised_line_is_a_rule_that_the_configuration_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of the alert, pasted under ``senders:``, loads and makes the pool."""
    from relay.config.load import load

    lane = LaneFacts('Contoso "EU": 1/scans@contoso.com', 5000, 30, False)
    (cause,) = causes(holds=[], lanes=[lane], spool=ROOMY, now=NOW)
    line = cause.remedy.splitlines()[-1]
    file = tmp_path / "config.yaml"
    file.write_text(
        "upstreams: [{server_name: 'Contoso \"EU\": 1', from_email: scans@contoso.com,"
        " tenant_id: 11111111-1111-1111-1111-111111111111, client_id: 22222222-2222-2222-2222-222222222222,"
        f" client_secret: not-a-real-one}}]\nsenders:\n  {line}\n"
    )
    file.chmod(0o600)
    (rule,) = load(file, {}).senders
    assert rule.login == ("scans@contoso.com", "scans-2@contoso.com", "scans-3@contoso.com")
    assert (rule.match, rule.from_address, rule.upstream) == ("*", "scans@contoso.com", 'Contoso "EU": 1')


def test_a_rule_that_exists_changes_its_login_alone() -> None:
    """Whatever else the rule says (client, name, reply_to) stays."""
    lane = backlog(1801, match="*@scanners.local", pool=("scans@contoso.com", "scans-2@contoso.com"))
    (cause,) = causes(holds=[], lanes=[lane], spool=ROOMY, now=NOW)
    assert "rule of `senders:` for *@scanners.local" in cause.remedy
    assert yaml.safe_load(cause.remedy.splitlines()[-1]) == {
        "login": ["scans@contoso.com", "scans-2@contoso.com", "scans-3@contoso.com", "scans-4@contoso.com"]
    }


def test_a_huge_backlog_does_not_list_hundreds_of_mailboxes() -> None:
    """It says how many it would take, shows ten, and what would be better."""
    (cause,) = causes(holds=[], lanes=[backlog(1_000_000)], spool=ROOMY, now=NOW)
    assert "a pool of 556 mailboxes" in cause.remedy and "bulk mailing" in cause.remedy
    assert len(yaml.safe_load(cause.remedy.splitlines()[-1])[0]["login"]) == 10


@pytest.mark.parametrize(
    ("messages", "span"), [(1801, "an hour"), (30 * 60 * 7 + 1, "7 hours"), (30 * 60 * 24 * 3, "3 days")]
)
def test_the_title_says_how_long_mail_will_wait(messages: int, span: str) -> None:
    (cause,) = causes(holds=[], lanes=[backlog(messages)], spool=ROOMY, now=NOW)
    assert re.fullmatch(f"Mail of scans@contoso.com waits for more than {span}", cause.title)


def test_the_pool_line_never_names_a_mailbox_twice() -> None:
    pool = ("scans@contoso.com", "scans-3@contoso.com")
    line = pool_line(backlog(1, pool=pool, match="x@y"), 4)
    names = yaml.safe_load(line)["login"]
    assert names == [*pool, "scans-2@contoso.com", "scans-4@contoso.com"]


def test_the_spool_address_is_not_shown() -> None:
    """It may hold a database's password."""
    stats = SpoolStats("postgresql://relay:pa55word@db/relay", 1, 1, 0)
    (cause,) = causes(holds=[], lanes=[], spool=stats, now=NOW, max_size=GB)
    assert "pa55word" not in repr(cause) and cause.title == "The spool is full"


@pytest.mark.parametrize(("lasted", "told"), [(None, []), (30, []), (61, ["local-spool"])])
def test_a_database_that_stays_away_is_told(lasted: float | None, told: list[str]) -> None:
    """Not one that is restarted or fails over."""
    since = None if lasted is None else NOW - lasted
    local = LocalMail("sqlite:////l.db", 2, 2000, GB, NOW - 5, since, "the database cannot be used")
    assert [one.key for one in local_causes(local, NOW)] == told
