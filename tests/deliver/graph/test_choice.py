"""`transport: auto`: what decides, what is remembered, and that nothing plays ping-pong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.message import Result, Trouble
from relay.simulator.faults import Fault
from tests.deliver.graph.kit import Tenant, tenant


def chosen(one: Tenant) -> tuple[str, str]:
    """Transport and why, or two empty texts."""
    choice = one.courier.choice("M365")
    return (choice.transport, choice.why) if choice else ("", "")


async def test_the_guides_permission_means_graph_without_a_word_to_port_587(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "graph"
        assert "Mail.Send" in chosen(one)[1]
        assert one.sim.store.counters["connections"] == 0


@pytest.mark.parametrize("more", [(), ("Mail.Send",)])
async def test_the_right_to_send_by_smtp_means_smtp(tmp_path: Path, more: tuple[str, ...]) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp", *more) as one:
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "smtp"
        assert one.sim.messages[0].transport == "smtp"


async def test_an_exchange_role_for_smtp_shows_by_trying(tmp_path: Path) -> None:
    async with tenant(tmp_path, "rbac-smtp") as one:
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "smtp"


async def test_an_exchange_role_for_graph_shows_by_sending(tmp_path: Path) -> None:
    async with tenant(tmp_path, "rbac-mail-send") as one:
        connection = await one.open()
        assert connection.transport == "graph"
        assert chosen(one) == ("", "")
        assert (await one.send(connection=connection)).result is Result.SENT
        assert chosen(one)[0] == "graph"
        await connection.close()
        failures = one.sim.store.counters["auth_failures"]
        assert (await one.send()).result is Result.SENT
        assert one.sim.store.counters["auth_failures"] == failures


async def test_no_right_at_all_is_held_with_both_remedies_and_mends_itself(tmp_path: Path) -> None:
    async with tenant(tmp_path) as one:
        outcome = await one.send()
        assert outcome.result is Result.HELD
        assert "Mail.Send" in outcome.remedy
        assert "SMTP.SendAsApp" in outcome.remedy
        await one.sim.change(permissions=["Mail.Send"])
        one.reload()
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "graph"


async def test_consent_given_is_noticed_by_the_next_try_alone(tmp_path: Path) -> None:
    async with tenant(tmp_path) as one:
        assert (await one.send()).result is Result.HELD
        await one.sim.change(permissions=["Mail.Send"])
        assert (await one.send()).result is Result.SENT


async def test_smtp_refused_and_mail_send_granted_goes_over_to_graph(tmp_path: Path) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp", "Mail.Send") as one:
        await one.sim.change(smtp_auth_disabled_tenant=True)
        assert (await one.send()).result is Result.SENT
        transport, why = chosen(one)
        assert transport == "graph"
        assert "SMTP AUTH is switched off" in why
        failures = one.sim.store.counters["auth_failures"]
        await one.send()
        assert one.sim.store.counters["auth_failures"] == failures  # Exchange is not provoked again


async def test_a_closed_port_587_and_mail_send_granted_goes_over_to_graph(tmp_path: Path) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp", "Mail.Send") as one:
        await one.sim.change(exchange_down=True)
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "graph"
        assert "refuses connections" in chosen(one)[1]


async def test_a_closed_port_587_without_mail_send_waits_for_it(tmp_path: Path) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp") as one:
        await one.sim.change(exchange_down=True)
        with pytest.raises(Trouble) as caught:
            await one.open()
        assert caught.value.outcome.code == "connection-refused"
        assert chosen(one)[0] == "smtp"


async def test_graph_refused_and_smtp_granted_goes_over_to_smtp(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send()
        await one.sim.change(permissions=["SMTP.SendAsApp"])
        one.sim.faults.add(Fault("graph", "reply", "403 ErrorAccessDenied no", times=1))
        one.tokens.retry_now()
        outcome = await one.send()
        assert (outcome.result, outcome.code, outcome.wait) == (Result.DEFERRED, "transport-changed", 0.0)
        assert (await one.send()).result is Result.SENT
        assert chosen(one)[0] == "smtp"


async def test_both_refused_is_held_and_neither_is_tried_in_turn(tmp_path: Path) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp", "Mail.Send") as one:
        await one.sim.change(smtp_auth_disabled_tenant=True)
        one.sim.faults.add(Fault("graph", "reply", "403 ErrorAccessDenied no", times=None))
        for _ in range(3):
            outcome = await one.send()
            assert outcome.result is Result.HELD
            assert "-SmtpClientAuthenticationDisabled" in outcome.remedy
            assert "Mail.Send" in outcome.remedy
        assert one.sim.store.counters["auth_failures"] == 1
        one.sim.faults.clear()
        assert (await one.send()).result is Result.SENT


async def test_the_choice_outlives_the_process(tmp_path: Path) -> None:
    async with tenant(tmp_path, "rbac-mail-send") as one:
        await one.send()
        before = one.courier.choice("M365")
        await one.stop()
        one.start()
        await one.courier.recall()
        assert one.courier.choice("M365") == before
        failures = one.sim.store.counters["auth_failures"]
        assert (await one.send()).result is Result.SENT
        assert one.sim.store.counters["auth_failures"] == failures


async def test_a_reload_reads_the_permissions_again(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send()
        await one.sim.change(permissions=["SMTP.SendAsApp", "Mail.Send"])
        one.tokens.discard(await one.tokens.token(_smtp()))
        one.reload()
        await one.send()
        assert chosen(one)[0] == "smtp"


async def test_entra_down_keeps_the_way_that_is_known(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send()
        await one.sim.change(entra_down="503")
        one.reload()
        assert (await one.send()).result is Result.SENT


@pytest.mark.parametrize("transport", ["smtp", "graph"])
async def test_what_the_configuration_says_is_done(tmp_path: Path, transport: str) -> None:
    async with tenant(tmp_path, "SMTP.SendAsApp", "Mail.Send", transport=transport) as one:
        assert (await one.send()).result is Result.SENT
        assert one.sim.messages[0].transport == transport
        assert chosen(one) == ("", "")


async def test_many_lanes_at_once_make_one_decision(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        outcomes = await asyncio.gather(*(one.send() for _ in range(12)))
        assert {outcome.result for outcome in outcomes} == {Result.SENT}
        assert one.sim.limits_report()["graph"]["concurrency"] <= 2


def _smtp():
    from relay.tokens.contract import Resource

    return Resource.SMTP
