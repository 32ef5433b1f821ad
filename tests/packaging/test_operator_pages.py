"""The operator's pages keep to what the program says and does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from relay.spool.contract import Filter
from tests.fakes.spool import accept, opened

ROOT = Path(__file__).parents[2]


def test_the_error_texts_of_troubleshooting_are_ones_that_exist():
    """Words that people search for are found in the program, or in the tables made from Microsoft's answers."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    source = " ".join(one.read_text() for one in (ROOT / "relay").rglob("*.py"))
    source += "".join((ROOT / "docs" / name).read_text() for name in ("replies.md", "tokens.md", "graph.md"))
    quotes = str.maketrans("", "", "\"'\\")
    plain = re.sub(r"\s+", " ", source.translate(quotes))
    missing = []
    for row in re.findall(r"^\| (.+?) \| .+ \| .+ \|$", page, re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", row):
            code = re.fullmatch(r"([245]\d\d) (\d\.\d\.\d+)(.*)", words)
            parts = [*code.groups()] if code else [words.removeprefix("AADSTS")]
            looked_for = [one.strip().translate(quotes) for one in parts]
            missing += [f"{words}: {one}" for one in looked_for if one and one not in plain]
    assert missing == []


async def test_the_commands_of_the_backup_page_bring_mail_back(tmp_path):
    """Run as they stand, but for the folder and the service manager."""
    spool, archive = tmp_path / "relay", tmp_path / "relay-spool.tar"
    spool.mkdir()
    large = b"x" * 78 + b"\r\n"
    async with opened(spool) as one:
        ids = {await accept(one), await accept(one, large * 5000)}
    page = (ROOT / "docs" / "backup.md").read_text()
    copy, restore = re.findall(r"^```sh\n(systemctl stop.+?)^```$", page, re.MULTILINE | re.DOTALL)
    for script in (copy, restore):
        lines = [line for line in script.splitlines() if not line.startswith("systemctl")]
        text = (
            "\n".join(lines)
            .replace("/var/lib/relay", str(spool))
            .replace("/root/relay-spool.tar", str(archive))
        )
        assert str(tmp_path) in text
        subprocess.run(["bash", "-euc", text], check=True, timeout=60)
        if script is copy:
            (spool / "spool.db").write_bytes(b"ruined")
    async with opened(spool) as one:
        assert {view.id for view in await one.find(Filter())} == ids
        sizes = {(await one.content(id_)).body.size for id_ in ids}
        assert len(large) * 5000 in sizes
