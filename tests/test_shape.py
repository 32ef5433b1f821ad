"""The house's measures: files and functions stay short enough to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
RELAY = TESTS.parent / "relay"

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60


def long_functions(path: Path) -> Iterator[str]:
    """Name and length of each function of a file that is too long, decorators not counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_OF_A_FUNCTION:
                yield f"{path.name}:{node.lineno} {node.name}: {lines} lines"


def test_no_source_file_is_too_long() -> None:
    """One that grows beyond is split where its work divides."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in RELAY.rglob("*.py")}
    assert {str(path): count for path, count in lengths.items() if count > LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    """Neither in the source nor in the tests."""
    assert [
        one for folder in (RELAY, TESTS) for path in folder.rglob("*.py") for one in long_functions(path)
    ] == []


def test_the_check_itself_sees_a_long_function(tmp_path: Path) -> None:
    """A method is measured like a function, and one of just so many lines is left alone."""
    file = tmp_path / "long.py"
    body = "        x = 1\n"
    file.write_text(
        "class C:\n    def short(self):\n" + body * (LINES_OF_A_FUNCTION - 1) + "    async def long(self):\n"
        + body * LINES_OF_A_FUNCTION
    )  # fmt: skip
    assert list(long_functions(file)) == [f"long.py:62 long: {LINES_OF_A_FUNCTION + 1} lines"]
