"""What the pages show and do, over HTTP, against a real daemon and a real spool."""

from __future__ import annotations

import asyncio
import html
import re
from urllib.parse import quote

import pytest

from relay import events
from relay.check.contract import CheckReport, Status, Step
from relay.spool.contract import Filter, Hold, lane_name
from relay.web.chart import HEIGHT, chart
from relay.web.views.overview import sentence
from relay.web.views.queue import COUNTED, PAGE
from tests.fakes.spool import accept, new_message
from tests.web.client import LANE, plain
from tests.web.crowd import crowd

XSS = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
SCANS = lane_name("Microsoft 365", "scans@contoso.com")


@pytest.fixture
async def site(site):
    """Its lane is held, so that what a test puts into the queue stays there."""
    await hold(site)
    return site


async def hold(site, lane: str = LANE, scope: str = "lane", evidence: str = "535 5.7.139 no"):
    """A hold as the scheduler sets it."""
    now = site.daemon.clock.now()
    await site.daemon.spool.hold(
        Hold(
            scope,
            lane,
            "x",
            "SMTP AUTH is switched off",
            "Switch it on: Set-CASMailbox.",
            evidence,
            now,
            0,
            now + 900,
        )
    )
    await site.daemon.scheduler.refresh([lane.split("|")[0]])


async def put(site, **words):
    """One message in the queue; its id."""
    return await accept(site.daemon.spool, b"hello\r\n", new_message(**words))


# overview


def lane(**words):
    return {"state": "open", "backlog": 0, "reason": None, "time_to_drain": 0, **words}


@pytest.mark.parametrize(
    ("lanes", "health", "kind", "words"),
    [
        ([lane()], {"ok": True}, "ok", "All is well"),
        ([lane(backlog=3, time_to_drain=6)], {"ok": True}, "ok", "flowing: 3 messages are on the way"),
        ([lane(backlog=9000, time_to_drain=18000)], {"ok": True}, "ok", "9,000 messages"),
        (
            [lane(state="slowed", backlog=2, reason="slow down")],
            {"ok": True},
            "warn",
            "delayed: 2 messages wait",
        ),
        ([lane(state="held", backlog=1)], {"ok": True}, "fail", "Mail is held: 1 message waits"),
        ([lane(state="held", backlog=1), lane()], {"ok": True}, "fail", "Mail of 1 mailbox is held"),
        (
            [lane()],
            {"ok": False, "reasons": ["the spool is full"]},
            "fail",
            "not accepted: the spool is full",
        ),
    ],
)
def test_one_sentence_says_whether_mail_flows(lanes, health, kind, words):
    said = sentence(lanes, health)
    assert said.kind == kind
    assert words in said.text


def test_the_chart_keeps_within_its_frame_and_says_its_figures():
    drawn = chart([0] * 57 + [45, 0, 15], 30)
    assert all(0 <= bar.y <= HEIGHT and bar.y + bar.height == pytest.approx(HEIGHT) for bar in drawn.bars)
    assert len(drawn.bars) == 2
    assert drawn.limit_y is not None
    assert "60 in all, at most 45 in a minute, limit 30" in drawn.words
    assert chart([0] * 60, 0).limit_y is None


async def test_overview_shows_a_hold_with_its_remedy_and_releases_it(site):
    await put(site)
    page = await site.get("/")
    text = plain(page.text)
    for words in (
        "Mail is held: 1 message waits",
        "SMTP AUTH is switched off",
        "535 5.7.139 no",
        "Set-CASMailbox",
    ):
        assert words in text
    answer = await site.post("/holds/release", {"scope": "lane", "key": LANE})
    assert answer.status == 303
    assert await site.daemon.spool.holds() == []
    assert "Its mail is tried now" in (await site.get("/")).text
    again = await site.post("/holds/release", {"scope": "lane", "key": LANE})
    assert again.status == 303
    assert "ended already" in (await site.get("/")).text


