"""What can happen to a replica; each returns what makes it well again."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.group.kit import Replica


def killed(one: Replica) -> Callable[[], None]:
    one.kill()
    return lambda: None


def frozen(one: Replica) -> Callable[[], None]:
    one.signal(signal.SIGSTOP)
    return lambda: one.signal(signal.SIGCONT)


def cut_off(one: Replica) -> Callable[[], None]:
    one.database.cut()
    return one.database.restore


def held_back(one: Replica) -> Callable[[], None]:
    one.database.stall()
    return one.database.restore


def stopped(one: Replica) -> Callable[[], None]:
    assert one.stop() == 0
    return lambda: None


MISFORTUNES = (killed, frozen, cut_off, held_back, stopped)
