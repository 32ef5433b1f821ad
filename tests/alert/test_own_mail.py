"""By which mailbox our own mail goes: the default one, else any that works, and back by the same road."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from relay.ownmail import OwnMail
from relay.schedule.lane import Lane
from relay.schedule.limits import MailboxLimiter
from relay.schedule.upstream import UpstreamState
from relay.settings import SenderRule
from relay.spool.contract import Hold, lane_name
from tests.fakes.settings import LIMITS, settings

M365 = "Microsoft 365"
DEFAULT = lane_name(M365, "notifications@contoso.com")
SCANS = lane_name(M365, "scans@contoso.com")
TO = "it@contoso.com"


@pytest.fixture
def own(tmp_path: Path) -> OwnMail:
    rules = (
        SenderRule("*@keep.example", None, None, None, (), "keep", "none", M365),
        SenderRule("*@scanners", None, None, "scans@contoso.com", (), "keep", "none", M365),
    )
    one = OwnMail(dataclasses.replace(settings(tmp_path), senders=rules), "relay.contoso.com")
    upstream = UpstreamState(M365)
    one.upstreams = {M365: upstream}
    one.lanes = {name: Lane(name, upstream, LIMITS, 30, MailboxLimiter(LIMITS)) for name in (DEFAULT, SCANS)}
    return one


def held(scope: str, key: str) -> Hold:
    return Hold(scope, key, "x", "r", "", "", 0.0)


def test_the_default_mailbox_carries_our_mail(own: OwnMail) -> None:
    out = own.outgoing(TO)
    assert out is not None and (out.from_email, out.lane) == ("notifications@contoso.com", DEFAULT)


def test_another_mailbox_of_the_rules_carries_it_when_the_default_is_held(own: OwnMail) -> None:
    """It is routed back to the same mailbox at its attempt, and the lane counts as used."""
    own.lanes[DEFAULT].hold = held("lane", DEFAULT)
    out = own.outgoing(TO)
    assert out is not None and (out.from_email, out.lane) == ("scans@contoso.com", SCANS)
    route = own.route((out.from_email,))
    assert (route.lanes, route.from_address) == ((SCANS,), "scans@contoso.com")
    assert own.uses(SCANS) and not own.uses(lane_name(M365, "x@keep.example"))


def test_a_sender_that_is_denied_carries_nothing_of_ours(own: OwnMail) -> None:
    own.lanes[DEFAULT].hold = held("lane", DEFAULT)
    own.lanes[SCANS].held_senders["scans@contoso.com"] = held("sender", f"{SCANS}|scans@contoso.com")
    assert own.outgoing(TO) is None
    near = own.outgoing(TO, near=SCANS)
    assert near is not None and near.lane == DEFAULT


def test_nothing_works_when_the_whole_upstream_is_held(own: OwnMail) -> None:
    own.upstreams[M365].hold = held("upstream", M365)
    assert own.outgoing(TO) is None