async def test_a_senders_hold_is_released_with_the_mail_it_keeps(site):
    key = f"{SCANS}|scans@contoso.com"
    await hold(site, SCANS, "lane")
    await hold(site, key, "sender")
    await site.post("/holds/release", {"scope": "sender", "key": key})
    assert [one.scope for one in await site.daemon.spool.holds()] == ["lane", "lane"]


async def test_overview_of_a_group_names_its_replicas_and_who_works_what(site, monkeypatch):
    """Any replica's page speaks for the whole group."""
    status = site.daemon.status
    replica = {"version": "2", "lanes": 1, "seen": "2026-01-01T00:00:00Z"}

    async def of_a_group():
        report = await status()
        lanes = [{**one, "replica": "pod-1"} for one in report["lanes"]]
        replicas = [
            {**replica, "name": "pod-0", "state": "working", "me": True, "differs": []},
            {**replica, "name": "pod-1", "state": "leaving", "me": False, "differs": ["senders"]},
        ]
        return {**report, "lanes": lanes, "replicas": replicas, "replica": "pod-0"}

    alone = plain((await site.get("/")).text)
    monkeypatch.setattr(site.daemon, "status", of_a_group)
    shown = plain((await site.get("/")).text)
    assert "worked by pod-1" in shown
    assert "Replica pod-0 this one 1 mailbox" in shown
    assert "Replica pod-1 leaving 1 mailbox" in shown
    assert "other configuration: senders" in shown
    assert "This relay, replica pod-0" in shown
    assert "Replica" not in alone and "worked by" not in alone


async def test_overview_counts_down_to_the_end_of_a_secret(site, monkeypatch):
    status = await site.daemon.status()
    row = {"upstream": "Microsoft 365", "kind": "client_secret", "expires": "2001-01-01T00:00:00Z"}
    more = {
        "days_left": 12,
        "slot": "second",
        "in_use": True,
        "error": "secret-expired: over",
        "remedy": "Make a new one.",
    }
    status["credentials"] = [row, {**row, "expires": "2099-01-01T00:00:00Z", **more}]
    status["transports"] = [
        {
            "upstream": "Microsoft 365",
            "transport": "graph",
            "configured": "auto",
            "why": "the token holds Mail.Send",
        }
    ]

    async def told():
        return status

    monkeypatch.setattr(site.daemon.pages, "status", told)
    text = plain((await site.get("/")).text)
    assert "expired 2001-01-01" in text
    assert "sends by Microsoft Graph the token holds Mail.Send" in text
    assert "client secret (second)" in text
    assert "What to do: Make a new one." in text


# queue


async def test_an_empty_queue_says_so(site):
    text = plain((await site.get("/queue")).text)
    assert "No mail is waiting." in text


async def test_pages_follow_one_another_without_loss_or_repetition(site):
    for number in range(PAGE + 7):
        await put(site, subject=f"order {number}")
    first = (await site.get("/queue")).text
    following = html.unescape(re.search(r'rel="next" href="([^"]+)"', first)[1])
    second = (await site.get(following)).text
    shown = re.findall(r">order (\d+)<", first + second)
    assert [int(one) for one in shown] == list(range(PAGE + 7))
    assert f"{PAGE + 7} messages, {PAGE} on this page" in plain(first)
    assert 'rel="next"' not in second


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("state=held", 2), ("state=queued", 0), ("state=nonsense", 2), ("sender=app@legacy.local", 1),
        ("sender=@legacy.local", 2), ("recipient=bob@example.net", 1), ("older=1h", 0), ("reason=switched off", 2),
        ("lane=notifications@contoso.com", 2), ("lane=scans@contoso.com", 0),
    ],
)  # fmt: skip
async def test_filters_mean_what_the_command_means(site, query, count):
    await put(site, subject="first order")
    await put(site, subject="other order", header_from=("erp@legacy.local",), recipients=("bob@example.net",),
              envelope=new_message(recipients=("bob@example.net",)).envelope.__class__(
                  "erp@legacy.local", new_message(recipients=("bob@example.net",)).envelope.recipients))  # fmt: skip
    page = await site.get(f"/queue?{quote(query, safe='=&@')}")
    assert page.status == 200
    assert len(re.findall(r'name="id" value=', page.text)) == count


