"""relay beside other ways into Microsoft 365, each against the simulator: what becomes of mail when things go wrong.

Nothing here is a race: each trial tells what the sending program heard, what arrived, and what is still kept. Every way is set
up as its own documents say (`benchmarks.others`). `docs/comparison.md` is made of the JSON.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.others import MAILBOX, WAYS, Way

Facts = dict[str, Any]
SETTLE = 20.0
"""Seconds that a way gets after something was mended, before it is judged: all but a queue's long waits."""
BURST = 60
"""Messages at once: twice what a mailbox may send in a minute."""


class Stage:
    """One simulated Microsoft 365 and one way in front of it."""

    def __init__(self, folder: Path, kind: type[Way], simulator: Facts) -> None:
        self.control = str(simulator["control"])
        self.way = kind(folder, simulator)

    def ask(self, path: str, body: Any = None, method: str = "GET") -> Any:
        """One request to the simulator's control address."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.control}/{path}", data, method=method), timeout=60
        ) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def change(self, **state: Any) -> None:
        """What an administrator or an outage changes."""
        self.ask("state", state, "PATCH")

    def count(self, what: str) -> int:
        """One of the simulator's counters."""
        return int(self.ask("counters").get(what, 0))

    def arrived(self) -> int:
        """Messages that Exchange has accepted."""
        return len(self.ask("messages"))

    def wait_for(self, count: int, seconds: float) -> int:
        """Until so many have arrived, or the time is over; how many have."""
        deadline = time.monotonic() + seconds
        while (seen := self.arrived()) < count and time.monotonic() < deadline:
            time.sleep(0.2)
        return seen


def letter(number: int = 1, sender: str = MAILBOX, size: int = 0) -> EmailMessage:
    """A message, with an attachment of ``size`` octets when that is not 0."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "anna@example.net", f"number {number}"
    message["Message-ID"] = f"<{number}.{time.monotonic_ns()}@legacy.local>"
    message.set_content("Hello.\n")
    if size:
        message.add_attachment(
            b"x" * size, maintype="application", subtype="octet-stream", filename="scan.pdf"
        )
    return message


# the trials


def foreign_sender(stage: Stage) -> Facts:
    """An application sends under an address that is no mailbox."""
    told = stage.way.submit(letter(sender="erp@legacy.local"))
    stage.wait_for(1, SETTLE)
    seen = [one["header_from"] for one in stage.ask("messages")]
    return {"told": told, "arrived": len(seen), "from": seen[0] if seen else "", "kept": stage.way.waiting()}


def idle_memory(stage: Stage) -> Facts:
    """After one message, at rest."""
    stage.way.submit(letter())
    stage.wait_for(1, SETTLE)
    time.sleep(3)
    return {"processes": len(stage.way.pids()), "MB": _megabytes(stage, "smaps_rollup", "Pss")}


def wrong_secret(stage: Stage) -> Facts:
    """The secret is expired when the mail comes; then it is mended."""
    stage.change(secret_expired=True)
    told = stage.way.submit(letter(), timeout=90)
    time.sleep(5)
    kept = stage.way.waiting()
    stage.change(secret_expired=False)
    began = time.monotonic()
    arrived = stage.wait_for(1, 90 if kept else 5)
    return {
        "told": told,
        "kept": kept,
        "arrived": arrived,
        "seconds": round(time.monotonic() - began) if arrived else None,
    }


def switched_off(stage: Stage) -> Facts:
    """SMTP AUTH is switched off for the mailbox (535 5.7.139) while three messages come; logins that this provokes."""
    stage.change(smtp_auth_disabled_mailboxes=[MAILBOX])
    told = [stage.way.submit(letter(number)) for number in (1, 2, 3)]
    time.sleep(SETTLE)
    failures = stage.count("auth_failures")
    return {"told": sorted(set(told)), "kept": stage.way.waiting(), "refused logins": failures}


def send_as_denied(stage: Stage) -> Facts:
    """Exchange says SendAsDenied once, an administrator's mistake; the next try would work."""
    refusal = "end-of-data:reply:554 5.2.252 SendAsDenied; not allowed to send as;times=1"
    stage.ask("faults", refusal, "POST")
    told = stage.way.submit(letter())
    time.sleep(SETTLE)
    subjects = [one["subject"] for one in stage.ask("messages")]
    returned = sum("number" not in str(subject) for subject in subjects)
    return {
        "told": told,
        "arrived": len(subjects) - returned,
        "kept": stage.way.waiting(),
        "notices of failure": returned,
    }


