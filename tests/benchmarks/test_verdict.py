"""How a benchmark ends: the missed targets are named, and only what could not be measured is a failure."""

from __future__ import annotations

from benchmarks import __main__ as short
from benchmarks import kit
from benchmarks.kit import Row


def row(name: str, *, reached: bool) -> Row:
    return Row(name, 1.0, None, "msg/s", "2 x", reached)


def test_a_missed_target_is_named_and_is_no_failure(capsys):
    rows = [row("accept", reached=False), row("relay", reached=True), row("large", reached=False)]
    assert kit.finish(rows, strict=False) == 0
    assert capsys.readouterr().out == "missed targets: accept; large\n"


def test_a_strict_run_fails_for_it():
    assert kit.finish([row("accept", reached=False)], strict=True) == 1
    assert kit.finish([row("accept", reached=True)], strict=True) == 0


def test_what_could_not_be_measured_is_a_failure(tmp_path, capsys):
    def broken(folder):
        raise RuntimeError("no Postfix here")

    rows, unmeasured = short._run(
        {"one": broken, "two": lambda folder: [row("idle", reached=True)]}, tmp_path
    )
    assert [one.name for one in rows] == ["idle"]
    capsys.readouterr()
    assert kit.finish(rows, strict=False, unmeasured=unmeasured) == 1
    last = capsys.readouterr().out
    assert last == "every target that was measured was reached. NOT MEASURED (see above): one\n"