async def test_an_age_that_is_none_is_said(site):
    page = await site.get("/queue?older=soon")
    assert page.status == 422
    assert "The age" in page.text


async def test_one_message_is_held_and_released_at_once(site):
    await site.daemon.spool.unhold("lane", LANE, site.daemon.clock.now())
    await hold(site, SCANS)
    name = await put(site, lane=SCANS)
    await site.daemon.spool.unhold("lane", SCANS, site.daemon.clock.now())
    answer = await site.post("/queue/act", {"verb": "hold", "id": name, "back": f"/queue/{name}"})
    assert (answer.status, answer.location) == (303, f"/queue/{name}")
    page = plain((await site.get(answer.location)).text)
    assert "1 message held" in page
    assert "held by an operator" in page
    await site.post("/queue/act", {"verb": "release", "id": name})
    view = (await site.daemon.spool.find(Filter(ids=(name,))))[0]
    assert view.reason != "held by an operator"


async def test_many_are_changed_only_after_a_confirmation_with_their_number(site):
    names = [await put(site, subject=f"order {number}") for number in range(3)]
    form = [("verb", "delete"), ("id", names[0]), ("id", names[1]), ("back", "/queue")]
    asked = await site.post("/queue/act", form)
    assert asked.status == 200
    assert "Delete: 2 messages?" in plain(asked.text)
    assert "gone for good" in asked.text
    assert (await site.daemon.spool.stats()).messages == 3
    await site.post("/queue/act", [*form, ("sure", "1")])
    assert [one.id for one in await site.daemon.spool.find(Filter())] == [names[2]]


async def test_all_that_match_can_be_meant_and_only_those(site):
    for number in range(3):
        await put(site, subject=f"order {number}")
    await put(site, recipients=("bob@example.net",))
    form = {"verb": "delete", "scope": "all", "recipient": "bob@example.net", "back": "/queue"}
    assert "Delete: 1 message?" in plain((await site.post("/queue/act", form)).text)
    await site.post("/queue/act", {**form, "sure": "1"})
    assert (await site.daemon.spool.stats()).messages == 3


async def test_one_deletion_asks_too_and_nothing_chosen_does_nothing(site):
    name = await put(site)
    assert "Delete: 1 message?" in plain((await site.post("/queue/act", {"verb": "delete", "id": name})).text)
    answer = await site.post("/queue/act", {"verb": "delete", "back": "/queue", "sure": "1"})
    assert answer.status == 303
    assert "Choose messages first" in (await site.get("/queue")).text
    assert (await site.post("/queue/act", {"verb": "explode", "id": name})).status == 400
    assert (await site.daemon.spool.stats()).messages == 1


async def test_what_a_page_costs_does_not_grow_with_the_queue(tmp_path, monkeypatch):
    """Counted in steps of SQLite's machine, not in time: with 100,000 queued a page reads what it shows, and little more."""
    from tests.web.client import Site

    site = Site(tmp_path)
    await asyncio.to_thread(crowd, site.config, 100_000, lane=LANE)
    await site.start()
    try:
        await hold(site)
        middle = (await site.daemon.spool.find(Filter(), limit=50_000))[-1].id
        spool = site.daemon.spool
        steps = [0]
        await spool._read(lambda c: c.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1000))
        lane_query = quote(LANE, safe="")
        for path in (
            "/",
            "/queue",
            f"/queue?after={middle}",
            f"/queue/{middle}",
            f"/queue?lane={lane_query}",
        ):
            steps[0] = 0
            page = await site.get(path)
            assert page.status == 200
            assert steps[0] <= 60, f"{path}: {steps[0]} thousand steps"
        assert "100,000 messages" in (await site.get("/queue")).text
        await site.daemon.spool.unhold("lane", LANE, site.daemon.clock.now())
        monkeypatch.setattr("relay.web.views.queue.PATIENCE", 0)
        for path, most in (("/queue?state=held", 5), ("/queue?lane=x/y", 5), ("/queue?reason=nothing", 200),
                           ("/queue?recipient=person99990@customer.example", 200),
                           ("/queue/find?text=person5@customer.example", 200)):  # fmt: skip
            steps[0] = 0
            page = await site.get(path)
            assert page.status == 200
            assert steps[0] <= most, f"{path}: {steps[0]} thousand steps"
        asked = await site.post("/queue/act", {"verb": "hold", "scope": "all", "sender": "@legacy.local"})
        assert f"Hold: at least {COUNTED:,} messages?" in plain(asked.text)
    finally:
        await site.stop()


