"""The rules of `transport: auto` alone: scripted doors, a clock that moves when told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay import events
from relay.deliver.choice import HOUR, PREFIX, Choices, choices_of
from relay.deliver.classify import judge, judge_fault, reply_of
from relay.deliver.graph.contract import Answer
from relay.deliver.graph.judge import judge_answer
from relay.deliver.graph.witness import Witness
from relay.deliver.phases import Phase
from relay.message import Outcome, Result, Trouble
from relay.settings import Upstream, UserLogin
from relay.tokens.contract import Resource, Token
from tests.deliver.desk import make_upstream
from tests.deliver.graph.kit import Kept
from tests.fakes.clock import ManualClock

A, B = "a@contoso.com", "b@contoso.com"
CATCH_ALL = judge(Phase.AUTH, reply_of(535, "5.7.3 Authentication unsuccessful"))
TENANT_SWITCH = judge(
    Phase.AUTH, reply_of(535, "5.7.139 SmtpClientAuthentication is disabled for the Tenant.")
)
CLOSED = judge_fault("connection-refused")
DENIED = judge_answer(Answer(403, {}, "ErrorAccessDenied", "no"))


@dataclass
class Way:
    """A connection as far as the choice cares."""

    transport: str
    witness: Witness | None = None


class Tokens:
    """Roles by resource."""

    def __init__(self, smtp: tuple[str, ...] = (), graph: tuple[str, ...] = ()) -> None:
        self.roles = {Resource.SMTP: smtp, Resource.GRAPH: graph}
        self.scopes: dict[Resource, tuple[str, ...]] = {}

    async def token(self, resource: Resource) -> Token:
        return Token("t", resource, 2e9, self.roles[resource], scopes=self.scopes.get(resource, ()))

    def discard(self, token: Token) -> None:
        return None


class Bench:
    """Choices with doors that open or not, as the test says."""

    def __init__(self, smtp: tuple[str, ...] = (), graph: tuple[str, ...] = ()) -> None:
        self.clock, self.memory, self.tokens = ManualClock(), Kept(), Tokens(smtp, graph)
        self.refused: dict[str, Outcome] = {}
        self.tried: list[str] = []
        self.choices = Choices(self._smtp, self._graph, self.clock, self.memory)  # type: ignore[arg-type]
        self.upstream = make_upstream(587, None, transport="auto")

    async def _smtp(self, upstream: Upstream, mailbox: str) -> Way:
        self.tried.append(f"smtp {mailbox[0]}")
        if mailbox in self.refused:
            raise Trouble(self.refused[mailbox])
        return Way("smtp")

    async def _graph(self, upstream: Upstream, mailbox: str, witness: Witness) -> Way:
        self.tried.append(f"graph {mailbox[0]}")
        return Way("graph", witness)

    async def open(self, mailbox: str = A) -> Way:
        return await self.choices.open(self.upstream, mailbox, self.tokens)  # type: ignore[arg-type, return-value]

    def chosen(self) -> str:
        choice = self.choices.of("M365")
        return choice.transport if choice else ""


async def accepted(way: Way) -> None:
    assert way.witness is not None
    await way.witness.accepted()


async def refused(way: Way) -> Outcome:
    assert way.witness is not None
    return await way.witness.refused(DENIED)


async def test_a_closed_port_is_tried_again_after_an_hour_by_one_connection() -> None:
    bench = Bench(("SMTP.SendAsApp",), ("Mail.Send",))
    bench.refused[A] = bench.refused[B] = CLOSED
    assert (await bench.open()).transport == "graph"
    assert (await bench.open(B)).transport == "graph"
    assert bench.tried == ["smtp a", "graph a", "graph b"]
    bench.clock.advance(HOUR + 1)
    await bench.open()
    await bench.open(B)
    assert bench.tried[3:] == ["smtp a", "graph a", "graph b"]
    bench.refused.clear()
    bench.clock.advance(HOUR + 1)
    assert (await bench.open()).transport == "smtp"
    assert bench.chosen() == "smtp"


async def test_one_mailbox_refused_by_smtp_goes_its_own_way() -> None:
    bench = Bench(("SMTP.SendAsApp",), ("Mail.Send",))
    await bench.open(B)
    bench.refused[A] = CATCH_ALL
    assert (await bench.open(A)).transport == "graph"
    assert bench.chosen() == "smtp"
    assert (await bench.open(B)).transport == "smtp"


async def test_a_switch_of_the_whole_tenant_moves_every_mailbox() -> None:
    bench = Bench(("SMTP.SendAsApp",), ("Mail.Send",))
    await bench.open(B)
    bench.refused[A] = bench.refused[B] = TENANT_SWITCH
    assert (await bench.open(A)).transport == "graph"
    assert bench.chosen() == "graph"


async def test_one_mailbox_refused_by_graph_is_held_alone() -> None:
    bench = Bench((), ("Mail.Send",))
    await accepted(await bench.open(B))
    bench.tokens.roles[Resource.SMTP] = ("SMTP.SendAsApp",)
    outcome = await refused(await bench.open(A))
    assert outcome == DENIED
    assert bench.chosen() == "graph"


async def test_graph_refused_after_smtp_was_never_goes_back_within_the_hour() -> None:
    bench = Bench(("SMTP.SendAsApp",), ("Mail.Send",))
    bench.refused[A] = CATCH_ALL
    for _ in range(3):
        outcome = await refused(await bench.open())
        assert outcome.result is Result.HELD
        assert "Neither way" in outcome.reason
    assert bench.tried == ["smtp a", "graph a", "graph a", "graph a"]


async def test_smtp_refused_after_graph_was_is_a_hold_with_both_remedies() -> None:
    bench = Bench((), ("Mail.Send",))
    way = await bench.open()
    bench.tokens.roles[Resource.SMTP] = ("SMTP.SendAsApp",)
    assert (await refused(way)).code == "transport-changed"
    bench.refused[A] = CATCH_ALL
    with pytest.raises(Trouble) as caught:
        await bench.open()
    assert "SMTP.SendAsApp" in caught.value.outcome.remedy
    assert "tick Mail.Send" in caught.value.outcome.remedy
    assert bench.tried == ["graph a", "smtp a"]


async def test_roles_in_exchange_are_found_behind_a_closed_port_too() -> None:
    bench = Bench()
    bench.refused[A] = CLOSED
    way = await bench.open()
    assert (way.transport, bench.chosen()) == ("graph", "")
    await accepted(way)
    assert bench.chosen() == "graph"


async def test_without_any_right_smtp_is_asked_seldom_and_graph_at_every_try() -> None:
    bench = Bench()
    bench.refused[A] = CATCH_ALL
    for _ in range(3):
        outcome = await refused(await bench.open())
        assert "SMTP.SendAsApp" in outcome.remedy
        bench.clock.advance(60)
    assert bench.tried == ["smtp a", "graph a", "graph a", "graph a"]
    assert (await bench.open(B)).transport == "smtp"  # one mailbox's refusal says nothing about another's
    bench = Bench()
    bench.refused[A] = CATCH_ALL
    await refused(await bench.open())
    bench.clock.advance(901)
    await bench.open()
    assert bench.tried == ["smtp a", "graph a", "smtp a", "graph a"]
    bench.tokens.roles[Resource.GRAPH] = ("Mail.Send",)
    await bench.open()
    assert bench.chosen() == "graph"


@pytest.mark.parametrize(
    ("scopes", "tried", "why"),
    [
        ({Resource.SMTP: ("SMTP.Send",)}, "smtp a", "the token carries SMTP.Send"),
        (
            {Resource.GRAPH: ("Mail.Send",)},
            "graph a",
            "the token carries Graph's Mail.Send and not SMTP.Send",
        ),
    ],
)
async def test_what_a_user_allowed_decides_as_a_role_does(
    scopes: dict[Resource, tuple[str, ...]], tried: str, why: str, tmp_path: Path
) -> None:
    bench = Bench()
    bench.upstream = make_upstream(
        587, None, transport="auto", credential=UserLogin(tmp_path / "login", A, None)
    )
    bench.tokens.scopes = scopes
    await bench.open()
    choice = bench.choices.of("M365")
    assert choice is not None
    assert (bench.tried, choice.why) == ([tried], why)


async def test_a_proof_that_is_repeated_is_no_news() -> None:
    bench = Bench()
    await bench.open()
    before = bench.choices.of("M365")
    bench.clock.advance(60)
    bench.choices.revisit()
    await bench.open()
    assert bench.choices.of("M365") == before


async def test_a_role_for_smtp_survives_an_outage() -> None:
    bench = Bench()
    await bench.open()
    assert bench.chosen() == "smtp"
    bench.refused[A] = CLOSED
    with pytest.raises(Trouble):
        await bench.open()
    assert bench.tried == ["smtp a", "smtp a"]


async def test_faults_that_say_nothing_about_the_way_change_nothing() -> None:
    bench = Bench(("SMTP.SendAsApp",), ("Mail.Send",))
    bench.refused[A] = judge(Phase.AUTH, reply_of(454, "4.7.0 Temporary authentication failure"))
    with pytest.raises(Trouble):
        await bench.open()
    assert bench.tried == ["smtp a"]


async def test_a_decision_is_told_once_and_remembered_with_its_reason() -> None:
    told: list[dict[str, object]] = []
    events.plug(lambda level, event, fields: told.append(dict(fields)) if event == "transport" else None)
    try:
        bench = Bench((), ("Mail.Send",))
        await bench.open()
        bench.choices.revisit()
        await bench.open()
    finally:
        events.plug(None)
    assert len(told) == 1
    kept = json.loads(bench.memory.texts[PREFIX + "M365"])
    assert (kept["transport"], kept["why"]) == ("graph", told[0]["why"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"transport": "fax", "why": "", "since": 1}',
        '{"transport": "smtp", "why": "", "since": "x"}',
    ],
)
def test_a_memory_that_cannot_be_read_is_no_decision(text: str) -> None:
    assert choices_of({PREFIX + "M365": text}) == {}
