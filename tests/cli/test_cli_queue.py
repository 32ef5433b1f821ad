"""`relay queue` lists and steers what is not finished, with the daemon running or stopped, and never by accident."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from relay.message import Outcome, Result, Scope
from relay.spool.contract import Hold, Settlement
from tests.cli.kit import LANE, OTHER_LANE, Bench, daemon, put

SHAPE = {
    "id", "received", "state", "client", "sender", "mailbox", "lane", "message_id", "subject", "size", "attempts",
    "next_attempt", "reason", "remedy", "recipients",
}  # fmt: skip
HOLD = Hold("lane", LANE, "send-as-denied", "Send As is denied.", "Grant it.", "5.7.60", since=0.0)


def test_list_has_the_shape_that_scripts_rely_on(bench: Bench) -> None:
    """`queue list --json` prints every field of the contract, oldest message first."""
    first = bench.add(to=("ann@example.com", "bob@example.com"))
    second = bench.add(subject="Later")
    listed = bench.json("queue", "list")
    assert [one["id"] for one in listed] == [first, second]
    assert set(listed[0]) >= SHAPE
    assert listed[0]["state"] == "queued"
    assert listed[0]["mailbox"] == "notifications@contoso.com"
    assert listed[0]["received"].endswith("Z")
    assert listed[0]["recipients"][0] == {
        "address": "ann@example.com",
        "state": "queued",
        "code": 0,
        "text": "",
    }


def test_list_of_nothing_is_an_empty_array(bench: Bench) -> None:
    """An empty queue is `[]` for scripts, and a sentence on standard error for people."""
    assert bench.json("queue", "list") == []
    result = bench.run("queue", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No message" in result.stderr


def test_list_takes_filters(bench: Bench) -> None:
    """State, lane (or mailbox), sender, recipient, age and reason narrow the list; all of them must hold."""
    scan = bench.add(sender="scanner@scanners.local", lane=OTHER_LANE, to=("cat@example.com",))
    order = bench.add()
    bench.attempt(OTHER_LANE, Result.DEFERRED, 451, "Temporary server error")

    def ids(*words: str) -> list[str]:
        return [one["id"] for one in bench.json("queue", "list", *words)]

    assert ids("--state", "deferred") == [scan]
    assert ids("--lane", "scans@contoso.com") == ids("--lane", OTHER_LANE) == [scan]
    assert ids("--sender", "erp@legacy.local") == [order]
    assert ids("--recipient", "cat@example.com") == [scan]
    assert ids("--reason", "temporary server") == [scan]
    assert ids("--older-than", "1h") == []
    assert ids("--state", "queued", "--lane", OTHER_LANE) == []


def test_list_pages_through_long_queues(bench: Bench, monkeypatch) -> None:
    """More messages than one page holds are all listed, each once."""
    monkeypatch.setattr("relay.cli.spooled.PAGE", 2)

    async def fill(spool) -> list[str]:
        return [await put(spool, subject=str(number)) for number in range(5)]

    made = bench.with_spool(fill)
    assert [one["id"] for one in bench.json("queue", "list")] == made
    assert [one["id"] for one in bench.json("queue", "list", "--limit", "3")] == made[:3]


def test_terminal_is_not_steered_by_mail(bench: Bench) -> None:
    """Control characters and right-to-left overrides in a subject are shown escaped."""
    name = bench.add(subject="\x1b]0;owned\x07 \x1b[2J\u202egpj.exe")
    for words in (("queue", "list"), ("queue", "show", name), ("trace", name)):
        shown = bench.run(*words).stdout
        assert "\\x1b]0;owned\\x07" in shown.replace("\n", "")
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_markup_in_a_subject_is_text(bench: Bench) -> None:
    """Square brackets of a subject are not taken for colours."""
    bench.add(subject="[red]alarm[/red]")
    assert "[red]alarm[/red]" in bench.run("queue", "list").stdout


def test_show_knows_finished_messages_and_misses_unknown_ones(bench: Bench) -> None:
    """`queue show` prints each recipient; an id that does not exist is named and makes the status 1."""
    name = bench.add()
    bench.attempt(LANE, Result.SENT, 250, "OK")
    assert bench.json("queue", "show", name.lower())[0]["state"] == "sent"
    result = bench.run("queue", "show", name, "0000000000000")
    assert result.exit_code == 1
    assert "ann@example.com" in result.stdout
    assert "no message 0000000000000" in result.stderr


def test_verbs_act_on_ids_without_a_question(bench: Bench) -> None:
    """hold and release by id change the message and print what they did."""
    name = bench.add()
    assert bench.json("queue", "hold", name) == {"matched": 1, "changed": 1}
    assert bench.json("queue", "list")[0]["state"] == "held"
    assert bench.json("queue", "release", name) == {"matched": 1, "changed": 1}
    assert bench.json("queue", "list")[0]["state"] == "queued"


def test_release_of_a_lane_ends_its_hold(bench: Bench) -> None:
    """By a filter, release ends the hold of the lanes it names, and says which are tried again."""
    bench.add()
    hold = Hold("lane", LANE, "send-as-denied", "Send As is denied.", "Grant it.", "5.7.60", since=0.0)
    bench.with_spool(lambda spool: spool.hold(hold))
    (message,) = bench.json("queue", "list")
    assert (message["state"], message["reason"], message["remedy"]) == (
        "held",
        "Send As is denied.",
        "Grant it.",
    )
    result = bench.run("queue", "release", "--lane", "notifications@contoso.com")
    assert result.exit_code == 0
    assert f"Tried again: {LANE}" in result.stderr
    assert bench.json("queue", "list")[0]["state"] == "queued"


def test_retry_makes_a_deferred_message_due(bench: Bench) -> None:
    """retry brings the next attempt forward."""
    name = bench.add()
    bench.attempt(LANE, Result.DEFERRED, 451, "later")
    before = bench.json("queue", "show", name)[0]["next_attempt"]
    assert bench.json("queue", "retry", name) == {"matched": 1, "changed": 1}
    assert bench.json("queue", "show", name)[0]["next_attempt"] < before


def test_a_verb_needs_to_know_what_to_act_on(bench: Bench) -> None:
    """Neither ids nor a filter nor --all: wrong usage, and nothing happens."""
    bench.add()
    result = bench.run("queue", "delete", "--yes")
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert len(bench.json("queue", "list")) == 1


def test_many_messages_need_a_yes(bench: Bench) -> None:
    """Without a terminal to ask and without --yes, a filter that matches many does nothing and exits 2."""
    bench.add()
    bench.add()
    result = bench.run("queue", "delete", "--all")
    assert result.exit_code == 2
    assert "2 messages" in result.stderr
    assert "--yes" in result.stderr
    assert len(bench.json("queue", "list")) == 2
    assert bench.json("queue", "delete", "--all", "--yes") == {"matched": 2, "changed": 2}
    assert bench.json("queue", "list") == []


def test_a_person_is_asked(bench: Bench, monkeypatch) -> None:
    """On a terminal the question is put on standard error; no means nothing happens and status 1."""
    bench.add()
    bench.add()
    monkeypatch.setattr("relay.cli.queue._has_person", lambda: True)
    refused = bench.run("queue", "delete", "--all", stdin="n\n")
    assert refused.exit_code == 1
    assert "delete 2 messages?" in refused.stderr
    assert len(bench.json("queue", "list")) == 2
    assert bench.run("queue", "delete", "--all", stdin="y\n").exit_code == 0
    assert bench.json("queue", "list") == []


def test_unknown_ids_and_states_are_said(bench: Bench) -> None:
    """An id that is not there makes the status 1; a state that does not exist is wrong usage."""
    assert bench.run("queue", "hold", "0000000000000").exit_code == 1
    wrong = bench.run("queue", "list", "--state", "sleeping")
    assert wrong.exit_code == 2
    assert "queued, active, deferred, held" in wrong.stderr
    assert bench.run("queue", "list", "--older-than", "soon").exit_code == 2


def test_a_running_daemon_is_woken(bench: Bench) -> None:
    """After a verb the daemon hears which lanes have work."""
    name = bench.add(lane=OTHER_LANE)
    with daemon(bench.settings, {"wake": {}}) as asked:
        assert bench.run("queue", "retry", name).exit_code == 0
    assert asked == [("wake", {"lanes": [OTHER_LANE]})]


def test_export_writes_what_was_stored(bench: Bench, tmp_path: Path) -> None:
    """Files are named by id alone, readable by their owner alone, and hold the very octets."""
    body = b"\x00\xff..\r\n" * 100_000
    name = bench.add(body=body, message_id="<../../etc/passwd@legacy.local>")
    bench.add()
    to = tmp_path / "out" / "deep"
    assert bench.json("queue", "export", "--all", "--to", str(to)) == {"matched": 2, "changed": 2}
    file = to / f"{name}.eml"
    assert sorted(path.suffix for path in to.iterdir()) == [".eml", ".eml"]
    assert file.read_bytes().endswith(b"\r\n\r\n" + body)
    assert file.stat().st_mode & 0o077 == 0
    assert len(bench.json("queue", "list")) == 2


def test_export_to_standard_output(bench: Bench) -> None:
    """--stdout writes one message as it is; two are wrong usage, an unknown one fails."""
    name, other = bench.add(body=b"caf\xe9\r\n"), bench.add()
    assert bench.run("queue", "export", name, "--stdout").stdout_bytes.endswith(b"\r\n\r\ncaf\xe9\r\n")
    assert bench.run("queue", "export", name, other, "--stdout").exit_code == 2
    assert bench.run("queue", "export", "0000000000000", "--stdout").exit_code == 1


def test_export_that_cannot_be_written_fails_plainly(bench: Bench, tmp_path: Path) -> None:
    """A directory that cannot be made is said in one line; no traceback."""
    name = bench.add()
    (tmp_path / "file").write_text("")
    result = bench.run("queue", "export", name, "--to", str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert "cannot make" in result.stderr
    assert "Traceback" not in result.stderr


def test_trace_tells_finished_mail(bench: Bench) -> None:
    """`trace` finds by id, Message-ID, sender and recipient, and tells what happened in order."""
    name = bench.add()
    bench.attempt(LANE, Result.SENT, 250, "2.0.0 OK")
    for text in (name, "4711@legacy.local", "erp@legacy.local", "ann@example.com"):
        found = bench.json("trace", text)
        assert [one["id"] for one in found] == [name]
    assert found[0]["state"] == "sent"
    assert found[0]["events"][0]["event"] == "accepted"
    assert all(set(event) >= {"time", "event"} for event in found[0]["events"])
    assert "accepted" in bench.run("trace", name).stdout


def test_trace_of_nothing(bench: Bench) -> None:
    """A search that finds nothing is no failure: `[]`, and a sentence for people."""
    assert bench.json("trace", "nobody@example.com") == []
    result = bench.run("trace", "nobody\x1b@example.com")
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.dumps(result.stderr).count("\\u001b") == 0


@pytest.mark.parametrize(
    "option", ["--sender", "--recipient", "--lane", "--reason", "--state", "--older-than"]
)
@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("verb", ["list", "delete", "hold", "release", "retry", "export"])
def test_an_empty_filter_is_wrong_usage(bench: Bench, verb: str, option: str, value: str) -> None:
    """A script's variable that was never set does not mean every message."""
    yes = [] if verb in ("list", "export") else ["--yes"]
    result = bench.run("queue", verb, option, value, *yes)
    assert result.exit_code == 2
    assert f"{option} is empty" in result.stderr