@pytest.mark.parametrize(
    "path",
    ["/queue?recipient=person4999@customer.example", "/queue/find?text=person1@customer.example"],
)
async def test_a_search_through_a_long_queue_goes_on_where_it_stopped(tmp_path, monkeypatch, path):
    """What is rare is found, a part of the queue at a time, and nothing is left out between the parts."""
    from tests.web.client import Site

    monkeypatch.setattr("relay.web.views.queue.PATIENCE", 0)
    site = Site(tmp_path)
    await asyncio.to_thread(crowd, site.config, 5_000, lane=LANE)
    await site.start()
    try:
        page, parts = await site.get(path), 1
        while further := re.search(r'href="([^"]+)"[^>]*>Search further', page.text):
            assert "Order" not in page.text
            page, parts = await site.get(html.unescape(further[1])), parts + 1
        assert parts == 3
        assert page.text.count(">Order ") == 1
    finally:
        await site.stop()


# one message


async def test_one_message_shows_trace_recipients_and_header(site):
    name = await put(site, subject="Order 7", recipients=("anna@example.net", "bob@example.net"))
    text = plain((await site.get(f"/queue/{name}")).text)
    for words in (
        "Order 7",
        "anna@ example. net",
        "bob@ example. net",
        "accepted",
        "Subject: hello",
        "&lt;1@legacy.local&gt;",
    ):
        assert words in text


async def test_the_download_is_the_stored_octets_under_a_name_of_ours(site):
    name = await put(site, subject='../../evil".exe\r\nX: 1')
    answer = await site.get(f"/queue/{name}/message.eml")
    assert answer.body == b"From: app@legacy.local\r\nSubject: hello\r\n\r\nhello\r\n"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.eml"'
    assert answer.headers["Content-Type"] == "message/rfc822"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")


@pytest.mark.parametrize("name", ["0000000000000", "..%2f..%2fetc%2fpasswd", "x", "0" * 400])
async def test_a_message_that_is_none_is_not_there(site, name):
    assert (await site.get(f"/queue/{name}")).status == 404
    assert (await site.get(f"/queue/{name}/message.eml")).status in (404, 503)


async def test_search_finds_by_part_of_an_address_and_shows_what_it_was_asked(site):
    name = await put(site, recipients=("anna@example.net",))
    page = await site.get("/queue/find?text=anna@example")
    assert f"/queue/{name}" in page.text
    nothing = await site.get("/queue/find?text=" + quote(XSS))
    assert "Nothing is known of" in nothing.text
    assert "<script>alert" not in nothing.text


# text of mail is text


