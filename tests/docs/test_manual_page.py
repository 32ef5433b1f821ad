"""The manual page of the Debian package, made from the commands' own help."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.docs.blocks import ROOT
from tests.test_docs import commands

MACROS = {".TH", ".SH", ".SS", ".PP", ".TP"}


def test_the_manual_page_has_every_command_with_its_options() -> None:
    """Each as it is typed, and nothing that roff would take for an order of its own."""
    script = ROOT / "deploy" / "debian" / "manpage.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    sections = dict(re.findall(r"^\.SS (.+)\n((?:(?!\.S[SH]).*\n)+)", done.stdout, re.MULTILINE))
    assert {name.replace("\\-", "-") for name in sections} == set(commands())
    for name, command in commands().items():
        shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        options = {name for one in shown for name in one.opts if name.startswith("-")}
        assert options <= set(re.findall(r"-[-a-z]+", sections[name].replace("\\-", "-"))), name
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith((".", "'"))} == MACROS
    assert "the secret's Value" in sections["relay setup"]
