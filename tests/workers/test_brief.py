"""What a helper is told, and on which machines there is one."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from relay.settings import Alerts, ClientLogin, ClientSecret, Secret, Web
from relay.workers import load
from relay.workers.brief import Brief, without_secrets
from relay.workers.deputy import _environment
from tests.accept.support import listener
from tests.fakes.settings import settings, upstream


def test_a_helper_is_told_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its settings nor by its environment."""
    hidden = [f"hidden-{number}" for number in range(7)]
    whole = settings(
        tmp_path,
        upstreams=(
            upstream(
                credential=ClientSecret(Secret(hidden[0])), next_credential=ClientSecret(Secret(hidden[1])),
                proxy=f"http://me:{hidden[2]}@proxy.example:3128",
            ),
        ),
        listeners=(listener(),),
        clients=(ClientLogin("scanner", Secret(hidden[3]), ("*",)),),
        alerts=Alerts(f"https://hooks.example/{hidden[4]}", None),
        web=Web("127.0.0.1:8025", "127.0.0.1", 8025, Secret(hidden[5]), None, None),
    )  # fmt: skip
    whole = dataclasses.replace(
        whole, spool=dataclasses.replace(whole.spool, url=f"postgresql://me:{hidden[6]}@db/relay")
    )
    told = pickle.dumps(Brief(without_secrets(whole), {}, "relay.test", tmp_path, 1, 0))
    monkeypatch.setenv("RELAY_CLIENT_SECRET", hidden[0])
    seen = told + repr(_environment()).encode()
    assert [one for one in hidden if one.encode() in seen] == []
    assert b"scanner" in told  # with what it may send as


def test_a_containers_quota_counts_as_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--cpus=1` is one processor, however many the host has; without a quota the affinity decides."""
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(load, "QUOTA", quota)
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert load.cores() == 4
    quota.write_text("max 100000\n")
    assert load.cores() == 4
    quota.write_text("250000 100000\n")
    assert load.cores() == 2
    quota.write_text("50000 100000\n")
    assert load.cores() == 1
