"""docs/tokens.md says what the data says, and the data is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.tokens import aadsts, faults, reasons
from relay.tokens.reasons import LOCAL, Reason, local
from tests.tokens.error_table import PAGE, fill

EVERY = (*aadsts.REASONS, aadsts.UNKNOWN, *LOCAL)
ROOM = Path(reasons.__file__).parent

FACTS = """7000215 7000222 7000218 7000229 700016 70001 7000112 90002 900023 90038 900382 900432 50059 90019 50194
9001023 90130 1002012 70011 28002 700022 700023 500011 650052 650057 65001 650056 90094 53003 530032 530035 50034
50126 50055 50057 50076 50079 50105 501051 700027 50012 700024 500133 50013 700030 700213 70021 700229 50196 90055
90033 90006 90012 90024 50033 50000
700082 700084 50173 70008 70043 50132 50133 50078 70019 70020"""


def test_the_page_is_current() -> None:
    """Mended by `python tests/tokens/error_table.py`."""
    text = PAGE.read_text()
    assert fill(text) == text


def test_every_known_number_has_a_row() -> None:
    """All of the facts sheet's, each in exactly one row."""
    codes = [code for reason in aadsts.REASONS for code in reason.codes]
    assert sorted(codes) == sorted(int(code) for code in FACTS.split())


def test_slugs_are_unique_and_speakable() -> None:
    """A slug is a contract: scripts and pages match on it."""
    slugs = [reason.slug for reason in EVERY]
    assert len(slugs) == len(set(slugs))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)


@pytest.mark.parametrize("reason", EVERY, ids=lambda reason: reason.slug)
def test_every_row_helps(reason: Reason) -> None:
    """A sentence, a remedy, and a step of the guide wherever Entra is to be mended."""
    assert reason.says.endswith(".")
    assert reason.remedy.endswith(".")
    assert "|" not in reason.says + reason.remedy
    if "App registrations" in reason.remedy:
        assert re.search(r"[Ss]teps? \d", reason.remedy)


def test_every_slug_the_code_names_exists() -> None:
    """`local("...")` raises KeyError otherwise, in the worst moment; and no row is left without a use."""
    code = "".join(file.read_text() for file in ROOM.glob("*.py"))
    named = set(re.findall(r'local\((?:[^()]*?)"([a-z-]+)"', code)) | set(
        re.findall(r'else "([a-z-]+)"\)', code)
    )
    assert {local(slug).slug for slug in named} == named
    assert named == {reason.slug for reason in LOCAL}


def test_evidence_is_one_short_line() -> None:
    """Entra's texts have several lines; logs and pages want one."""
    said = faults.brief("AADSTS1:\r\n two\n" + "x" * 5000)
    assert said.startswith("AADSTS1: two x")
    assert len(said) == faults.EVIDENCE_LENGTH


def test_the_page_of_credentials_says_what_the_code_does() -> None:
    """The step of a check, days and shares of docs/credentials.md."""
    from relay.check import catalogue
    from relay.tokens import expiry, keypair, rotation, vault

    page = (PAGE.parent / "credentials.md").read_text()
    assert f"The step `{catalogue.EXPIRY.slug}` of [relay check]" in page
    assert expiry.REMINDERS == (60, 30, 14, 7, 1) and "60, 30, 14, 7 and 1 days before" in page
    assert vault.UNUSED_DAYS == 90 and "90 days without use" in page
    assert (rotation.SHARE_LEFT, rotation.LEAST_LEFT, rotation.MOST_LEFT) == (1 / 3, 30 * 86400, 1 / 2)
    assert "a third of the certificate's life (at least 30 days, at most half its\nlife)" in page
    assert keypair.KEY_BITS == 3072 and "RSA key of 3072 bits" in page
