"""Metrics: what is counted and measured, who may read it, and that its size is bounded."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import events
from relay.metrics import LABELS, LANES, Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "monitoring"
REPORT = {
    "version": "1", "started": "2026-01-01T00:00:00Z", "listeners": [], "lanes": [], "tokens": [], "credentials": [],
    "holds": [], "spool": {"messages": 0, "bytes": 0, "free": 1},
}  # fmt: skip


def lane(number: int, **changes: object) -> dict[str, object]:
    """One lane of a report."""
    return {
        "upstream": "U", "mailbox": f"m{number}@contoso.com", "state": "open", "backlog": 0, "oldest": None,
        "sent_last_minute": 0, "limit_per_minute": 30, "connections": 0,
        "last_login": None, **changes,
    }  # fmt: skip


def values(text: str) -> dict[str, float]:
    """``name{labels}`` -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found


def send(site, sender: str = "erp@legacy.local", recipient: str = "you@contoso.com") -> None:
    """One message by plain SMTP."""
    host, port = next(iter(site.daemon.listeners.values())).address
    with smtplib.SMTP(host, port, timeout=20) as client:
        client.sendmail(sender, [recipient], f"From: {sender}\r\nSubject: x\r\n\r\nHello\r\n")


async def test_a_message_shows_in_counters_durations_and_backlog(site):
    """Accepted, committed, waiting for a token that nobody gives."""
    await asyncio.to_thread(send, site)
    got = values((await site.get("/metrics")).text)
    assert got["relay_accepted_total"] == 1
    assert got["relay_events_total{event=accepted}"] == 1
    assert got["relay_accept_seconds_count"] == 1
    assert got["relay_commit_seconds_count"] >= 1
    assert got["relay_ready"] == 1
    assert got["relay_lane_backlog{mailbox=notifications@contoso.com,upstream=Microsoft 365}"] == 1
    states = [f"relay_lane_state{{mailbox=notifications@contoso.com,state={one},upstream=Microsoft 365}}"
              for one in ("open", "slowed", "held")]  # fmt: skip
    assert sum(got[one] for one in states) == 1


def test_a_group_is_shown_with_who_works_what():
    """Each replica of the group, and the one that works a mailbox; none of it where a relay is alone."""
    replica = {"name": "b", "version": "1", "state": "working", "lanes": 1, "seen": "2026-01-01T00:00:00Z"}
    report = {**REPORT, "replicas": [replica], "lanes": [lane(1, replica="b"), lane(2, replica=None)]}
    text = Metrics().text(report, ready=True, limit=1, now=0.0).decode()
    got = {key: value for key, value in values(text).items() if "replica" in key}
    assert got == {
        "relay_replica{replica=b,state=working,version=1}": 1,
        "relay_replica_lanes{replica=b}": 1,
        "relay_replica_seen_timestamp_seconds{replica=b}": 1767225600,
        "relay_lane_replica{mailbox=m1@contoso.com,replica=b,upstream=U}": 1,
    }
    alone = Metrics().text(REPORT, ready=True, limit=1, now=0.0).decode()
    assert not [key for key in values(alone) if "replica" in key]


async def test_what_is_read_twice_within_a_second_is_put_together_once(site, monkeypatch):
    asked = []
    status = site.daemon.status

    async def counting():
        asked.append(1)
        return await status()

    monkeypatch.setattr(site.daemon, "status", counting)
    monkeypatch.setattr("relay.metrics.FRESH", 3600.0)
    answers = await asyncio.gather(*(site.get("/metrics") for _ in range(5)))
    assert {one.status for one in answers} == {200}
    assert len(asked) == 1


async def test_a_request_through_a_proxy_gets_no_figures(site):
    """Behind a proxy on this machine everybody looks like loopback."""
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        answer = await site.get("/metrics", **{name: "for=192.0.2.1"})
        assert answer.status == 403
        assert "web.metrics_from" in answer.text
    assert (await site.get("/metrics")).status == 200
    await site.sign_in()
    assert (await site.get("/metrics", Via="1.1 proxy")).status == 200


@pytest.mark.parametrize(
    ("networks", "status"), [((), 403), (("192.0.2.0/24",), 403), (("127.0.0.0/8",), 200)]
)
async def test_networks_may_be_given_leave(site, monkeypatch, networks, status):
    """Asked from an address that is not loopback's, as far as the page can see."""
    import dataclasses
    import ipaddress

    monkeypatch.setattr(ipaddress.IPv4Address, "is_loopback", False)
    site.daemon.settings = dataclasses.replace(
        site.daemon.settings,
        web=dataclasses.replace(
            site.daemon.settings.web, metrics_from=tuple(ipaddress.ip_network(one) for one in networks)
        ),
    )
    assert (await site.get("/metrics")).status == status


