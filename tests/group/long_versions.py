"""The release before relays shared work, beside this one on the same database: never both at work, whoever came first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.group.judge import twice
from tests.group.kit import Bounds, Group, Replica, until
from tests.group.load import CALM, steady
from tests.group.senders import Senders

ROOT = Path(__file__).parent.parent.parent
BEFORE = "c641f7a"
"""The last commit whose relays stand by for one another."""


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """That release's code."""
    folder = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BEFORE, "relay"], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, (
        f"this test needs the history (git fetch --unshallow): {archive.stderr.decode()}"
    )
    subprocess.run(["tar", "-x"], input=archive.stdout, cwd=folder, check=True)
    return folder


def goes_on(group: Group, senders: Senders, at_work: list[Replica], idle: list[Replica]) -> None:
    """Mail is delivered by those at work for a while, and the others neither listen nor deliver."""
    counted = [one.delivered() for one in idle]
    start = len(group.received())
    until(lambda: len(group.received()) >= start + 20, what="mail is delivered")
    assert [one.listens for one in at_work] == [True] * len(at_work)
    assert [one.listens for one in idle if runs(one)] == [False] * len([one for one in idle if runs(one)])
    assert [one.delivered() for one in idle] == counted


def runs(one: Replica) -> bool:
    return one.process is not None and one.process.poll() is None


def stands_by(one: Replica, times: int = 1) -> None:
    until(lambda: one.log.read_text().count("standing by") >= times, what=f"{one.name} stands by")


def test_the_previous_release_and_this_one_take_turns(make_group, before):
    group = make_group(Bounds())
    old = group.replica("old", before)
    assert str(before) in subprocess.check_output(
        [*old._words()[:-2], "-c", "import relay; print(relay.__file__)"],
        env=old.env,
        cwd=old.folder,
        text=True,
    )
    new = [group.replica("new-1"), group.replica("new-2")]
    old.start(wait=False)
    group.ready(old)
    senders = group.senders()
    for _ in range(2):
        senders.start(steady(CALM), pause=0.1)
    for one in new:
        one.start(wait=False)
        stands_by(one)
    goes_on(group, senders, [old], new)
    assert old.stop() == 0
    for one in new:
        group.ready(one, 20)
    goes_on(group, senders, new, [old])
    old.start(wait=False)
    stands_by(old)
    goes_on(group, senders, new, [old])
    assert new[0].stop() == 0
    goes_on(group, senders, new[1:], [old, new[0]])
    assert new[1].stop() == 0
    group.ready(old, 20)
    goes_on(group, senders, [old], new)
    senders.finish()
    group.await_delivery(senders)
    found = group.verdict(senders, witness=new[0])
    assert twice(found) == []


def test_this_release_takes_over_from_a_killed_previous_one_and_the_reverse(make_group, before):
    group = make_group(Bounds(), "--latency", "0.05")
    old, new = group.replica("old", before), group.replica("new")
    old.start(wait=False)
    group.ready(old)
    new.start(wait=False)
    stands_by(new)
    senders = group.senders()
    for _ in range(3):
        senders.start(steady(CALM))
    until(lambda: len(group.received()) >= 30, what="mail is delivered")
    old.kill()
    group.ready(new, 20)
    old.start(wait=False)
    goes_on(group, senders, [new], [])
    stands_by(old)
    new.kill()
    group.ready(old, 20)
    goes_on(group, senders, [old], [new])
    senders.finish()
    group.await_delivery(senders)
    group.verdict(senders, witness=new)