async def test_hostile_text_is_shown_as_text_on_every_page(site):
    """Subject, addresses, header, a server's reply, an event: never markup, never turned around."""
    await hold(site, evidence=f"550 {XSS}")
    name = await put(
        site, subject=XSS + "\u202egnp.exe", recipients=(f'"{XSS}"@example.net',), header_from=(XSS,), message_id=f"<{XSS}>",
        header=f"Subject: {XSS}\r\nX-File: {XSS}.pdf\r\n\r\n".encode(),
    )  # fmt: skip
    events.failed(id=name, lane=LANE, reason=XSS, recipients=1)
    for path in (
        "/",
        "/queue",
        f"/queue/{name}",
        "/queue/find?text=" + name,
        "/activity",
        "/activity?level=warning",
    ):
        page = (await site.get(path)).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert "\u202e" not in page, path
    page = (await site.get(f"/queue/{name}")).text
    assert "X-File: &lt;script&gt;" in page
    assert "\\u202egnp.exe" in page
    assert page.count("<script") == 1  # our own


# activity


async def test_activity_shows_the_last_events_newest_first_and_counts_deliveries(site):
    events.delivered(id="0000000000001", lane=LANE, recipients=1, reply="250 2.0.0 OK")
    events.failed(
        id="0000000000002", lane=LANE, reason="no such recipient", recipients=1, client_secret="hush"
    )
    page = (await site.get("/activity")).text
    assert page.index("no such recipient") < page.index("250 2.0.0 OK")
    warnings = (await site.get("/activity?level=warning")).text
    assert "no such recipient" in warnings
    assert "250 2.0.0 OK" not in warnings
    assert site.daemon.pages.rates(LANE)[-1] + site.daemon.pages.rates(LANE)[-2] == 1


async def test_tokens_in_events_never_reach_the_page(site):
    events.trouble(
        where="x", what="token eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln and client_secret=abc~123"
    )
    page = (await site.get("/activity")).text
    assert "eyJ" not in page
    assert "abc~123" not in page


async def test_live_parts_end_with_the_session_and_are_no_sign_of_life(site):
    live = await site.get("/activity", X_Relay_Live="1")
    assert live.status == 200
    assert "<html" not in live.text
    site.client.cookie_jar.clear()
    assert (await site.get("/activity", X_Relay_Live="1")).status == 401


# senders


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sender=a@scanners.local", "Rule 1 decides. Mail leaves from scans@contoso.com"),
        ("sender=erp@legacy.local&address=10.1.2.3", "Rule 2 decides."),
        (
            "sender=erp@legacy.local&address=192.168.1.1",
            "No rule matches erp@legacy.local , so the default applies",
        ),
    ],
)
async def test_the_box_asks_the_real_rules(site, query, words):
    assert words in plain((await site.get(f"/senders?{query}")).text)


async def test_rules_are_added_changed_moved_and_deleted_and_comments_stay(site):
    await site.post("/senders/2", {"match": "*@cameras.local", "from": "alerts@contoso.com"})
    assert len(site.daemon.settings.senders) == 3
    await site.post(
        "/senders/1", {"match": "erp@legacy.local", "client": "10.9.0.0/16", "from": "reports@contoso.com"}
    )
    assert str(site.daemon.settings.senders[1].network) == "10.9.0.0/16"
    await site.post("/senders/2/move", {"to": "up"})
    assert [str(one.match) for one in site.daemon.settings.senders] == [
        "*@scanners.local",
        "*@cameras.local",
        "erp@legacy.local",
    ]
    asked = await site.post("/senders/2/remove", {})
    assert "Delete rule 3, erp@legacy.local?" in plain(asked.text)
    assert len(site.daemon.settings.senders) == 3
    await site.post("/senders/2/remove", {"sure": "1"})
    assert len(site.daemon.settings.senders) == 2
    await site.post("/senders", {"default_sender": "reject"})
    assert site.daemon.settings.default_sender == "reject"
    refused = plain((await site.get("/senders?sender=x@y.example")).text)
    assert "is refused" in refused
    assert "550 5.7.1" in refused
    text = site.config.read_text()
    for comment in ("# by hand", "# so the guide", "# second floor"):
        assert comment in text


async def test_a_faulty_rule_changes_nothing_and_says_what_is_wrong_at_its_field(site):
    before = site.config.read_text()
    answer = await site.post("/senders/2", {"match": "no address", "from": "alerts@contoso.com"})
    assert answer.status == 422
    assert 'aria-invalid="true"' in answer.text
    assert 'value="no address"' in answer.text
    assert site.config.read_text() == before


