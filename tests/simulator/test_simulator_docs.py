"""docs/simulator.md names everything that can be set, asked for or broken."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from relay.cli.app import build_app
from relay.simulator.faults import ACTIONS, PLACES
from relay.simulator.options import Limits
from relay.simulator.state_values import READERS

TEXT = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("word", [*READERS, *PLACES, *ACTIONS, *(item.name for item in fields(Limits))])
def test_every_key_place_and_action_is_documented(word: str) -> None:
    """Each stands in the page as code."""
    documented = f"`{word}`" in TEXT
    assert documented, word


def test_every_option_is_documented() -> None:
    """The table of options names those of the command."""
    command = typer.main.get_command(build_app()).commands["simulator"]
    for parameter in command.params:
        for option in parameter.opts:
            documented = f"`{option}`" in TEXT or option == "--help"
            assert documented, option
