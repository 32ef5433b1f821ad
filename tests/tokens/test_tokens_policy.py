"""The figures: when a token is renewed, when it is too old, and how long to wait after a failure."""

from __future__ import annotations

import pytest

from relay.tokens import policy


@pytest.mark.parametrize(
    ("lifetime", "left", "due"),
    [
        (3600, 721, False),
        (3600, 719, True),
        (2400, 601, False),
        (2400, 599, True),
        (86400, 17281, False),
        (86400, 17279, True),
        (600, 301, False),
        (600, 299, True),
    ],
)
def test_renewal(lifetime: float, left: float, due: bool) -> None:
    """Below 10 minutes or a fifth; the shortest tokens (10 minutes by policy) not from their first second."""
    assert policy.renewal_due(lifetime, left) is due


def test_worn_out() -> None:
    """Used until it really expires, less the moment that signing in takes."""
    assert not policy.worn_out(3600, 11)
    assert policy.worn_out(3600, 10)
    assert not policy.worn_out(5, 1)
    assert policy.worn_out(5, 0.5)


def test_pauses_for_mistakes() -> None:
    """5 s to 60 s, without jitter: an administrator watches."""
    pauses = [policy.pause(temporary=False, failures=n, retry_after=None) for n in range(1, 8)]
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_pauses_for_temporary_failures() -> None:
    """2 s to 60 s, each within a quarter; what Entra asks for is the least, within reason."""
    for failures, middle in ((1, 2), (2, 4), (5, 32), (9, 60), (5000, 60)):
        pauses = {policy.pause(temporary=True, failures=failures, retry_after=None) for _ in range(50)}
        assert len(pauses) > 1
        assert all(middle * 0.75 <= pause <= middle * 1.25 for pause in pauses)
    assert policy.pause(temporary=True, failures=1, retry_after=120) == 120
    assert policy.pause(temporary=True, failures=1, retry_after=9999) == policy.LONGEST_RETRY_AFTER
