"""A lane's rate in the last hour as figures for a small SVG: bars by minute, and the limit as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 300, 48
_GAP = 1


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws, and what it says to who cannot see it."""

    bars: tuple[Bar, ...]
    limit_y: float | None
    words: str
    width: int = WIDTH
    height: int = HEIGHT


def chart(rates: Sequence[int], limit: int) -> Chart:
    """The chart of these minutes, the present one last; ``limit`` 0 is none."""
    top = max([limit, *rates, 1])
    step = WIDTH / max(1, len(rates))
    bars = tuple(
        Bar(
            x=round(index * step, 2),
            y=round(HEIGHT - _height(count, top), 2),
            width=round(step - _GAP, 2),
            height=round(_height(count, top), 2),
        )
        for index, count in enumerate(rates)
        if count
    )
    limit_y = round(HEIGHT - _height(limit, top), 2) if limit else None
    most = max(rates, default=0)
    against = f"limit {limit} a minute" if limit else "no limit"
    words = f"Messages a minute in the last hour: {sum(rates)} in all, at most {most} in a minute, {against}."
    return Chart(bars, limit_y, words)


def _height(count: int, top: int) -> float:
    return max(2.0, count / top * (HEIGHT - 2)) if count else 0.0