# settings


EIGHT = {"server_name": "Microsoft 365", "port": "", "timeout": "", "batch_size": "medium",
         "from_email": "notifications@contoso.com", "client_id": "66666666-7777-4888-9999-aaaaaaaaaaaa",
         "client_secret": "", "tenant_id": "11111111-2222-4333-8444-555555555555"}  # fmt: skip


def judge(site, monkeypatch, status: Status):
    """Stand in for Microsoft: every check ends so; the upstreams that were tried."""
    tried = []

    async def check(upstream, progress, *, whole):
        tried.append(upstream)
        step = Step(
            "token-smtp",
            "Token for Exchange Online",
            5,
            status,
            "seen",
            "Copy the Value." if status == "fail" else "",
        )
        progress(step)
        return CheckReport((step,))

    monkeypatch.setattr(site.daemon.pages, "check", check)
    return tried


async def test_the_eight_fields_come_first_in_the_guides_order_and_words(site):
    page = (await site.get("/settings")).text
    labels = re.findall(r'<label for="f-[a-z_]+">([^<]+?) <span class="step">guide step (\d)</span>', page)
    assert labels[:8] == [
        ("Server Name", "7"), ("Port", "7"), ("Timeout", "7"), ("Batch Size", "7"), ("From Email", "7"),
        ("Client ID", "6"), ("Client Secret Token", "5"), ("Tenant ID", "6"),
    ]  # fmt: skip


async def test_save_stores_what_was_checked_and_keeps_the_rest_letter_by_letter(site, monkeypatch):
    tried = judge(site, monkeypatch, Status.OK)
    before = site.config.read_text()
    page = await site.saved(
        await site.post("/settings/upstream/0", {**EIGHT, "from_email": "scans@contoso.com"})
    )
    assert "Stored and in force" in page.text
    assert [one.from_email for one in tried] == ["scans@contoso.com"]
    assert site.config.read_text() == before.replace("from_email: notifications@", "from_email: scans@")
    assert site.daemon.settings.upstreams[0].from_email == "scans@contoso.com"


async def test_a_typed_secret_is_tried_and_goes_into_a_file_of_its_own(site, monkeypatch):
    tried = judge(site, monkeypatch, Status.OK)
    page = await site.saved(
        await site.post("/settings/upstream/0", {**EIGHT, "client_secret": "new~secret~value"})
    )
    assert "new~secret~value" not in page.text
    assert tried[0].credential.secret.reveal() == "new~secret~value"
    secret = site.folder / "client-secret"
    assert secret.read_text() == "new~secret~value"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "client_secret: file:client-secret" in site.config.read_text()
    assert "new~secret~value" not in site.config.read_text()
    assert site.daemon.settings.upstreams[0].credential.secret.reveal() == "new~secret~value"
    await site.saved(await site.post("/settings/upstream/0", {**EIGHT, "client_secret": "another~value"}))
    assert secret.read_text() == "another~value"  # the file that is named already, not one more


async def test_what_fails_the_check_changes_nothing_unless_one_insists(site, monkeypatch):
    judge(site, monkeypatch, Status.FAIL)
    before = site.config.read_text()
    answer = await site.post(
        "/settings/upstream/0", {**EIGHT, "client_secret": "wrong~value", "port": "2587"}
    )
    page = await site.saved(answer)
    text = plain(page.text)
    assert "Not stored: a step failed, and nothing was changed." in text
    assert "Copy the Value." in text
    assert site.config.read_text() == before
    assert not (site.folder / "client-secret").exists()
    form = await site.get(f"/settings?upstream=0&again={answer.location.rpartition('/')[2]}")
    assert 'value="2587"' in form.text  # what was typed is not lost, but for the secret
    assert "wrong~value" not in form.text
    await site.post(answer.location, {})
    assert "as you insisted" in (await site.get(answer.location)).text
    assert site.daemon.settings.upstreams[0].port == 2587
    assert site.daemon.settings.upstreams[0].credential.secret.reveal() == "wrong~value"


