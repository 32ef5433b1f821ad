"""The whole room: facts in, alerts out by a real webhook, a real command and a mail way that may be down."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from relay.alert.alarm import Alarm
from relay.alert.news import News
from relay.alert.watch import Watch
from relay.alert.ways import Ways
from relay.settings import Alerts
from tests.alert.kit import NOW, FakeStore, Logged, Pauses, Postmaster, Receiver, a_cause


def ways(webhook: str | None = None, command: str | None = None, mail: Postmaster | None = None) -> Ways:
    return Ways(Alerts(webhook, command), mail=mail, host="mx1", pause=Pauses())


async def look(alarm: Alarm, *found: str, now: float = NOW) -> None:
    """One look with these causes, and everything told."""
    await alarm.look([a_cause(key) for key in found], now)
    await alarm.idle()


def told(receiver: Receiver) -> list[tuple[str, bool]]:
    return [(body["cause"], body["over"]) for body in receiver.got]


async def test_every_way_hears_it_once(receiver: Receiver, tmp_path: Path) -> None:
    """Webhook, command and mail: the beginning once, the end once."""
    file = tmp_path / "page.py"
    file.write_text(f"import sys\nopen({str(tmp_path / 'out')!r}, 'a').write(sys.stdin.read())\n")
    mail = Postmaster()
    all_ways = ways(receiver.url, f"{sys.executable} -I {file}", mail)
    alarm = Alarm(Watch(FakeStore()), all_ways)
    for found in (["spool-full"], ["spool-full"], [], []):
        await look(alarm, *found)
    expected = [("spool-full", False), ("spool-full", True)]
    assert all_ways.names == ("webhook", "command", "mail")
    assert told(receiver) == expected and mail.got == expected
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(body["cause"], body["over"]) for body in lines] == expected


async def test_a_restart_says_nothing_twice(receiver: Receiver) -> None:
    store = FakeStore()
    for _ in range(3):
        await look(Alarm(Watch(store), ways(receiver.url)), "spool-full")
    await look(Alarm(Watch(store), ways(receiver.url)))
    assert told(receiver) == [("spool-full", False), ("spool-full", True)]


async def test_a_broken_way_stops_no_other_and_is_made_up_for(receiver: Receiver, logged: Logged) -> None:
    """It is logged once with its remedy, asked at each look, and the way that worked is not asked again."""
    receiver.status(500)
    mail = Postmaster()
    alarm = Alarm(Watch(FakeStore()), ways(receiver.url, mail=mail))
    for n in range(3):
        await look(alarm, "spool-full", now=NOW + 20 * n)
    assert mail.got == [("spool-full", False)] and len(receiver.got) == 9
    ((name, fields),) = logged
    assert (name, fields["where"]) == ("trouble", "alerts by webhook") and fields["remedy"]
    receiver.status(200)
    await look(alarm, "spool-full", now=NOW + 60)
    await look(alarm, "spool-full", now=NOW + 80)
    assert len(receiver.got) == 10 and mail.asked == 1


async def test_mail_waits_for_a_lane_that_works(receiver: Receiver) -> None:
    """The webhook says it at once; mail follows as soon as some lane can carry it."""
    mail = Postmaster()
    mail.reachable = False
    alarm = Alarm(Watch(FakeStore()), ways(receiver.url, mail=mail))
    await look(alarm, "hold:lane:a")
    assert told(receiver) == [("hold:lane:a", False)] and mail.got == []
    mail.reachable = True
    await look(alarm, "hold:lane:a", now=NOW + 20)
    assert len(receiver.got) == 1 and mail.got == [("hold:lane:a", False)]


async def test_a_slow_way_delays_neither_looks_nor_other_alerts(receiver: Receiver) -> None:
    """A webhook that hangs: a second hold is still told by the other way at once, and in order."""
    receiver.gate = asyncio.Event()
    mail, heard = Postmaster(), asyncio.Event()

    async def postmaster(news: News) -> bool:
        heard.set()
        return await mail(news)

    alarm = Alarm(Watch(FakeStore()), Ways(Alerts(receiver.url, None), mail=postmaster, host="mx1"))
    for found in (["hold:lane:a"], ["hold:lane:a", "hold:lane:b"]):
        heard.clear()
        await alarm.look([a_cause(key) for key in found], NOW)
        await asyncio.wait_for(heard.wait(), 5)
    assert mail.got == [("hold:lane:a", False), ("hold:lane:b", False)]
    await alarm.look([], NOW + 20)
    receiver.gate.set()
    await asyncio.wait_for(alarm.idle(), 10)
    of_a = [over for key, over in told(receiver) if key == "hold:lane:a"]
    assert of_a == [False, True]


async def test_stopping_while_telling_tells_after_the_next_start(receiver: Receiver) -> None:
    """Nothing is lost by a stop that could not wait for a slow webhook."""
    receiver.gate = asyncio.Event()
    store = FakeStore()
    alarm = Alarm(Watch(store), ways(receiver.url))
    await alarm.look([a_cause("spool-full")], NOW)
    await asyncio.wait_for(alarm.stop(0.0), 5)
    receiver.gate.set()
    await look(Alarm(Watch(store), ways(receiver.url)), "spool-full", now=NOW + 60)
    assert told(receiver)[-1] == ("spool-full", False)
    assert json.loads(store.texts["alert:spool-full"])["state"] == "told"


async def test_a_new_way_after_a_reload_carries_what_is_owed(receiver: Receiver) -> None:
    """The administrator mends the webhook's address while a hold lasts."""
    alarm = Alarm(Watch(FakeStore()), ways("http://127.0.0.1:1/wrong"))
    await look(alarm, "hold:lane:a")
    alarm.update(ways(receiver.url))
    await look(alarm, "hold:lane:a", now=NOW + 20)
    assert told(receiver) == [("hold:lane:a", False)]


async def test_without_any_way_nothing_is_owed() -> None:
    """The log and `relay status` say it; the watch does not try for ever."""
    store = FakeStore()
    await look(Alarm(Watch(store), ways()), "spool-full")
    assert json.loads(store.texts["alert:spool-full"])["state"] == "told"


async def test_an_unexpected_error_of_a_way_is_a_failure_like_others(logged: Logged) -> None:
    """Its words, which may hold an address, are not shown."""

    async def mail(news: News) -> bool:
        raise ZeroDivisionError("https://hooks.slack.com/secret")

    assert await Ways(Alerts(None, None), mail=mail, host="mx1").tell(News(a_cause(), False)) == []
    assert "ZeroDivisionError" in repr(logged) and "hooks.slack.com" not in repr(logged)


@pytest.mark.parametrize(
    ("alerts", "way"),
    [(Alerts("http://alerts.example/s3cr3t-key", None), "webhook"), (Alerts(None, "/no/such"), "command")],
)
def test_a_way_that_cannot_work_is_said_at_start(alerts: Alerts, way: str, logged: Logged) -> None:
    """Not only when it is needed; and without the address."""
    Ways(alerts, mail=None, host="mx1")
    ((name, fields),) = logged
    assert (name, fields["where"]) == ("advice", f"alerts by {way}")
    assert fields["remedy"] and "s3cr3t-key" not in repr(fields)
