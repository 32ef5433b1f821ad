"""`relay check`: everything that must be right before mail flows, looked at step by step.

One engine behind the command and the page. Steps that do not depend on one another run side by side, each within its
own bound; nothing is raised for what a server, a network or a file may do, and no step shows a secret.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Coroutine
from typing import Any

from relay.check import catalogue, local
from relay.check.board import Board, all_secrets, secrets_of
from relay.check.bounds import HOST, brief, in_thread
from relay.check.contract import CheckReport, Progress, Status
from relay.check.interfaces import interfaces
from relay.check.listeners import listener_steps
from relay.check.logins import mailboxes_of
from relay.check.running import Running, find_running
from relay.check.storage import spool_step
from relay.check.trial import send_step
from relay.check.upstream import UpstreamCheck
from relay.clock import Clock, SystemClock
from relay.settings import Settings, Upstream
from relay.spool.contract import lane_name

LONGEST = 180.0
"""Seconds for one upstream, or for this machine's own steps, whatever happens; the steps' own bounds are far below."""


async def run_check(
    settings: Settings,
    *,
    send_to: str | None = None,
    progress: Progress | None = None,
    running: bool = False,
    clock: Clock | None = None,
) -> CheckReport:
    """Every step for this configuration, and with ``send_to`` a message to that address that really travels.

    ``running``: the caller is (or has asked) the daemon that serves these listeners; without it the control channel
    is asked whether one runs. ``progress`` is told each step as soon as it is known.
    """
    report, _ = await check_with_lanes(
        settings, send_to=send_to, progress=progress, running=running, clock=clock
    )
    return report


async def check_with_lanes(
    settings: Settings,
    *,
    send_to: str | None = None,
    progress: Progress | None = None,
    running: bool = False,
    clock: Clock | None = None,
) -> tuple[CheckReport, list[str]]:
    """Like `run_check`; also the lanes whose mailbox was let in: their held mail may go on."""
    board = Board(all_secrets(settings), progress)
    clock = clock or SystemClock()
    board.add(local.configuration_step(settings))
    board.add(local.secrets_step(settings))
    board.add(local.postmaster_step(settings))
    several = len(settings.upstreams) > 1
    checks = [
        UpstreamCheck(
            one, mailboxes_of(settings, one), board, clock, hello_name(), one.name if several else ""
        )
        for one in settings.upstreams
    ]
    relay = (
        Running(tuple(one.bind for one in settings.listeners)) if running else await find_running(settings)
    )
    await asyncio.gather(
        _host(settings, board, relay), *(_bounded(board, one.run(), catalogue.PERMISSIONS) for one in checks)
    )
    if send_to is not None:
        await _send(settings, board, send_to, relay, clock, let_in=bool(checks[0].usable))
    lanes = [
        lane_name(upstream.name, mailbox)
        for upstream, check in zip(settings.upstreams, checks, strict=True)
        for mailbox in check.usable
    ]
    return board.report(), lanes


async def check_upstream(
    upstream: Upstream, *, progress: Progress | None = None, clock: Clock | None = None
) -> CheckReport:
    """Only the network, the credential and the login of one upstream's `from_email`: before settings are stored."""
    board = Board(secrets_of([upstream]), progress)
    check = UpstreamCheck(
        upstream, [upstream.from_email.lower()], board, clock or SystemClock(), hello_name(), ""
    )
    await _bounded(board, check.run(), catalogue.PERMISSIONS)
    return board.report()


def hello_name() -> str:
    """This machine's name for EHLO: Exchange wants one, and does not look it up."""
    name = "".join(one for one in socket.gethostname() if one.isascii() and (one.isalnum() or one in ".-"))
    return name.strip(".-") or "relay"


async def _host(settings: Settings, board: Board, relay: Running) -> None:
    now = datetime.datetime.now(datetime.UTC)
    try:
        steps = await in_thread(
            lambda: listener_steps(settings.listeners, settings.web, interfaces(), relay, now), HOST
        )
    except TimeoutError:
        board.add(
            catalogue.LISTENER.step(Status.FAIL, "timed out", "Write addresses instead of names in `bind`.")
        )
    else:
        for step in steps:
            board.add(step)
    try:
        async with asyncio.timeout(HOST):
            board.add(await spool_step(settings.spool))
    except TimeoutError:
        board.add(catalogue.SPOOL.step(Status.FAIL, "timed out", "Look at the disk behind `spool.url`."))


async def _send(
    settings: Settings, board: Board, to: str, relay: Running, clock: Clock, *, let_in: bool
) -> None:
    """Only when it can arrive: a message that is held would surprise somebody days later."""
    if not let_in:
        board.add(catalogue.SEND.step(Status.SKIPPED, "not sent: no mailbox was let in, see above"))
        return
    board.add(
        await send_step(settings, to, served=relay.binds is not None, clock=clock, hostname=hello_name())
    )


async def _bounded(board: Board, work: Coroutine[Any, Any, None], kind: catalogue.Kind) -> None:
    """A fault of our own ends one part of the check with a word, never the whole without one."""
    try:
        async with asyncio.timeout(LONGEST):
            await work
    except TimeoutError:
        board.add(
            kind.step(Status.FAIL, f"timed out after {LONGEST:g} s", "See which steps are missing above.")
        )
    except Exception as fault:
        seen = f"the check itself failed: {type(fault).__name__}: {brief(fault)}"
        board.add(kind.step(Status.FAIL, seen, "Please report this with the steps shown."))