async def test_a_fault_is_said_at_its_field_before_anything_is_tried(site, monkeypatch):
    tried = judge(site, monkeypatch, Status.OK)
    before = site.config.read_text()
    same = EIGHT["tenant_id"]
    answer = await site.post("/settings/upstream/0", {**EIGHT, "client_id": same})
    assert answer.status == 422
    assert "Client ID is the same as tenant_id" in answer.text
    answer = await site.post("/settings/upstream/0", {**EIGHT, "limits.connections": "many"})
    assert answer.status == 422
    assert "<details open>" in answer.text
    assert (tried, site.config.read_text()) == ([], before)


async def test_nothing_changed_is_nothing_stored(site, monkeypatch):
    tried = judge(site, monkeypatch, Status.OK)
    answer = await site.post("/settings/upstream/0", EIGHT)
    assert answer.location == "/settings?upstream=0"
    assert tried == []


async def test_a_file_that_somebody_edits_meanwhile_is_not_overwritten(site, monkeypatch):
    async def check(upstream, progress, *, whole):
        site.config.write_text(site.config.read_text() + "postmaster: it@contoso.com\n")
        return CheckReport(())

    monkeypatch.setattr(site.daemon.pages, "check", check)
    page = await site.saved(await site.post("/settings/upstream/0", {**EIGHT, "port": "2587"}))
    assert "changed by somebody else meanwhile" in page.text
    assert "2587" not in site.config.read_text()


async def test_settings_that_cannot_be_put_in_force_are_taken_back(site, monkeypatch):
    """A new listener on a port that is taken: the old file is put back, and mail goes on."""
    before = site.config.read_text()
    port = site.url.rpartition(":")[2]
    page = await site.saved(await site.post("/settings/listener/1", {"bind": f"127.0.0.1:{port}"}))
    assert "the old ones were put back" in page.text
    assert site.config.read_text() == before
    assert len(site.daemon.settings.listeners) == 1


async def test_listeners_are_added_changed_and_removed(site):
    page = await site.saved(
        await site.post("/settings/listener/1", {"bind": "127.0.0.2:0", "allow": "10.0.0.0/8, ::1"})
    )
    assert "Stored and in force" in page.text
    assert [str(one) for one in site.daemon.settings.listeners[1].allow] == ["10.0.0.0/8", "::1/128"]
    await site.saved(await site.post("/settings/listener/1", {"bind": "127.0.0.2:0", "newlines": "tolerant"}))
    assert site.daemon.settings.listeners[1].newlines == "tolerant"
    assert "Remove the listener 127.0.0.2:0?" in plain(
        (await site.post("/settings/listener/1/remove", {})).text
    )
    await site.post("/settings/listener/1/remove", {"sure": "1"})
    assert len(site.daemon.settings.listeners) == 1


async def test_an_open_relay_cannot_be_stored(site):
    answer = await site.post("/settings/listener/1", {"bind": "0.0.0.0:2599"})
    assert answer.status == 422
    assert "open relay" in answer.text
    assert len(site.daemon.settings.listeners) == 1


async def test_check_tries_what_is_in_force_and_stores_nothing(site, monkeypatch):
    tried = judge(site, monkeypatch, Status.OK)
    before = site.config.read_text()
    page = await site.saved(await site.post("/settings/upstream/0/check", {}))
    assert "Everything works." in page.text
    assert tried == [site.daemon.settings.upstreams[0]]
    assert all(
        one.next_probe <= site.daemon.clock.now() for one in site.daemon.scheduler.holds.all()
    )  # held mail is tried
    assert site.config.read_text() == before


