"""The command, really run: what it gets, what it does not get, and when it is killed."""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

import pytest

from relay.alert.command import Command, environment
from relay.alert.news import News, WayFailed
from tests.alert.kit import a_cause

NEWS = News(a_cause(title="It's $(touch pwned) `id`; held"), False)


def script(tmp_path: Path, body: str) -> str:
    """A command line that runs these lines of Python; ``out`` is a file for what it saw."""
    file = tmp_path / "page it.py"
    file.write_text(f"import json, os, sys, time\nout = {str(tmp_path / 'out')!r}\n{body}\n")
    return f"{sys.executable} -I '{file}' 'two words' $HOME"


DUMP = "open(out, 'w').write(json.dumps([sys.argv[1:], json.load(sys.stdin), dict(os.environ)]))"


async def run(tmp_path: Path, news: News = NEWS) -> tuple[list[str], dict[str, object], dict[str, str]]:
    await Command(script(tmp_path, DUMP), host="mx1").tell(news)
    arguments, body, child = json.loads((tmp_path / "out").read_text())
    return arguments, body, child


async def failure(command: str, **more: float) -> str:
    with pytest.raises(WayFailed) as caught:
        await Command(command, host="mx1", **more).tell(NEWS)
    assert caught.value.remedy
    return str(caught.value)


async def test_the_command_gets_json_and_environment(tmp_path: Path) -> None:
    """The generic form on stdin, and each of its fields as ``RELAY_ALERT_...``."""
    _, body, child = await run(tmp_path)
    assert (body["event"], body["over"], body["title"]) == ("hold", False, NEWS.cause.title)
    told = {
        name.removeprefix("RELAY_ALERT_").lower(): value for name, value in child.items() if "ALERT" in name
    }
    assert told == {key: "false" if key == "over" else str(value) for key, value in body.items()}


async def test_no_shell_reads_anything(tmp_path: Path) -> None:
    """Quotes group words; ``$HOME`` and the words of the news stay as they are."""
    arguments, _, child = await run(tmp_path)
    assert arguments == ["two words", "$HOME"]
    assert child["RELAY_ALERT_TITLE"] == "It's $(touch pwned) `id`; held"


async def test_no_secret_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ours nor what ``env:NAME`` may point to, nor what systemd and Azure hand over."""
    for name in (
        "RELAY_CLIENT_SECRET",
        "RELAY_WEB_PASSWORD",
        "PFX_PASS",
        "M365",
        "CREDENTIALS_DIRECTORY",
        "IDENTITY_HEADER",
    ):
        monkeypatch.setenv(name, "hidden-value")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.setenv("LC_TIME", "C")
    _, _, child = await run(tmp_path)
    assert "hidden-value" not in json.dumps(child)
    assert (child["PATH"], child["TZ"], child["LC_TIME"]) == (os.environ["PATH"], "Europe/Berlin", "C")


async def test_an_end_says_so(tmp_path: Path) -> None:
    _, body, child = await run(tmp_path, News(a_cause(), True))
    assert (body["over"], child["RELAY_ALERT_OVER"], child["RELAY_ALERT_REMEDY"]) == (True, "true", "")


def test_the_environment_holds_no_nul() -> None:
    """The system would refuse to start the program."""
    child = environment(News(a_cause(evidence="a\x00b\ud800"), False), "mx1", {"PATH": "/bin", "SECRET": "x"})
    assert child["RELAY_ALERT_EVIDENCE"] == "a b?" and "SECRET" not in child


async def test_a_failing_command_says_its_status_and_words(tmp_path: Path) -> None:
    words = await failure(script(tmp_path, "sys.exit('pager\\nnot reachable')"))
    assert words == "alerts.command ended with status 1: pager not reachable"


async def test_a_command_that_shouts_is_read_and_cut(tmp_path: Path) -> None:
    """It never waits for us, and does not fill our memory."""
    words = await failure(script(tmp_path, "sys.stderr.write('x' * 5_000_000); sys.exit(3)"))
    assert "status 3" in words and len(words) < 600


async def test_a_command_that_does_not_read_is_fine(tmp_path: Path) -> None:
    await Command(script(tmp_path, "sys.stdin.close(); open(out, 'w').write('ran')"), host="mx1").tell(NEWS)
    assert (tmp_path / "out").read_text() == "ran"


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Both were in a session of their own; none is left."""
    body = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nprint('started', file=sys.stderr, flush=True)\n"
    body += "open(out, 'w').write(f'{os.getpid()} {child.pid}')\ntime.sleep(600)"
    words = await failure(script(tmp_path, body), timeout=3.0)
    assert "did not end within 3 s and was killed: started" in words
    assert [ends(int(pid)) for pid in (tmp_path / "out").read_text().split()] == [True, True]


def ends(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends (or has ended) within so many seconds: a kill takes a moment to arrive."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    readable, _, _ = select.select([handle], [], [], within)
    os.close(handle)
    return bool(readable)


async def test_what_a_command_leaves_in_the_background_may_go_on(tmp_path: Path) -> None:
    """It holds our pipe open; the command itself ended well, and that counts."""
    body = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nopen(out, 'w').write(str(child.pid))"
    )
    await Command(script(tmp_path, body), host="mx1", timeout=1.5).tell(NEWS)
    pid = int((tmp_path / "out").read_text())
    assert not ends(pid, within=0)
    os.kill(pid, 9)
    assert ends(pid)


@pytest.mark.parametrize("command", ["/nonexistent/pager --now", "'unclosed", "''", "/etc"])
async def test_a_command_that_cannot_start(command: str) -> None:
    """Known when it is configured, and said when it is needed."""
    assert "could not be started" in await failure(command)
    with pytest.raises(WayFailed):
        Command(command, host="mx1").check()


def test_a_command_that_can_start_passes_the_check() -> None:
    Command("sh -c true", host="mx1").check()
