"""The plan's arithmetic, beside figures that Microsoft published and that can be done by head."""

from __future__ import annotations

import pytest

from benchmarks.plan import Demand, external_limit, licences_for, plan


@pytest.mark.parametrize(("licences", "limit"), [(1, 10_000), (10, 12_006), (100, 22_059), (1000, 72_446)])
def test_the_tenants_limit_is_microsofts(licences, limit):
    assert external_limit(licences) == limit


@pytest.mark.parametrize("external", [10_000, 72_446, 1_000_000])
def test_licences_are_enough_and_one_less_is_not(external):
    needed = licences_for(external)
    assert external_limit(needed) >= external
    assert needed == 1 or 500 * (needed - 1) ** 0.7 + 9_500 < external


def test_ten_million_a_day():
    found = plan(Demand(10_000_000, external=0.0), licences=1000, per_replica=100.0)
    assert (found.by_day, found.by_minute, found.mailboxes) == (1200, 500, 1200)
    assert (found.tenants, found.pools, found.replicas) == (1, 60, 3)


def test_many_mailboxes_need_replicas_for_their_connections():
    """208 messages a second at the peak would be one replica's work, 1,200 connections are not."""
    assert plan(Demand(10_000_000, external=0.0), licences=1000, per_replica=300.0).replicas == 3


def test_external_mail_needs_tenants_and_a_pool_never_reaches_beyond_one():
    found = plan(Demand(1_000_000), licences=1000, per_replica=100.0)
    assert found.tenants == 17
    assert found.pools == 17


def test_a_steep_peak_needs_more_mailboxes_than_the_day():
    steep = plan(
        Demand(100_000, external=0.0, peak_share=1.0, peak_hours=1.0), licences=1000, per_replica=100.0
    )
    assert steep.mailboxes == steep.by_minute > steep.by_day


def test_little_mail_needs_one_of_each():
    least = plan(Demand(100), licences=1, per_replica=100.0)
    assert (least.mailboxes, least.pools, least.tenants, least.replicas) == (1, 1, 1, 1)
