"""Each mistake an administrator can make is told apart: by the step that fails, and by its remedy."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay.check.contract import CheckReport
from relay.check.engine import check_upstream, run_check
from relay.clock import SystemClock
from relay.simulator.app import Simulator
from relay.simulator.faults import Fault
from tests.check.kit import MAILBOX, everything, failed, free_port, settings_for, simulator, step

LOGIN = f"smtp-login:{MAILBOX}"
GUID = "0b5c9a4e-1111-4222-8333-444455556666"
POLICY = "535 5.7.139 Authentication unsuccessful, "


async def nothing(sim: Simulator) -> None:
    """The tenant is as it should be."""


def tenant(**changes: Any) -> Callable[[Simulator], Awaitable[None]]:
    """The tenant is changed like this."""
    return lambda sim: sim.change(**changes)


def fault(where: str, reply: str, **more: Any) -> Callable[[Simulator], Awaitable[None]]:
    """A service answers like this."""

    async def put(sim: Simulator) -> None:
        sim.faults.add(Fault(where, "reply", reply, times=None, **more))

    return put


@dataclass(frozen=True)
class Case:
    """One mistake: what is changed, which steps fail, what the first of them sees and says."""

    name: str
    fails: list[str]
    sees: str
    says: tuple[str, ...]
    guide_step: int | None = 5
    tenant: Callable[[Simulator], Awaitable[None]] = nothing
    settings: dict[str, Any] = field(default_factory=dict)
    permissions: tuple[str, ...] = ("SMTP.SendAsApp",)


CASES = (
    Case("wrong-tenant", ["token-smtp"], "no tenant with this id", ("Directory (tenant) ID", "Overview"), 6,
         settings={"tenant_id": GUID}),
    Case("wrong-client-id", ["token-smtp"], "no application with this client id",
         ("Application (client) ID", GUID), 6, settings={"client_id": GUID}),
    Case("swapped", ["token-smtp"], "are swapped", ("Exchange them",), 6,
         settings={"tenant_id": "c11e0000-8d2f-4b6a-b1d3-0c0ffee00002",
                   "client_id": "7a1c0000-5f1e-4c3b-9a7e-0c0ffee00001"}),
    Case("secret-id", ["token-smtp"], "looks like the Secret ID", ("copy its Value", "never shown again"),
         settings={"secret": GUID}),
    Case("wrong-secret", ["token-smtp"], "7000215", ("Certificates & secrets", "Value"),
         settings={"secret": "abc~not-the-right-one"}),
    Case("expired-secret", ["token-smtp"], "has expired", ("New client secret", "client_secret_expires"),
         tenant=tenant(secret_expired=True)),
    Case("no-service-principal", ["token-smtp"], "no service principal", ("Grant admin consent creates it",), 4,
         tenant=tenant(service_principal=False)),
    Case("app-disabled", ["token-smtp"], "disabled", ("Enabled for users to sign-in",), None,
         tenant=tenant(app_enabled=False)),
    Case("conditional-access-at-entra", ["token-smtp"], "Conditional Access", ("workload identities",), None,
         tenant=fault("token", "400 AADSTS53003 Access has been blocked by Conditional Access policies.")),
    Case("consent", ["permissions", LOGIN, f"graph-mailbox:{MAILBOX}"], "no permission. Consent was not granted",
         ("Step 4", "Grant admin consent", "Mail.Send", "c11e0000-8d2f-4b6a-b1d3-0c0ffee00002"), 4, permissions=()),
    Case("consent-for-smtp", ["permissions", LOGIN], "Consent was not granted", ("SMTP.SendAsApp", "Step 4"), 4,
         settings={"transport": "smtp"}, permissions=()),
    Case("only-mail-send-but-smtp", ["permissions", LOGIN], "enough for Graph", ("transport: auto",), 3,
         settings={"transport": "smtp"}, permissions=("Mail.Send",)),
    Case("smtp-auth-off-for-tenant", [LOGIN], "switched off for the whole tenant",
         (f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false", "Get-TransportConfig", "30 minutes"), 7,
         tenant=tenant(smtp_auth_disabled_tenant=True)),
    Case("smtp-auth-off-for-mailbox", [LOGIN], f"switched off for the mailbox {MAILBOX}",
         (f"Set-CASMailbox {MAILBOX}", "Authenticated SMTP", "2 hours"), 7,
         tenant=tenant(smtp_auth_disabled_mailboxes=[MAILBOX])),
    Case("security-defaults", [LOGIN], "Security defaults", ("Manage security defaults", "transport: auto"), 7,
         tenant=fault("auth", POLICY + "user is locked by your organization's security defaults policy.")),
    Case("conditional-access", [LOGIN], "Conditional Access", ("Sign-in logs", "public IP"), 7,
         tenant=fault("auth", POLICY + "the request did not meet the criteria to be authenticated successfully.")),
    Case("starttls-hidden", ["starttls"], "does not offer STARTTLS", ("SMTP inspection", "inspect esmtp"), 0,
         tenant=fault("ehlo", "250 mail.example")),
    Case("auth-hidden", ["starttls"], "does not offer OAuth2", ("SMTP inspection",), 0,
         tenant=fault("ehlo", "250 mail.example", after=1)),
    Case("starttls-crossed-out", ["starttls"], "Its greeting: *****", ("inspect esmtp",), 0,
         tenant=tenant(smtp_front="strips-starttls")),
    Case("smtp-tls-opened", ["starttls"], "issued by Example Proxy Inspection CA", ("ca_file", "TLS inspection"), 0,
         tenant=tenant(smtp_front="intercepts-tls")),
    Case("https-tls-opened", ["tcp-token", "tcp-graph"], "issued by Example Proxy Inspection CA", ("ca_file",), 0,
         tenant=tenant(https_front="intercepts-tls")),
    Case("block-page", ["token-smtp"], "Something other than Entra", ("filtering proxy",), 0,
         tenant=tenant(https_front="block-page")),
    Case("no-principal-in-exchange", [LOGIN], "refused the token", ("(1) The service principal is missing",
         "Get-ServicePrincipal", "New-ServicePrincipal"), 7,
         tenant=tenant(exchange_service_principal=False)),
    Case("security-defaults-at-exchange", [LOGIN], "Security defaults", ("Manage security defaults",), 7,
         tenant=tenant(smtp_policy="security-defaults")),
    Case("tenants-clock", ["clock"], "behind Microsoft's", ("NTP",), None,
         tenant=tenant(clock_skew=3600)),
    Case("app-not-assigned", ["token-smtp"], "must be assigned", ("Assignment required",), None,
         tenant=tenant(assignment_required=True)),
    Case("graph-scope", [f"graph-mailbox:{MAILBOX}"], "ErrorAccessDenied",
         ("Test-ApplicationAccessPolicy", "2 hours"), 7, tenant=tenant(graph_scope=[]), permissions=("Mail.Send",),
         settings={"transport": "graph"}),
    Case("graph-no-mailbox", [f"graph-mailbox:{MAILBOX}"], "MailboxNotEnabledForRESTAPI", ("Licenses and apps",), 7,
         tenant=tenant(unlicensed=[MAILBOX]), permissions=("Mail.Send",)),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_mistake_has_its_step_and_its_remedy(case: Case, tmp_path: Path) -> None:
    """The step that fails names cause, place and guide step; no secret or token is shown anywhere."""
    async with simulator(tmp_path, permissions=set(case.permissions)) as sim:
        await case.tenant(sim)
        settings = settings_for(sim, tmp_path, **case.settings)
        told: list[str] = []
        report = await run_check(settings, progress=lambda one: told.append(one.id))
    assert sorted(failed(report)) == sorted(case.fails)
    first = step(report, case.fails[0])
    assert case.sees in first.seen
    for words in case.says:
        assert words in first.remedy, first.remedy
    assert first.guide_step == case.guide_step
    assert sorted(told) == sorted(one.id for one in report.steps)
    shown_nothing_secret(report, str(case.settings.get("secret", sim.state.client_secret)))


def shown_nothing_secret(report: CheckReport, secret: str) -> None:
    """Neither the secret nor anything that looks like a token."""
    assert secret not in everything(report)
    assert "eyJ" not in everything(report)


async def test_all_is_well(tmp_path: Path) -> None:
    """Every step ok, in the guide's order; what is not known of the secret's end is a warning, not a failure."""
    async with simulator(tmp_path, permissions={"SMTP.SendAsApp", "Application.Read.All"}) as sim:
        report = await run_check(settings_for(sim, tmp_path))
        assert [one.status for one in report.steps] == ["ok"] * len(report.steps), everything(report)
        assert "According to the app registration" in step(report, "secret-expiry").seen
        assert report.steps[0].id == "configuration"
        await sim.change(secret_expires=time.time() + 5 * 86400)
        soon = await run_check(settings_for(sim, tmp_path))
        assert step(soon, "secret-expiry").status == "warn"
        assert "in 5 days" in step(soon, "secret-expiry").seen
        await sim.change(permissions=["SMTP.SendAsApp"])
        unknown = await run_check(settings_for(sim, tmp_path))
        assert step(unknown, "secret-expiry").status == "warn"
        assert "Application.Read.All" in step(unknown, "secret-expiry").remedy
        stated = await run_check(settings_for(sim, tmp_path, more="    client_secret_expires: 2020-01-01"))
        assert failed(stated) == ["secret-expiry"]
    shown_nothing_secret(report, sim.state.client_secret)


async def test_mail_send_alone_is_fine(tmp_path: Path) -> None:
    """The guide as written: Graph is used, and SMTP is neither tried nor complained about, even where it is blocked."""
    async with simulator(tmp_path, permissions={"Mail.Send"}) as sim:
        report = await run_check(settings_for(sim, tmp_path))
        assert report.ok
        assert "Graph will be used" in step(report, "permissions").seen
        assert step(report, LOGIN).status == "skipped"
        assert step(report, f"graph-mailbox:{MAILBOX}").status == "ok"
        assert sim.counters["auths"] == 0
        assert sim.messages == []
        blocked = await run_check(settings_for(sim, tmp_path, port=free_port()))
        assert blocked.ok
        assert step(blocked, "tcp-smtp").status == "warn"
        assert "does not matter" in step(blocked, "tcp-smtp").seen


async def test_graph_stands_in_for_smtp(tmp_path: Path) -> None:
    """With both rights a blocked port or a switched-off SMTP AUTH is a warning: mail goes over Graph."""
    async with simulator(tmp_path, permissions={"SMTP.SendAsApp", "Mail.Send"}) as sim:
        await sim.change(smtp_auth_disabled_tenant=True)
        report = await run_check(settings_for(sim, tmp_path))
        assert report.ok
        assert step(report, LOGIN).status == "warn"
        assert "Set-CASMailbox" in step(report, LOGIN).remedy
        assert step(report, f"graph-mailbox:{MAILBOX}").status == "ok"


async def test_exchange_roles_leave_no_trace_and_work(tmp_path: Path) -> None:
    """No permission in the token, and yet all is well: only the try tells (facts 0.2)."""
    async with simulator(tmp_path, permissions={"rbac-smtp"}) as sim:
        report = await run_check(settings_for(sim, tmp_path))
        assert report.ok
        assert "Exchange role" in step(report, "permissions").seen
        await sim.change(permissions=["rbac-mail-send"])
        over_graph = await run_check(settings_for(sim, tmp_path))
        assert over_graph.ok, everything(over_graph)
        assert "Mail goes over Graph" in step(over_graph, "permissions").seen


async def test_service_principal_or_mailbox_permission(tmp_path: Path) -> None:
    """One answer for two causes: both are named with check and mend; once another mailbox gets in, only one is left."""
    rule = "senders:\n  - {match: '*@a.local', from: scans@contoso.com}\n  - {match: '*@b.local', login: [x@contoso.com]}"
    async with simulator(tmp_path, full_access=set()) as sim:
        both = step(await run_check(settings_for(sim, tmp_path)), LOGIN)
        principal = sim.state.service_principal_id()
        assert both.status == "fail"
        assert both.remedy.index("(1) The service principal is missing") < both.remedy.index(
            "(2) The mailbox permission"
        )
        assert f"-ObjectId '{principal}'" in both.remedy
        assert f"Add-MailboxPermission -Identity '{MAILBOX}' -User '{principal}'" in both.remedy
        assert "30 minutes to 2 hours" in both.remedy
        await sim.change(full_access=[MAILBOX])
        before = sim.counters["auths"]
        report = await run_check(settings_for(sim, tmp_path, senders=rule))
        assert sim.counters["auths"] - before == 3  # each mailbox once
    assert step(report, LOGIN).status == "ok"
    scans = step(report, "smtp-login:scans@contoso.com")
    assert "(1) The mailbox permission is missing" in scans.remedy
    assert "New-ServicePrincipal" not in scans.remedy
    assert step(report, "smtp-login:x@contoso.com").status == "fail"


async def test_what_concerns_all_mailboxes_is_tried_once(tmp_path: Path) -> None:
    """Exchange is not provoked with the same refusal for every mailbox."""
    rule = "senders:\n  - {match: '*@a.local', login: [scans@contoso.com, it@contoso.com]}"
    async with simulator(tmp_path) as sim:
        await sim.change(smtp_auth_disabled_tenant=True)
        report = await run_check(settings_for(sim, tmp_path, senders=rule))
        assert sim.counters["auths"] == 1
    assert failed(report) == [LOGIN]
    assert step(report, "smtp-login:it@contoso.com").status == "skipped"


async def test_a_refused_secret_is_asked_for_once(tmp_path: Path) -> None:
    """The second token takes the same credential, so it is not asked for."""
    async with simulator(tmp_path) as sim:
        report = await run_check(settings_for(sim, tmp_path, secret="abc~wrong"))
        assert sim.counters["token_failures"] == 1
    assert step(report, "token-graph").status == "skipped"
    assert step(report, "permissions").status == "skipped"
    assert step(report, LOGIN).status == "skipped"


async def test_a_second_credential_stands_in(tmp_path: Path) -> None:
    """The first is refused, mail flows all the same, and the end of both is looked at."""
    async with simulator(tmp_path, permissions={"SMTP.SendAsApp"}) as sim:
        (tmp_path / "next").write_text(sim.state.client_secret)
        (tmp_path / "next").chmod(0o600)
        more = "    next_credential: {client_secret: file:next, client_secret_expires: 2020-01-31}"
        report = await run_check(settings_for(sim, tmp_path, secret="abc~the-old-one", more=more))
    assert step(report, "token-smtp").status == "ok"
    assert "and next client secret from file:next" in step(report, "secrets").seen
    assert failed(report) == ["secret-expiry"]
    assert "ended on 2020-01-31" in step(report, "secret-expiry").seen
    shown_nothing_secret(report, "the-old-one")
    shown_nothing_secret(report, sim.state.client_secret)


async def test_what_cannot_be_known_is_not_a_failure(tmp_path: Path) -> None:
    """Without a token, or without a login that was refused, nobody can say that consent is missing."""
    async with simulator(tmp_path, permissions=set()) as sim:
        no_token = await run_check(settings_for(sim, tmp_path, transport="smtp", secret="abc~wrong"))
        assert failed(no_token) == ["token-smtp"]
        blocked = await run_check(settings_for(sim, tmp_path, transport="smtp", port=free_port()))
        assert failed(blocked) == ["tcp-smtp"]
        assert step(blocked, "permissions").status == "warn"


async def test_a_service_the_mail_does_not_need(tmp_path: Path) -> None:
    """A token that only the other transport would need is a warning."""
    async with simulator(tmp_path, permissions={"Mail.Send"}) as sim:
        sim.faults.add(
            Fault("token", "reply", "400 AADSTS500011 The resource principal was not found.", times=1)
        )
        report = await run_check(settings_for(sim, tmp_path))
    assert report.ok, everything(report)
    assert step(report, "token-smtp").status == "warn"
    assert "Graph will be used" in step(report, "permissions").seen


async def test_port_blocked(tmp_path: Path) -> None:
    """The port is named, with a line to try it; nothing after it is guessed at."""
    async with simulator(tmp_path) as sim:
        port = free_port()
        report = await run_check(settings_for(sim, tmp_path, port=port))
    assert failed(report)[0] == "tcp-smtp"
    assert f"outbound TCP {port}" in step(report, "tcp-smtp").remedy
    assert step(report, "starttls").status == "skipped"
    assert step(report, "token-smtp").status == "ok"


async def test_a_firewall_that_drops(tmp_path: Path) -> None:
    """No answer at all is told apart from a refusal, after as long as the time-out allows and no longer."""
    async with simulator(tmp_path) as sim:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(4)]  # beyond its backlog the kernel drops what comes
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            report = await run_check(
                settings_for(sim, tmp_path, port=full.getsockname()[1], host="127.0.0.1", timeout=1)
            )
            for one in fillers:
                one.close()
    assert failed(report)[0] == "tcp-smtp"
    assert "timed out after 1 s, as when a firewall drops it" in step(report, "tcp-smtp").seen


async def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    """Named with what it must allow; its password is not shown."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with simulator(tmp_path) as sim, server:
        more = f"    proxy: http://joe:pr0xypass@127.0.0.1:{port}"
        report = await run_check(settings_for(sim, tmp_path, more=more))
    assert failed(report)[:3] == ["tcp-smtp", "tcp-token", "tcp-graph"]
    for id in ("tcp-smtp", "tcp-token"):
        assert "403 Forbidden" in step(report, id).seen
        assert "allow CONNECT to localhost" in step(report, id).remedy
    assert "pr0xypass" not in everything(report)


