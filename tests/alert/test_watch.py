"""Once per cause, and once when it is over: through restarts, failing ways and a failing store."""

from __future__ import annotations

import json

import pytest

from relay.alert import watch as of
from relay.alert.causes import Cause, LaneFacts, causes
from relay.alert.watch import News, Watch
from tests.alert.kit import LANE, NOW, ROOMY, FakeStore, Logged, a_cause

ALL = ("webhook", "mail")


async def tell(
    watch: Watch, found: list[Cause], now: float = NOW, works: tuple[str, ...] = ALL
) -> list[tuple[str, bool]]:
    """One look, told by the ways that work; what was told."""
    news = await watch.look(found, now)
    for one in news:
        worked = [way for way in works if way not in one.heard]
        owed = [way for way in ALL if way not in works and way not in one.heard]
        await watch.told(one, worked, owed, now)
    return [(one.cause.key, one.over) for one in news]


async def test_once_per_cause_and_once_when_over() -> None:
    """However often one looks; then it is forgotten, and comes afresh."""
    store, cause = FakeStore(), a_cause()
    watch = Watch(store)
    assert await tell(watch, []) == []
    assert await tell(watch, [cause]) == [(cause.key, False)]
    assert [await tell(watch, [cause], NOW + 60 * n) for n in range(5)] == [[]] * 5
    assert await watch.known() == {cause.key}
    assert await tell(watch, []) == [(cause.key, True)]
    assert [await tell(watch, []) for _ in range(5)] == [[]] * 5
    assert store.texts == {} and await watch.known() == frozenset()
    assert await tell(watch, [cause]) == [(cause.key, False)]


async def test_causes_are_told_apart() -> None:
    watch, one, two = Watch(FakeStore()), a_cause("hold:lane:a"), a_cause("spool-full")
    assert await tell(watch, [one]) == [("hold:lane:a", False)]
    assert await tell(watch, [one, two]) == [("spool-full", False)]
    assert await tell(watch, [two]) == [("hold:lane:a", True)]


async def test_nothing_is_told_again_after_a_restart() -> None:
    """And what ended while relay was stopped is told as over, in the words of its beginning."""
    store, cause = FakeStore(other="of another room"), a_cause()
    await tell(Watch(store), [cause])
    restarted = Watch(store)
    assert await restarted.known() == {cause.key}
    assert await tell(restarted, [a_cause(reason="now in other words")]) == []
    (news,) = await Watch(store).look([], NOW + 900)
    assert news == News(cause, over=True)
    assert store.texts["other"] == "of another room"


async def test_a_crash_while_telling_tells_again() -> None:
    """Better twice than never: nobody knows how far it got."""
    store, cause = FakeStore(), a_cause()
    (first,) = await Watch(store).look([cause], NOW)
    again = Watch(store)
    assert [one.cause for one in await again.look([cause], NOW + 1)] == [first.cause]
    assert await again.look([cause], NOW + 2) == []


async def test_what_is_being_told_is_not_told_twice() -> None:
    """A look does not wait for a slow way."""
    watch, cause = Watch(FakeStore()), a_cause()
    assert len(await watch.look([cause], NOW)) == 1
    assert await watch.look([cause], NOW + 20) == []


async def test_a_failed_way_is_asked_again_and_the_others_are_not() -> None:
    watch, cause = Watch(FakeStore()), a_cause()
    assert await tell(watch, [cause], works=("mail",)) == [(cause.key, False)]
    (again,) = await watch.look([cause], NOW + 20)
    assert (again.heard, again.tries) == ({"mail"}, 1)
    await watch.told(again, ["webhook"], [], NOW + 20)
    assert await watch.look([cause], NOW + 40) == []


async def test_owed_news_survive_a_restart() -> None:
    """With the ways that heard it already."""
    store, cause = FakeStore(), a_cause()
    await tell(Watch(store), [cause], works=("mail",))
    (again,) = await Watch(store).look([cause], NOW + 20)
    assert (again.heard, again.tries, again.over) == ({"mail"}, 1, False)


