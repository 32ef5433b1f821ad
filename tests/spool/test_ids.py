"""Ids given out by several processes."""

from __future__ import annotations

from relay.spool import ids
from relay.spool.ids import Ids


def test_two_processes_never_give_out_the_same_number() -> None:
    """Also when the clock stands still, or went back behind the newest number of the other."""
    owner = Ids()
    owner.next(1_800_000_000.0)
    helper = Ids(owner.last, 1)
    moments = [1_800_000_000.0] * 5000 + [1_799_999_000.0] * 10
    mine, others = [owner.next(now) for now in moments], [helper.next(now) for now in moments]
    assert not set(mine) & set(others)
    for numbers, node in ((mine, 0), (others, 1)):
        assert numbers == sorted(set(numbers))
        assert {ids.node_of(number) for number in numbers} == {node}