def test_what_list_shows_is_what_delete_deletes(bench: Bench) -> None:
    """An address means that address, @domain the domain, anything else a part: alike for every verb."""
    anna, susanna = bench.add(to=("anna@example.com",)), bench.add(to=("susanna@example.com",))
    other = bench.add(to=("anna@example.com.evil.example",))
    for text, meant in (
        ("Anna@Example.com", [anna]),
        ("@example.com", [anna, susanna]),
        ("anna", [anna, susanna, other]),
        ("null", []),
    ):
        assert [one["id"] for one in bench.json("queue", "list", "--recipient", text)] == meant
    assert bench.json("queue", "delete", "--recipient", "anna@example.com", "--yes") == {
        "matched": 1,
        "changed": 1,
    }
    assert [one["id"] for one in bench.json("queue", "list")] == [susanna, other]


def test_delete_by_sender_does_not_read_what_is_no_address(bench: Bench) -> None:
    """`null`, `false` and the listener's address stand in the spool's details, and are no sender."""
    bench.add()
    for text in ("null", "false", "127.0.0.1"):
        assert bench.json("queue", "delete", "--sender", text, "--yes") == {"matched": 0, "changed": 0}
    assert len(bench.json("queue", "list")) == 1


@pytest.mark.parametrize("verb", ["release", "retry"])
def test_a_running_daemon_hears_even_when_the_spool_did_not_change(bench: Bench, verb: str) -> None:
    """A hold may be known to the daemon alone; it is told of the lanes that were meant."""
    name = bench.add()
    bench.add(lane=OTHER_LANE)
    with daemon(bench.settings, {"wake": {}}) as asked:
        assert bench.run("queue", verb, "--lane", "Notifications@contoso.com", "--yes").exit_code == 0
        assert bench.run("queue", verb, name).exit_code == 0
        assert bench.run("queue", verb, "--all", "--yes").exit_code == 0
        assert bench.run("queue", verb, "--lane", "nobody@contoso.com").exit_code == 0
    assert asked == [
        ("wake", {"lanes": [LANE]}),
        ("wake", {"lanes": [LANE]}),
        ("wake", {"lanes": [LANE, OTHER_LANE]}),
        ("wake", {"lanes": []}),
    ]


