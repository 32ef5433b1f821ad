"""The documents stay true: every command, log event, link and unit that exists is documented, and the reverse."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from relay.cli.app import build_app

ROOT = Path(__file__).parent.parent
OPERATING = ROOT / "docs" / "operating.md"
TO_COME: set[str] = set()
"""Named in documents as coming; they must not exist before they work."""
GROUPS = {"relay queue", "relay config", "relay certificate", "relay service"}


def commands() -> dict[str, Any]:
    """Full name -> command, groups resolved."""
    found: dict[str, Any] = {}

    def walk(name: str, command: Any) -> None:
        if hasattr(command, "commands"):
            for word, inner in command.commands.items():
                walk(f"{name} {word}", inner)
        else:
            found[name] = command

    walk("relay", typer.main.get_command(build_app()))
    return found


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(document: Path) -> list[str]:
    """What a document shows as commands: code within a line, and lines of blocks, that begin with ``relay``."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [*"\n".join(blocks).splitlines(), *re.findall(r"^ {4}(.+)$", text, re.MULTILINE)]
    return [line for line in [*lines, *re.findall(r"`([^`\n]+)`", text)] if line.startswith("relay ")]


def listed(heading: str) -> set[str]:
    """First code words of each row of the table under a heading of operating.md."""
    section = OPERATING.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))


def test_every_command_is_documented_and_no_other() -> None:
    """The table in operating.md names exactly the commands there are."""
    rows = {" ".join(word for word in row.split() if word.islower()) for row in listed("Commands")}
    assert rows == set(commands())


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_documents_name_no_command_that_does_not_exist(document: Path) -> None:
    """`relay something` in any document exists, or is known to be coming."""
    names = set(commands())
    known = {name.split(" ")[1] for name in names} | {name.split(" ")[1] for name in TO_COME}
    for word, second in re.findall(r"relay ([a-z]+)(?: ([a-z]+))?", "\n".join(code_of(document))):
        if f"relay {word}" in GROUPS and second:
            assert f"relay {word} {second}" in names
        else:
            assert word in known, f"{document.name}: relay {word}"


def test_commands_to_come_do_not_exist_yet() -> None:
    """What is announced is announced as long as it does not exist, and not a day longer."""
    assert not TO_COME & set(commands())


def test_options_in_the_table_exist() -> None:
    """An option named beside a command is one that the command takes."""
    everything = commands()
    for line in OPERATING.read_text(encoding="utf-8").splitlines():
        name = re.match(r"\| `(relay [a-z]+(?: [a-z]+)?)", line)
        if name is None or name[1] not in everything:
            continue
        options = {option for one in everything[name[1]].params for option in one.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


def spoken() -> list[tuple[str, str]]:
    """Every command line that documents, alert rules and examples show, with where it stands."""
    places = [*documents(), *(ROOT / "docs" / "monitoring").glob("*.yml"), ROOT / "config.example.yaml"]
    lines = [(place.name, line) for place in places for line in code_of(place)]
    return [(name, re.split(r" [#|>&]|[;&|]|[$][(]|\\$", line)[0]) for name, line in lines]


def test_every_command_line_is_one_that_is_taken() -> None:
    """Options belong to their command, and a state is one that can be asked for."""
    everything, wrong = commands(), []
    for place, line in spoken():
        words = line.split()
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in everything), None)
        if name is None:
            continue
        known = {option for one in everything[name].params for option in one.opts}
        given = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", line))
        state = re.search(r"--state (\w+)", line)
        if not given <= known or (state and state[1] not in ("queued", "active", "deferred", "held")):
            wrong.append(f"{place}: {line}")
    assert wrong == []
    assert len(spoken()) > 100


def test_every_path_that_is_named_exists() -> None:
    """A file or folder of the project that a document names is there."""
    folders = "benchmarks|deploy|docs|systemd|tests|relay"
    for document in documents():
        text = re.sub(r"\(https?://\S+\)", "", document.read_text(encoding="utf-8"))
        for path in re.findall(rf"(?<![\w/.:-])((?:{folders})/[\w./-]*\w)", text):
            assert (ROOT / path).exists() or list(ROOT.glob(path + "*")), f"{document.name}: {path}"


def test_every_log_event_is_documented_and_no_other() -> None:
    """The log's table names exactly the events of events.py, and `library`; level and required fields are right."""
    source = ast.parse((ROOT / "relay" / "events.py").read_text(encoding="utf-8"))
    functions = {
        node.name: node
        for node in source.body
        if isinstance(node, ast.FunctionDef)
        and node.name not in ("plug", "watch", "took", "meter", "repeat")
        and not node.name.startswith("_")
    }
    assert listed("The log") == set(functions) | {"library"}
    text = OPERATING.read_text(encoding="utf-8")
    for name, node in functions.items():
        row = re.search(rf"^\| `{name}` \| (\w+) \|.*\| `([^`]+)` \|$", text, re.MULTILINE)
        assert row is not None, name
        sunk = next(call for call in ast.walk(node) if isinstance(call, ast.Call))
        assert isinstance(sunk.args[0], ast.Constant)
        assert row[1] == sunk.args[0].value, name
        assert row[2].split() == [argument.arg for argument in node.args.kwonlyargs], name


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    """A relative link names a file that exists, and its heading, where it gives one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), f"{document.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document.name}: {target}"


def test_every_measurement_that_is_named_exists() -> None:
    """`benchmarks.NAME` in any document is a module, and each module is named in performance.md."""
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    named = {
        name
        for page in documents()
        for name in re.findall(r"\bbenchmarks\.(\w+)", page.read_text(encoding="utf-8"))
    }
    assert named <= modules
    parts = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "kit.command(" in path.read_text()
    } - {"kit"}
    assert parts | {"alternatives"} <= named


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to each of them, by what a reader wants."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([a-z0-9-]+\.md)", index))


def test_readme_names_the_eight_fields() -> None:
    """Each field of the set-up guide stands beside its key and its variable."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for field, key in {
        "Server Name": "server_name", "Port": "port", "Timeout": "timeout", "Batch Size": "batch_size",
        "From Email": "from_email", "Client ID": "client_id", "Client Secret Token": "client_secret",
        "Tenant ID": "tenant_id",
    }.items():  # fmt: skip
        assert re.search(rf"^\| {field} \| `{key}: .*`RELAY_{key.upper()}` \|$", text, re.MULTILINE), field


def test_units_run_commands_that_exist() -> None:
    """The systemd unit, the container and the Makefile call commands of this release."""
    unit = (ROOT / "systemd" / "relay.service").read_text(encoding="utf-8")
    assert re.search(r"^ExecStart=\S+/relay run --config ", unit, re.MULTILINE)
    container = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    spoken = set(re.findall(r'"relay", "([a-z]+)"', container))
    assert spoken == {"run", "health"}
    assert {f"relay {word}" for word in spoken} <= set(commands())
    assert re.search(r"^USER (?!root)", container, re.MULTILINE)
