"""Every error the rooms raise on purpose.

RelayError
├── ConfigError          the configuration cannot be used; carries every fault (config room)
├── SpoolError           the spool could not do what was asked; try again later
│   ├── SpoolUncertain   a commit's answer did not come: it may have taken place
│   ├── SpoolFull        no space left, or ``spool.max_size`` reached: 452 4.3.1
│   ├── SpoolBusy        another process owns the spool, or holds its lock too long
│   ├── SpoolLost        another replica has what this one had in hand: nothing was written
│   └── SpoolVersion     the spool was written by a newer release
├── TokenError           no token, with the reason and the remedy (tokens room)
└── ControlError         the running daemon could not be reached or refused
"""

from __future__ import annotations


class RelayError(Exception):
    """Base of all errors that are meant for people: what, why and, where known, ``remedy``."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class SpoolError(RelayError):
    """The spool could not do what was asked; nothing was half done."""


class SpoolUncertain(SpoolError):
    """The only one that may have been done: a commit whose answer was lost, or did not come in time."""


class SpoolFull(SpoolError):
    """No room: the disk, or ``spool.max_size``."""


class SpoolBusy(SpoolError):
    """Somebody else holds the spool."""


class SpoolLost(SpoolError):
    """Another replica has taken over what this one had in hand: nothing was written, and trying again is no use."""


class SpoolVersion(SpoolError):
    """The spool's schema is newer than this release knows."""


class TokenError(RelayError):
    """No access token. ``code`` is a stable slug, ``temporary`` says whether waiting can help."""

    def __init__(
        self, message: str, *, code: str, remedy: str = "", temporary: bool = False, evidence: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.temporary = temporary
        self.evidence = evidence


class ControlError(RelayError):
    """The running daemon could not be reached, or refused."""