def test_a_verb_that_changed_nothing_wakes_nobody(bench: Bench) -> None:
    """Holding what is held already is no news for the daemon."""
    name = bench.add()
    assert bench.json("queue", "hold", name) == {"matched": 1, "changed": 1}
    with daemon(bench.settings, {"wake": {}}) as asked:
        result = bench.run("queue", "hold", name)
    assert asked == []
    assert "Held already: 1." in result.stderr


def test_release_counts_the_mail_of_a_held_lane(bench: Bench) -> None:
    """What a lane's hold kept is matched and changed when the hold ends."""
    bench.add()
    bench.add()
    bench.with_spool(lambda spool: spool.hold(HOLD))
    assert bench.json("queue", "release", "--lane", "notifications@contoso.com", "--yes") == {
        "matched": 2,
        "changed": 2,
    }


@pytest.mark.parametrize(
    ("hold", "keeper"),
    [
        (HOLD, f"lane {LANE}"),
        (dataclasses.replace(HOLD, scope="upstream", key="Microsoft 365"), "upstream Microsoft 365"),
    ],
)
@pytest.mark.parametrize("verb", ["release", "retry"])
def test_release_by_id_names_the_hold_that_keeps_it(bench: Bench, verb: str, hold: Hold, keeper: str) -> None:
    """It says which hold it is, why, and the very command that ends it; nothing about a submission."""
    name = bench.add()
    bench.with_spool(lambda spool: spool.hold(hold))
    result = bench.run("queue", verb, name)
    assert f"Kept by the hold of {keeper}: {name}." in result.stderr
    assert "Send As is denied." in result.stderr
    assert f"relay queue release --lane '{LANE}'" in result.stderr
    assert "submitted" not in result.stderr
    assert bench.run("queue", "release", "--lane", LANE).exit_code == 0
    assert bench.json("queue", "list")[0]["state"] == "queued"


