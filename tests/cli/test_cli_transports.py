"""`relay status` says how each upstream sends, and why; with the relay stopped, too."""

from __future__ import annotations

import json

from tests.cli.kit import Bench


def remember(bench: Bench, **choice: object) -> None:
    async def work(spool) -> None:
        await spool.remember("transport:Microsoft 365", json.dumps(choice))

    bench.with_spool(work)


def test_before_any_decision_it_is_auto(bench: Bench) -> None:
    shape = bench.json("status")
    assert shape["transports"] == [
        {
            "upstream": "Microsoft 365",
            "transport": "auto",
            "configured": "auto",
            "why": "the next message decides",
            "since": None,
        }
    ]
    assert shape["lanes"][0]["transport"] == "auto"


def test_a_decision_is_shown_with_its_reason(bench: Bench) -> None:
    remember(bench, transport="graph", why="the token carries Mail.Send", since=1_795_000_000.0, until=None)
    shape = bench.json("status")
    assert shape["transports"][0]["transport"] == shape["lanes"][0]["transport"] == "graph"
    assert shape["transports"][0]["since"] == "2026-11-18T11:06:40.000Z"
    text = bench.run("status").stdout
    assert "Microsoft 365 sends by graph since" in text
    assert "the token carries Mail.Send" in text


def test_what_the_configuration_forces_is_what_is_shown(bench: Bench) -> None:
    remember(bench, transport="graph", why="the token carries Mail.Send", since=1_795_000_000.0, until=None)
    bench.config.write_text(bench.config.read_text().replace("port: 587", "port: 587\n    transport: smtp"))
    shape = bench.json("status")
    assert shape["transports"][0]["transport"] == shape["lanes"][0]["transport"] == "smtp"
    assert "transport: smtp" in shape["transports"][0]["why"]
