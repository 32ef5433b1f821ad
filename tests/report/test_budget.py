"""At most so many notices an hour to one address, then a summary; nothing is forgotten, not even by a restart."""

from __future__ import annotations

import json
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.report.budget import SAMPLES, Budget

START = 1_795_428_000.1


def flooded(number: int, limit: int = 3) -> Budget:
    budget = Budget(limit)
    for index in range(number):
        budget.take("app@contoso.com", START + index, f"line {index}")
    return budget


def test_up_to_the_limit_each_goes_out() -> None:
    """Per address, whatever its case."""
    budget = Budget(2)
    assert [budget.take(to, START) for to in ("a@x", "A@X", "a@x", "b@x")] == [True, True, False, True]


def test_the_summary_is_due_when_a_place_comes_free() -> None:
    """An hour after the first; it names what was kept back."""
    budget = flooded(5)
    assert budget.owed(START + 10) == []
    due = budget.next_due(START + 10)
    assert due == START + 3600
    (owed,) = budget.owed(due)
    assert (owed.to, owed.count, owed.since, owed.samples) == (
        "app@contoso.com",
        2,
        START + 3,
        ("line 3", "line 4"),
    )
    budget.settled(owed, due)
    assert budget.owed(due) == []
    assert budget.next_due(due) is None


def test_nothing_overtakes_the_summary() -> None:
    """While one is owed, more is kept back, though a place is free."""
    budget = flooded(4)
    later = START + 4000
    assert not budget.take("app@contoso.com", later, "line 4")
    (owed,) = budget.owed(later)
    assert owed.count == 2
    budget.settled(owed, later)
    assert budget.take("app@contoso.com", later)


def test_what_comes_while_the_summary_is_stored_stays_owed() -> None:
    """A summary settles what it named and no more."""
    budget = flooded(4)
    (owed,) = budget.owed(START + 4000)
    budget.take("app@contoso.com", START + 4001, "late")
    budget.settled(owed, START + 4002)
    (rest,) = budget.owed(START + 8000)
    assert (rest.count, rest.samples) == (1, ("late",))


def test_a_summary_that_was_not_stored_is_still_owed() -> None:
    """Looking changes nothing."""
    budget = flooded(4)
    assert budget.owed(START + 4000) == budget.owed(START + 4000) != []


def test_lines_are_bounded_and_the_count_is_not() -> None:
    """A flood costs little memory."""
    (owed,) = flooded(SAMPLES * 4).owed(START + 8000)
    assert owed.count == SAMPLES * 4 - 3
    assert len(owed.samples) == SAMPLES


def test_it_survives_a_restart_through_json() -> None:
    """The same answers afterwards."""
    before = flooded(5)
    after = Budget.restore(json.loads(json.dumps(before.export())), limit=3)
    assert after.export() == before.export()
    assert after.owed(START + 4000) == before.owed(START + 4000)
    assert not after.take("app@contoso.com", START + 10)


@pytest.mark.parametrize("rows", [[1], [["a"]], [["a", ["x"], 0, 0, []]], [["a", None, 0, 0, []]]])
def test_a_foreign_state_is_refused(rows: list[object]) -> None:
    """With one kind of error."""
    with pytest.raises(ValueError, match="not the state of a budget"):
        Budget.restore(rows)


def test_old_addresses_are_forgotten() -> None:
    """Memory follows the last hour's addresses, not all that ever were."""
    budget = Budget()
    for index in range(100):
        budget.take(f"a{index}@x", START)
    budget.take("b@x", START + 4000)
    assert [row[0] for row in budget.export()] == ["b@x"]


def test_a_clock_set_back_does_not_silence_for_ever() -> None:
    """Times from the future count for nothing beyond one window."""
    budget = flooded(3)
    assert budget.take("app@contoso.com", START - 86_400)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 900), max_size=60), st.integers(1, 4), st.integers(0, 60))
def test_never_more_than_the_limit_in_any_window(steps: list[float], limit: int, restart: int) -> None:
    """Summaries included, over a restart; and every notice goes out or is counted in a summary exactly once."""
    budget, now, alone, summed = Budget(limit), START, 0, 0
    window: deque[float] = deque()
    for index, pause in enumerate(steps):
        now += pause
        if index == restart:
            budget = Budget.restore(budget.export(), limit)
        for owed in budget.owed(now):
            budget.settled(owed, now)
            summed += owed.count
            window.append(now)
        if budget.take("a@x", now):
            alone += 1
            window.append(now)
        while window and window[0] + 3600 <= now:
            window.popleft()
        assert len(window) <= limit
    while (due := budget.next_due(now)) is not None:
        now = due
        (owed,) = budget.owed(now)
        budget.settled(owed, now)
        summed += owed.count
    assert alone + summed == len(steps)
