"""What the drafts of all spools have in common: each is used once, for one message."""

from __future__ import annotations

from relay.errors import SpoolError


class OneUse:
    """Ended once: by a commit, or by being discarded."""

    __slots__ = ("_over",)

    def __init__(self) -> None:
        self._over = False

    def _use(self) -> None:
        """The commit begins. Raises SpoolError when the draft has ended already."""
        if self._over:
            raise SpoolError("this draft was already used")
        self._over = True

    def _drop(self) -> bool:
        """It is discarded; False when it has ended already, and there is nothing to do."""
        if self._over:
            return False
        self._over = True
        return True
