"""docs/comparison.md says of the other ways what was recorded when they were tried, and nothing rounder."""

from __future__ import annotations

import json
import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text()
TRIALS = json.loads((ROOT / "benchmarks" / "results" / "alternatives.json").read_text())["trials"]
WAYS = ("relay", "Postfix + email-oauth2-proxy", "email-oauth2-proxy", "msmtp")
"""The columns, in the page's order."""


def row(start: str) -> dict[str, str]:
    """The cells of one row of the table, by way."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {start}")]
    return dict(zip(WAYS, [cell.strip() for cell in line.strip("|").split("|")[1:]], strict=True))


def test_the_versions_are_those_that_were_tried() -> None:
    """As each program told them."""
    for trial in TRIALS.values():
        for facts in trial.values():
            for version in facts["version"].split(" + "):
                assert version in PAGE


def test_what_was_kept_and_what_was_refused() -> None:
    """A cell that begins with 250 is of a way that took the mail; the number of refused logins is what Exchange counted."""
    starts = {
        "An application sends": "foreign sender", "The secret has": "wrong secret", "SMTP AUTH is": "SMTP AUTH switched off",
        "Exchange answers": "Send As denied once",
    }  # fmt: skip
    for start, trial in starts.items():
        for way, cell in row(start).items():
            told = TRIALS[trial][way]["told"]
            assert cell.startswith("250") is (told in ("250", ["250"])), (start, way)
    for way in WAYS[:2]:
        refused = TRIALS["SMTP AUTH switched off"][way]["refused logins"]
        assert f"{refused} refused login" in row("SMTP AUTH is")[way]
        assert TRIALS["SMTP AUTH switched off"][way]["kept"] == 3
    assert f"Left {TRIALS['wrong secret']['relay']['seconds']} s after" in row("The secret has")["relay"]
    assert TRIALS["Send As denied once"]["relay"]["kept"] == 1
    assert TRIALS["Send As denied once"][WAYS[1]]["notices of failure"] == 1
    killed = TRIALS["killed with mail in hand"]
    assert [killed[way]["arrived"] for way in WAYS] == [3, 3, 0, 0]


def test_the_figures() -> None:
    """Times, counts and memory."""
    for way in WAYS:
        burst, cell = TRIALS["60 messages at once"][way], row("60 messages")[way]
        assert cell.endswith(f"Exchange refused {burst['refused by Exchange']}")
        assert (f"{burst['taken']} taken" if burst["taken"] < 60 else "all taken") in cell
        large, cell = TRIALS["25 MB"][way], row("A message of 25 MB")[way]
        assert f"arrives in {large['seconds']} s" in cell
        assert not large["peak MB"] or re.search(rf"\b{large['peak MB']} MB", cell)
        idle, cell = TRIALS["idle memory"][way], row("Memory at rest")[way]
        assert not idle["processes"] or cell.startswith(f"{idle['MB']} MB, {idle['processes']} process")
    assert f"within {TRIALS['60 messages at once']['relay']['seconds']} s" in row("60 messages")["relay"]
    assert (
        f"{TRIALS['60 messages at once'][WAYS[1]]['arrived']} left within 130 s"
        in row("60 messages")[WAYS[1]]
    )