def killed(stage: Stage) -> Facts:
    """Exchange is away, three messages are handed over, everything is killed (-9), Exchange comes back, it is started again."""
    stage.way.submit(letter(0))
    stage.wait_for(1, SETTLE)
    stage.change(exchange_down=True)
    told = [stage.way.submit(letter(number), timeout=90) for number in (1, 2, 3)]
    stage.way.kill()
    stage.change(exchange_down=False)
    time.sleep(1)
    stage.way.start()
    arrived = stage.wait_for(4, SETTLE * 3) - 1
    return {
        "told": sorted(set(told)),
        "taken": told.count("250"),
        "arrived": arrived,
        "kept": stage.way.waiting(),
    }


def burst(stage: Stage) -> Facts:
    """Twice what a mailbox may send in a minute, at once, over five connections; 130 seconds later."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        told = list(pool.map(lambda number: stage.way.submit(letter(number), 120), range(BURST)))
    arrived = stage.wait_for(BURST, 130 - (time.monotonic() - began))
    return {
        "taken": told.count("250"), "arrived": arrived, "kept": stage.way.waiting(),
        "refused by Exchange": stage.count("refused"), "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def large(stage: Stage) -> Facts:
    """A message of 25 MB."""
    began = time.monotonic()
    told = stage.way.submit(letter(size=25 * 1024 * 1024 * 3 // 4), timeout=120)
    arrived = stage.wait_for(1, 60)
    took = round(time.monotonic() - began, 1)
    return {
        "told": told,
        "arrived": arrived,
        "seconds": took,
        "peak MB": _megabytes(stage, "status", "VmHWM"),
    }


TRIALS: dict[str, tuple[Callable[[Stage], Facts], tuple[str, ...]]] = {
    "foreign sender": (foreign_sender, ()),
    "idle memory": (idle_memory, ()),
    "wrong secret": (wrong_secret, ()),
    "SMTP AUTH switched off": (switched_off, ()),
    "Send As denied once": (send_as_denied, ()),
    "killed with mail in hand": (killed, ()),
    "60 messages at once": (burst, ()),
    "25 MB": (large, ()),
}
"""Name -> the trial, and options of the simulator."""


def _megabytes(stage: Stage, file: str, what: str) -> int:
    """Of all processes of a way; Pss: shared pages divided among those who share them."""
    return round(sum(_kilobytes(pid, file, what) for pid in stage.way.pids()) / 1024)


def _kilobytes(pid: int, file: str, what: str) -> int:
    """One line of the kernel's figures about a process; 0 when it is gone."""
    try:
        found = re.search(rf"^{what}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _try(folder: Path, kind: type[Way], name: str) -> Facts:
    trial, options = TRIALS[name]
    with kit.simulator(folder / "simulator", *options, keep=True) as simulator:
        stage = Stage(folder / "way", kind, simulator)
        stage.way.start()
        try:
            return {"version": stage.way.version, **trial(stage)}
        finally:
            stage.way.stop()


def _told(kind: type[Way], trial: str) -> Facts:
    with kit.workshop() as folder:
        facts = _try(folder, kind, trial)
    print(f"{trial:<26} {kind.name:<30} {json.dumps(facts)}", flush=True)
    return facts


def _store(out: Path, missing: dict[str, str], found: dict[str, dict[str, Facts]]) -> None:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"day": day, "missing": missing, "trials": found}, indent=1) + "\n")


def main() -> int:
    """Every trial with every way that is installed; 1 when one is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(TRIALS), help="a trial (repeatable)")
    parser.add_argument(
        "--out", type=Path, default=kit.RESULTS / "alternatives.json", help="where the JSON goes"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missing = {kind.name: why for kind in WAYS if (why := kind.missing())}
    before = json.loads(options.out.read_text())["trials"] if options.out.exists() else {}
    found: dict[str, dict[str, Facts]] = before if options.only else {}
    for trial in options.only or TRIALS:
        found[trial] = {kind.name: _told(kind, trial) for kind in WAYS if kind.name not in missing}
        _store(options.out, missing, found)
    for name, why in missing.items():
        print(f"not tried: {name}: {why}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