def test_label_sets_are_bounded():
    """A server that invents a new reply for each message does not fill the monitoring system."""
    metrics = Metrics()
    metrics.watch()
    try:
        for number in range(LABELS + 500):
            events.failed(id="1", lane="U m", reason="", recipients=1, code=f"code-{number}")
            events.rejected(client="c", phase="rcpt", reply=f"550 5.7.{number} no", reason="")
    finally:
        metrics.stop()
    report = {**REPORT, "lanes": [lane(number, backlog=number) for number in range(LANES + 20)]}
    report["lanes"][3]["state"] = "held"  # type: ignore[index]
    text = metrics.text(report, ready=True, limit=1, now=0.0).decode()
    got = values(text)
    assert got["relay_failed_total{cause=other}"] == 500
    assert len([one for one in got if one.startswith("relay_failed_total")]) == LABELS + 1
    assert len([one for one in got if one.startswith("relay_rejected_total")]) == LABELS + 1
    assert len([one for one in got if one.startswith("relay_lane_backlog")]) == LANES
    assert got["relay_lanes_not_shown"] == 20
    assert "relay_lane_backlog{mailbox=m3@contoso.com,upstream=U}" in got  # held: always shown
    assert "relay_lane_backlog{mailbox=m4@contoso.com,upstream=U}" not in got


def test_no_label_holds_a_person_or_a_secret():
    """Whatever an event says, only its cause, phase, code, kind, lane or place becomes a label."""
    metrics = Metrics()
    metrics.watch()
    try:
        events.accepted(id="1", client="10.1.2.3", sender="ann@contoso.com", recipients=1, size=1, lane="U m")
        events.failed(
            id="1", lane="U m", reason="no ben@example.com", recipients=1, reply="550 ben@example.com"
        )
        events.rejected(client="10.1.2.3", phase="rcpt", reply="550 5.1.1 ben@example.com", reason="x")
        events.trouble(where="message 0abc", what="ann@contoso.com")
        events.notified(id="1", kind="failure", to="ann@contoso.com")
    finally:
        metrics.stop()
    text = metrics.text(REPORT, ready=True, limit=1, now=0.0).decode()
    assert values(text)["relay_rejected_total{code=550 5.1.1,phase=rcpt}"] == 1
    assert values(text)["relay_troubles_total{where=message}"] == 1
    for word in ("ann@", "ben@", "10.1.2.3", "0abc"):
        assert word not in text


async def test_every_metric_is_documented_and_no_other(site):
    """The table in monitoring.md names what the page shows; rules and dashboard use nothing else."""
    await asyncio.to_thread(send, site)
    page = (await site.get("/metrics")).text
    shown = {
        re.sub("_info$", "", name) if kind == "info" else name
        for name, kind in re.findall(r"^# TYPE (relay_\w+) (\w+)$", page, re.MULTILINE)
        if not name.endswith("_created")
    }
    document = (ROOT / "docs" / "monitoring.md").read_text()
    table = re.findall(r"^\| `(relay_\w+)` \| (counter|histogram|gauge) \|", document, re.MULTILINE)
    assert {name for name, _ in table} == shown
    used = (FOLDER / "relay.rules.yml").read_text() + (FOLDER / "grafana-dashboard.json").read_text()
    names = {re.sub("_bucket$", "", one) for one in re.findall(r"\brelay_[a-z_]+", used)}
    assert names <= shown
    alerts = set(re.findall(r"alert: (\w+)", used))
    assert alerts == set(re.findall(r"`(Relay[A-Z]\w+)`", document))


def test_the_dashboard_is_one_that_grafana_reads():
    """JSON, with a panel of its own place for each question, all bound to the chosen source and instance."""
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in board["panels"]]
    assert len(set(places)) == len(places) > 10
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${source}"
        assert all("$instance" in target["expr"] for target in panel["targets"])


def promtool(*words: str, text: str | None = None) -> str:
    """Run it; what it says."""
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_right_and_fire_when_they_should():
    assert "15 rules found" in promtool("check", "rules", str(FOLDER / "relay.rules.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(FOLDER / "relay.rules.test.yml"))


async def test_the_page_is_well_formed_to_promtool(site):
    await asyncio.to_thread(send, site)
    page = (await site.get("/metrics")).text
    ours = "".join(line + "\n" for line in page.splitlines() if "process_" not in line)
    await asyncio.to_thread(promtool, "check", "metrics", text=ours)


async def test_the_dashboards_queries_are_prometheus_queries(tmp_path):
    """Checked as rules, the dashboard's variables filled in."""
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    filled = [one.replace("$__rate_interval", "5m").replace("$instance", ".*") for one in queries]
    rules = [{"record": f"relay:q{number}", "expr": one} for number, one in enumerate(filled)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    said = await asyncio.to_thread(promtool, "check", "rules", str(file))
    assert f"{len(queries)} rules found" in said
