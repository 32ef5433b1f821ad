"""The documents followed literally: each page's commands, in order, in a scratch folder against the simulated Microsoft 365."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import COMMANDS, DOCUMENTS, ROOT, blocks, fits, missing
from tests.docs.session import Scene, Session, rehearsal

GUIDE = "--permission Mail.Send"
"""The guide as written: Graph's `Mail.Send`, and nothing for SMTP."""
SCENES = {
    "README.md": Scene(replace={"make setup && . .venv/bin/activate": ":"}),
    "docs/check.md": rehearsal(),
    "docs/configuration.md": rehearsal(),
    "docs/connect-signify.md": rehearsal(simulator=GUIDE),
    "docs/credentials.md": Scene(replace={"/var/lib/relay": "{folder}"}),
    "docs/exchange-side.md": rehearsal(),
    "docs/getting-started.md": Scene(),
    "docs/graph.md": rehearsal(simulator=GUIDE),
    # the page is served a moment after mail is taken
    "docs/monitoring.md": rehearsal(
        more="until curl -fs http://127.0.0.1:8025/healthz; do sleep 0.1; done\n",
        replace={"docs/monitoring": f"{ROOT}/docs/monitoring"},
    ),
    # mail that waits: nobody answers where Entra ID should be
    "docs/operating.md": rehearsal(
        more='curl -fsS -X PATCH "$(jq -r .control simulator.json)/state" -d \'{"entra_down": "refuse"}\'\n'
        "for n in 1 2; do relay send --from erp@legacy.local --to anna@example.net --subject $n; done\n"
        "relay send --from scanner@scanners.local --to anna@example.net\n"
    ),
    # the network of printers in the page is nobody's here: nothing listens, the configuration is only written
    "docs/setup.md": Scene(
        before="echo not-a-real-secret-but-as-long-as-one > secret.txt\n",
        replace={"relay setup --yes": "relay setup --yes --no-check --config config.yaml"},
    ),
    "docs/simulator.md": Scene(),
}
"""Page -> what stands ready before its first command."""


def test_every_command_in_the_documents_is_run_or_says_why_not() -> None:
    """No block of commands is without its mark, and none hides in a block of another kind."""
    unmarked, hidden = [], []
    for document in DOCUMENTS:
        for block in blocks(document):
            place = f"{block.page}:{block.line}"
            first = [line.split()[0] for line in block.text.splitlines() if line.split()]
            if block.language == "sh":
                if not block.runs and not re.fullmatch(r"not run: .{20,}", block.mark):
                    unmarked.append(place)
            elif block.language == "" or block.language in ("bash", "console", "shell"):
                hidden.append(place)
            elif block.language not in ("text", "yaml", "powershell", "json", "python", "ini"):
                hidden.append(f"{place}: {block.language}")
            elif block.language == "text" and block.page != "README.md" and set(first) & set(COMMANDS):
                hidden.append(f"{place}: {sorted(set(first) & set(COMMANDS))}")
    assert (unmarked, hidden) == ([], [])


def test_every_page_that_is_run_has_its_scene() -> None:
    """And no scene is left over."""
    run = {one.page for document in DOCUMENTS for one in blocks(document) if one.runs}
    assert run == set(SCENES)


@pytest.mark.parametrize("page", sorted(SCENES))
def test_the_commands_of_a_page_do_what_it_says(page, tmp_path) -> None:
    """Each succeeds, and prints what the page shows."""
    chosen = [one for one in blocks(ROOT / page) if one.runs]
    session = Session(tmp_path, SCENES[page])
    session.run(chosen)
    for block, output in zip(chosen, session.outputs, strict=True):
        shows = [session.here(line) for line in block.shows]
        assert missing(shows, output) == [], f"{page}:{block.line} printed:\n{output}"


def test_shown_output_is_compared_line_by_line_and_in_order() -> None:
    """The comparison itself: ``...`` is anything, spaces do not count, order does."""
    assert fits("250 ... as ...", "250  2.0.0 OK as 0AN")
    assert not fits("250 OK", "250 OK and more")
    assert missing(["a", "c"], "a\nb\nc\n") == []
    assert missing(["c", "a"], "a\nb\nc\n") == ["a"]