def test_release_by_id_names_the_hold_of_its_sender(bench: Bench) -> None:
    """A message that goes back to the queue while its sender is held would be held again at once."""
    name = bench.add()
    hold = dataclasses.replace(HOLD, scope="sender", key=f"{LANE}|erp@contoso.com")

    async def keep(spool) -> None:
        await spool.hold(hold)
        (claim,) = await spool.claim(LANE, 1, 4e9)
        outcome = Outcome(Result.HELD, Scope.SENDER, None, hold.reason, hold.remedy)
        outcomes = {"ann@example.com": outcome}
        await spool.settle(Settlement(claim.id, outcomes, hold_key=hold.key, counts=False), 4e9)

    bench.with_spool(keep)
    result = bench.run("queue", "release", name)
    assert "1 matched, 1 changed" in result.stderr
    assert f"Kept by the hold of sender {LANE}|erp@contoso.com: {name}." in result.stderr


def test_release_of_what_is_not_held_says_so(bench: Bench) -> None:
    """Neither a hold nor a submission is made up."""
    name = bench.add()
    result = bench.run("queue", "release", name)
    assert (result.exit_code, "1 matched, 0 changed" in result.stderr) == (0, True)
    assert f"Not held, but queued: {name}." in result.stderr
    assert "submitted" not in result.stderr
    assert "Not held: 1." in bench.run("queue", "release", "--all").stderr


