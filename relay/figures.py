"""Sizes and durations as people read them, the same in commands and on the page."""

from __future__ import annotations


def octets(size: float | None) -> str:
    """A size: ``512 B``, ``8.0 MB`` (powers of 1024); empty for None."""
    if size is None:
        return ""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def duration(seconds: float | None) -> str:
    """A duration in seconds: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def span(seconds: float) -> str:
    """A configured duration in words: ``5 days``, ``1 hour``; what is no whole number of either as `duration` has it."""
    for name, length in (("day", 86_400), ("hour", 3600)):
        count, rest = divmod(seconds, length)
        if count and not rest:
            return f"{count:.0f} {name}{'' if count == 1 else 's'}"
    return duration(seconds)
