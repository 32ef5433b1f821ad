"""How a command ends while a thread of it still waits for Microsoft."""

from __future__ import annotations

import threading

import pytest

from relay.cli.app import main


@pytest.fixture
def left(monkeypatch) -> list[int]:
    """The statuses with which the process would have ended at once."""
    statuses: list[int] = []
    monkeypatch.setattr("relay.cli.app.os._exit", statuses.append)
    return statuses


def test_a_thread_that_waits_for_microsoft_is_not_torn_down(left):
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="relay-token", daemon=True)
    thread.start()
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
    finally:
        done.set()
        thread.join(10)
    assert left == [0]


def test_without_one_the_interpreter_ends_as_usual(left):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, left) == (0, [])
