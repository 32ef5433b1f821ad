"""The scripts in docs/exchange, and just enough of PowerShell's lexical rules to see that nothing is left open.

`python -m tests.setup.ps1` writes the files anew.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "exchange"
_TOKEN = re.compile(
    r"<#.*?#>|#[^\n]*|'(?:''|[^'])*'|\"(?:`.|\"\"|[^\"])*\"|[{}()\[\]]|[^\s{}()\[\]'\"#]+|\s+|.", re.DOTALL
)
_PAIRS = {")": "(", "}": "{", "]": "["}


def words_of(text: str) -> list[str]:
    """The words of a script, strings and comments as one each; empty when a bracket or a quote is left open."""
    words, open_ = [], []
    for word in _TOKEN.findall(text):
        if word in ("'", '"'):
            return []
        if word in _PAIRS.values():
            open_.append(word)
        elif word in _PAIRS and (not open_ or open_.pop() != _PAIRS[word]):
            return []
        if not word.isspace():
            words.append(word)
    return [] if open_ else words


if __name__ == "__main__":
    from relay.setup.exchange import MODELS, Target, script

    FOLDER.mkdir(exist_ok=True)
    for model in MODELS:
        (FOLDER / f"{model}.ps1").write_text(script(model, Target()), encoding="ascii")