async def test_a_silent_server_is_timed_out(tmp_path: Path) -> None:
    """The step says so, and the whole check stays within its bounds."""
    async with simulator(tmp_path) as sim:
        sim.faults.add(Fault("banner", "hang", times=None))
        started = time.monotonic()
        report = await run_check(settings_for(sim, tmp_path, timeout=1))
        assert time.monotonic() - started < 30
    assert failed(report)[0] == "starttls"
    assert "timed out after 1 s of silence" in step(report, "starttls").seen
    assert "SMTP inspection" in step(report, "starttls").remedy


async def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    """The name is shown, with the line to try it."""
    async with simulator(tmp_path) as sim:
        report = await run_check(settings_for(sim, tmp_path, host="smtp.office365.invalid"))
    assert failed(report)[0] == "dns"
    assert "nslookup smtp.office365.invalid" in step(report, "dns").remedy
    assert step(report, "tcp-smtp").status == "skipped"
    assert step(report, "token-smtp").status == "ok"


async def test_tls_inspection_is_named_by_its_issuer(tmp_path: Path) -> None:
    """A certificate of somebody else's authority: who issued it, and how to trust or avoid it."""
    async with simulator(tmp_path) as sim, simulator(tmp_path / "other") as other:
        report = await run_check(settings_for(sim, tmp_path, ca_file=other.ca_file))
    assert failed(report) == ["tcp-token", "tcp-graph", "starttls"]
    for id in failed(report):
        assert "issued by Relay simulator CA" in step(report, id).seen
        assert "ca_file" in step(report, id).remedy
    assert sim.counters["token_requests"] == 0