@pytest.mark.parametrize("verb", ["retry", "hold", "delete"])
@pytest.mark.parametrize("by_id", [True, False])
def test_only_a_running_daemon_submits(bench: Bench, verb: str, by_id: bool) -> None:
    """`being submitted` is said of active messages, and only while a daemon answers."""
    name = bench.add()
    bench.with_spool(lambda spool: spool.claim(LANE, 1, 4e9))
    words = ("queue", verb, *([name] if by_id else ["--all"]))
    stopped = bench.run(*words)
    assert "1 matched, 0 changed" in stopped.stderr
    if verb == "retry":
        with daemon(bench.settings, {"wake": {}}):
            assert "Being submitted at this moment: 1." in bench.run(*words).stderr
    assert "at this moment" not in stopped.stderr
    assert "when the relay stopped: 1" in stopped.stderr


def test_a_finished_message_is_called_finished(bench: Bench) -> None:
    """Delete and retry of what was sent say so, and delete exits 1."""
    name = bench.add()
    bench.attempt(LANE, Result.SENT, 250, "OK")
    gone = bench.run("queue", "delete", name)
    assert gone.exit_code == 1
    assert f"{name} is finished: sent." in gone.stderr
    assert f"{name} is finished: sent." in bench.run("queue", "retry", name).stderr


def test_people_see_a_hundred_and_how_many_more(bench: Bench, monkeypatch) -> None:
    """A long queue does not scroll by; --limit 0 shows all, and scripts get all without asking."""
    monkeypatch.setattr("relay.cli.queue.LISTED", 3)

    async def fill(spool) -> list[str]:
        return [await put(spool, subject=f"n{number}") for number in range(7)]

    made = bench.with_spool(fill)
    for words in ((), ("--sender", "erp@legacy.local")):
        short = bench.run("queue", "list", *words)
        assert [name in short.stdout for name in made] == [True] * 3 + [False] * 4
        assert "the oldest 3; 4 more" in short.stderr
        whole = bench.run("queue", "list", "--limit", "0", *words)
        assert all(name in whole.stdout for name in made)
        assert whole.stderr == ""
    assert "more" not in bench.run("queue", "list", "--limit", "7").stderr
    assert len(bench.json("queue", "list")) == len(bench.json("queue", "list", "--limit", "0")) == 7


def test_a_very_long_rest_is_not_counted_to_its_end(bench: Bench, monkeypatch) -> None:
    """With a filter the rest is counted up to a bound."""
    monkeypatch.setattr("relay.cli.queue.COUNTED", 2)

    async def fill(spool) -> None:
        for _ in range(5):
            await put(spool)

    bench.with_spool(fill)
    result = bench.run("queue", "list", "--limit", "1", "--sender", "erp@legacy.local")
    assert "the oldest 1; at least 2 more" in result.stderr


def test_trace_looks_among_addresses_and_ids_alone(bench: Bench) -> None:
    """Words of the spool's own bookkeeping find nothing; an empty text is wrong usage."""
    bench.add()
    for text in ("null", "false", "127.0.0.1", "Order"):
        assert bench.json("trace", text) == []
    assert bench.run("trace", " ").exit_code == 2