async def test_a_way_that_stays_broken_is_asked_ever_more_seldom_and_then_given_up(logged: Logged) -> None:
    """About a day, then one line in the log; the cause still ends as usual."""
    watch, cause = Watch(FakeStore()), a_cause()
    tried = [
        NOW + 20 * n for n in range(3 * 86_400 // 20) if await tell(watch, [cause], NOW + 20 * n, ("mail",))
    ]
    assert len(tried) == of.MOST_TRIES
    assert tried[of.EACH_LOOK - 1] == NOW + 20 * (of.EACH_LOOK - 1)
    assert tried[of.EACH_LOOK] - tried[of.EACH_LOOK - 1] == of.LATER
    assert 20 * 3600 < tried[-1] - NOW < 26 * 3600
    assert [fields["what"] for _, fields in logged] == [f"gave up telling by webhook: {cause.title}"]
    assert await tell(watch, [], NOW + 4 * 86_400) == [(cause.key, True)]


async def test_the_end_is_told_even_when_the_beginning_could_not_be() -> None:
    """Only mail, and the only mailbox was held: its first mail afterwards says what happened."""
    store, cause = FakeStore(), a_cause()
    watch = Watch(store)
    await tell(watch, [cause], works=())
    assert await tell(watch, [], works=()) == [(cause.key, True)]
    assert await tell(watch, []) == [(cause.key, True)]
    assert await tell(watch, []) == [] and store.texts == {}


async def test_a_cause_that_returns_before_its_end_was_heard_says_nothing() -> None:
    """Nobody knows that it was away."""
    watch, cause = Watch(FakeStore()), a_cause()
    await tell(watch, [cause])
    assert await tell(watch, [], works=()) == [(cause.key, True)]
    assert await tell(watch, [cause]) == []
    assert await tell(watch, []) == [(cause.key, True)]


async def test_a_cause_that_returns_after_its_end_was_heard_is_told() -> None:
    """Although one way is still owed the end."""
    watch, cause = Watch(FakeStore()), a_cause()
    await tell(watch, [cause])
    await tell(watch, [], works=("mail",))
    assert await tell(watch, [a_cause(since=NOW + 99)]) == [(cause.key, False)]


async def test_late_word_about_the_beginning_does_not_end_the_end() -> None:
    """It was over before a slow way had carried the beginning."""
    watch, cause = Watch(FakeStore()), a_cause()
    (begins,) = await watch.look([cause], NOW)
    (ends,) = await watch.look([], NOW + 20)
    await watch.told(begins, ["mail"], [], NOW + 30)
    await watch.told(ends, [], ["mail"], NOW + 30)
    assert [one.over for one in await watch.look([], NOW + 40)] == [True]


async def test_a_store_that_fails_neither_stops_nor_repeats_alerts(logged: Logged) -> None:
    """A full disk is a cause itself. What could not be written is written once it can be."""
    store, cause = FakeStore(), a_cause("spool-full")
    watch = Watch(store)
    assert await watch.known() == frozenset()
    store.broken = True
    assert await tell(watch, [cause]) == [("spool-full", False)]
    assert await tell(watch, [cause]) == []
    assert store.texts == {} and [name for name, _ in logged] == ["trouble"]
    store.broken = False
    assert await tell(watch, [cause]) == []
    assert json.loads(store.texts["alert:spool-full"])["state"] == "told"
    assert await tell(Watch(store), [cause]) == []


async def test_a_store_that_cannot_be_read_at_start_is_read_later() -> None:
    """The memory of this start wins over what was stored."""
    store, old = FakeStore(), a_cause("hold:lane:old")
    await tell(Watch(store), [old])
    store.broken = True
    watch = Watch(store)
    assert await tell(watch, [a_cause("spool-full")]) == [("spool-full", False)]
    store.broken = False
    assert await tell(watch, [a_cause("spool-full")]) == [("hold:lane:old", True)]


@pytest.mark.parametrize(
    "value", ["", "{", "[]", "{}", '{"cause": {"key": "x"}}', '{"cause": {}, "later": 1}']
)
async def test_an_unreadable_note_is_forgotten(value: str, logged: Logged) -> None:
    """Of another release or damaged: it is said, and the cause is told afresh."""
    store = FakeStore(**{"alert:spool-full": value})
    assert await tell(Watch(store), []) == []
    assert store.texts == {} and [name for name, _ in logged] == ["trouble"]


async def test_a_backlog_that_wavers_is_one_alert() -> None:
    """Watch and causes together: 61, 50, 59 and 46 minutes are one backlog, 45 are its end, 59 are none."""
    watch, told = Watch(FakeStore()), []
    for minute, drain in enumerate([59, 61, 50, 59, 46, 61, 45, 59]):
        lane = LaneFacts(LANE, drain * 30, 30, held=False)
        found = causes(holds=[], lanes=[lane], spool=ROOMY, now=NOW + minute, known=await watch.known())
        told.append(await tell(watch, found))
    key = f"backlog:{LANE}"
    assert told == [[], [(key, False)], [], [], [], [], [(key, True)], []]
