"""The table of docs/tokens.md, made from the data. Run as a program from the repository's root to rewrite the page."""

from __future__ import annotations

from pathlib import Path

from relay.tokens.aadsts import REASONS, UNKNOWN
from relay.tokens.reasons import LOCAL, Reason

PAGE = Path(__file__).parents[2] / "docs" / "tokens.md"


def rows(reasons: tuple[Reason, ...], *, numbered: bool) -> str:
    """A Markdown table."""
    title = "| Slug | AADSTS | What it says | What to do | Waiting helps |" if numbered else (
        "| Slug | What it says | What to do | Waiting helps |"
    )  # fmt: skip
    lines = [title, "| --- " * (5 if numbered else 4) + "|"]
    for reason in reasons:
        codes = f" {', '.join(map(str, reason.codes)) or 'any other'} |" if numbered else ""
        helps = "yes" if reason.temporary else "no"
        lines.append(f"| `{reason.slug}` |{codes} {reason.says} | {reason.remedy} | {helps} |")
    return "\n".join(lines)


TABLES = {"entra": rows((*REASONS, UNKNOWN), numbered=True), "local": rows(LOCAL, numbered=False)}


def fill(text: str) -> str:
    """The page with both tables between their markers made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: from the data -->\n", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"no markers for {name}")
        text = f"{head}{begin}{table}\n{end}{tail}"
    return text


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
