"""docs/alerts.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from relay.alert import causes, command, forms
from relay.alert.command import environment
from relay.alert.news import News, fields
from tests.alert.kit import a_cause

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")


def test_the_page_shows_the_form_with_every_key() -> None:
    (sample,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert list(json.loads(sample)) == list(fields(News(a_cause(), False), "mx1"))


def test_the_page_names_every_variable_of_the_command() -> None:
    named = set(re.findall(r"RELAY_ALERT_[A-Z]+", PAGE))
    assert named == set(environment(News(a_cause(), False), "mx1", {}))


def test_the_page_gives_the_figures_and_hosts_of_the_code() -> None:
    """An hour and 45 minutes, 5 % and 64 MB, 30 s, and the hosts with forms of their own."""
    assert (causes.BACKLOG_BEGINS, causes.BACKLOG_ENDS) == (60, 45) and "within 45 minutes" in PAGE
    assert (causes.SPOOL_SHARE, causes.SPOOL_LEAST, causes.SPOOL_ENDS) == (0.05, 64 * 1024**2, 1.5)
    assert command.TIMEOUT == 30 and "After 30 s it is killed" in PAGE
    assert all(
        host in PAGE
        for host in (forms.SLACK[0], "logic.azure.com", "powerplatform.com", "webhook.office.com")
    )