async def test_check_tries_every_mailbox_that_the_rules_use_and_save_the_first_alone(site, monkeypatch):
    """A mailbox that is switched off elsewhere must not keep a right secret from being stored."""
    tried: list[list[str]] = []

    async def check(upstream, *, mailboxes, progress):
        tried.append(list(mailboxes))
        return CheckReport(())

    monkeypatch.setattr("relay.check.engine.check_upstream", check)
    await site.saved(await site.post("/settings/upstream/0/check", {}))
    await site.saved(await site.post("/settings/upstream/0", {**EIGHT, "timeout": "60"}))
    assert tried == [["notifications@contoso.com", "scans@contoso.com", "reports@contoso.com"], []]


async def test_a_field_that_the_environment_decides_says_so_and_is_locked(site, monkeypatch):
    import dataclasses

    settings = site.daemon.settings
    site.daemon.settings = dataclasses.replace(settings, variables=(("upstreams[0].port", "RELAY_PORT"),))
    page = (await site.get("/settings")).text
    assert "Set by the environment variable RELAY_PORT" in page
    assert re.search(r'id="f-port"[^>]* disabled', page)


async def test_a_relay_without_a_file_shows_its_settings_and_says_where_to_change_them(site):
    import dataclasses

    site.daemon.settings = dataclasses.replace(site.daemon.settings, file=None, source="environment")
    page = (await site.get("/settings")).text
    assert "environment variables alone" in page
    assert 'value="notifications@contoso.com"' in page
    answer = await site.post("/settings/upstream/0", {**EIGHT, "port": "2587"})
    assert answer.status == 422


async def test_a_secret_that_the_environment_would_override_is_not_stored(site, monkeypatch):
    """The file named the variable; with a file of its own, the variable would win silently."""
    tried = judge(site, monkeypatch, Status.OK)
    monkeypatch.setenv("RELAY_CLIENT_SECRET", "the-old-one")
    before = site.config.read_text().replace("a-secret-nobody-may-see", "env:RELAY_CLIENT_SECRET")
    site.config.write_text(before)
    answer = await site.post("/settings/upstream/0", {**EIGHT, "client_secret": "new~secret~value"})
    assert answer.status == 422
    assert "the environment variable RELAY_CLIENT_SECRET is set and overrides it" in answer.text
    assert (tried, site.config.read_text()) == ([], before)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("authority", "https://evil.example"),
        ("proxy", "http://evil.example:1"),
        ("host", "evil.example"),
        ("graph_url", "https://evil.example"),
    ],
)
async def test_the_stored_secret_is_not_sent_elsewhere_by_who_does_not_know_it(site, monkeypatch, key, value):
    tried = judge(site, monkeypatch, Status.OK)
    answer = await site.post("/settings/upstream/0", {**EIGHT, key: value})
    assert answer.status == 422
    assert "has to be typed again" in answer.text
    for name in ("file:client-secret", "env:RELAY_CLIENT_SECRET"):  # says where it is, not that one knows it
        answer = await site.post("/settings/upstream/0", {**EIGHT, key: value, "client_secret": name})
        assert answer.status == 422
        answer = await site.post("/settings/upstream/0", {**EIGHT, "client_secret": name})
        assert "only where the sign-in server is Microsoft" in html.unescape(answer.text)
    assert tried == []
    await site.saved(
        await site.post("/settings/upstream/0", {**EIGHT, key: value, "client_secret": "known~value"})
    )
    assert tried[0].credential.secret.reveal() == "known~value"


async def test_one_save_at_a_time(site, monkeypatch):
    """Microsoft is not asked twice at once by an impatient finger."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def check(upstream, progress, *, whole):
        begun.set()
        await go_on.wait()
        return CheckReport(())

    monkeypatch.setattr(site.daemon.pages, "check", check)
    first = await site.post("/settings/upstream/0/check", {})
    await begun.wait()
    second = await site.post("/settings/upstream/0/check", {})
    assert second.status == 503
    assert "still at work" in second.text
    go_on.set()
    assert "Everything works." in (await site.saved(first)).text