async def test_a_strange_greeting_is_a_warning(tmp_path: Path) -> None:
    """It works, and yet something stands in between."""
    async with simulator(tmp_path) as sim:
        await sim.change(smtp_front="foreign-banner")
        report = await run_check(settings_for(sim, tmp_path))
    assert report.ok
    assert step(report, "starttls").status == "warn"
    assert "not Exchange Online's" in step(report, "starttls").seen


class WrongClock(SystemClock):
    """An hour ahead."""

    def now(self) -> float:
        return super().now() + 3600


async def test_clock(tmp_path: Path) -> None:
    """By how much, and how to set it."""
    async with simulator(tmp_path) as sim:
        report = await run_check(settings_for(sim, tmp_path), clock=WrongClock())
    assert "clock" in failed(report)
    assert "ahead of Microsoft's" in step(report, "clock").seen
    assert "NTP" in step(report, "clock").remedy


async def test_one_upstream_before_it_is_stored(tmp_path: Path) -> None:
    """Network and credential only: no listener, no spool, no other mailbox."""
    async with simulator(tmp_path) as sim:
        settings = settings_for(sim, tmp_path)
        report = await check_upstream(settings.upstreams[0])
        assert report.ok
        kinds = {one.id.partition(":")[0] for one in report.steps}
        assert kinds.isdisjoint({"listener", "spool", "configuration", "send"})
        assert LOGIN in {one.id for one in report.steps}


async def test_several_upstreams_are_told_apart(tmp_path: Path) -> None:
    """Ids carry the server name."""
    async with simulator(tmp_path) as sim:
        file = tmp_path / "config.yaml"
        settings_for(sim, tmp_path)
        text = file.read_text()
        block = text[text.index("  - server_name") : text.index("listeners:")]
        second = block.replace("Microsoft 365", "Second").replace(sim.state.client_id, GUID)
        file.write_text(text.replace(block, block + second))
        from relay.config.load import load

        report = await run_check(load(file, {}))
    assert failed(report) == ["token-smtp:Second"]
    assert step(report, "token-smtp:Microsoft 365").status == "ok"
    assert step(report, f"smtp-login:{MAILBOX}:Microsoft 365").status == "ok"
