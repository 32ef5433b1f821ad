"""How much of the listener a client may have, and for how long it may say nothing.

Everything here is bounded in memory and cheap enough for each connection.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from relay.accept import replies
from relay.settings import ListenerLimits, Network

SLOWEST = 10.0
"""Octets a second below which a message in transfer counts as stalled, averaged over the idle time."""

LONGEST_MESSAGE = 4 * 3600.0
"""Seconds one message may take in all."""

HEADERS_TOGETHER = 16 * 1024 * 1024
"""Octets of header blocks that a listener holds in memory for all messages under way."""

ALWAYS_ROOM = 16 * 1024
"""Octets of a header block for which there is room even then: ordinary mail stays far below."""

_REMEMBERED = 4096
_MINUTE = 60.0


class Networks:
    """Membership in a few networks, remembered by address. None at all: everybody is in."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, str):
            return False
        known = self._known.get(address)
        if known is None:
            known = self._ask(address)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[address] = known
        return known

    def _ask(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


class Gate:
    """Counts connections and messages by client address, for one listener."""

    def __init__(self) -> None:
        self.open = 0
        self._by_client: dict[str, int] = {}
        self._stamps: dict[str, deque[float]] = {}
        self.on_enter: Callable[[str], object] | None = None
        """Hears of each connection that is counted in, for another process that counts it, too."""
        self.on_leave: Callable[[str], object] | None = None
        """Hears of each connection that is counted out."""
        self.on_message: dict[object, Callable[[str], object]] = {}
        """By who hears of it: called with each message that is counted, but for those it told of itself."""

    def enter(self, address: str, limits: ListenerLimits) -> bytes | None:
        """Count a connection in; the refusal, when it is one too many (then it is not counted)."""
        if self.open >= limits.connections:
            return replies.CLOSE_FULL
        mine = self._by_client.get(address, 0)
        if mine >= limits.connections_per_client:
            return replies.CLOSE_CLIENT_FULL
        self.add({address: 1})
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that was counted in."""
        self.open -= 1
        mine = self._by_client[address] - 1
        if mine:
            self._by_client[address] = mine
        else:
            del self._by_client[address]
        if self.on_leave is not None:
            self.on_leave(address)

    def add(self, connections: Mapping[str, int]) -> None:
        """Count in connections that another process let in, by client."""
        for address, count in connections.items():
            self.open += count
            self._by_client[address] = self._by_client.get(address, 0) + count
            if self.on_enter is not None:
                for _ in range(count):
                    self.on_enter(address)

    def connections(self) -> dict[str, int]:
        """Connections counted in, by client."""
        return dict(self._by_client)

    def stamps(self, now: float) -> dict[str, list[float]]:
        """Times of the messages counted within the last minute, by client."""
        fresh = {
            address: [one for one in stamps if now - one < _MINUTE]
            for address, stamps in self._stamps.items()
        }
        return {address: stamps for address, stamps in fresh.items() if stamps}

    def recall(self, stamps: Mapping[str, Sequence[float]]) -> None:
        """Take up times that another process counted."""
        for address, times in stamps.items():
            self._stamps[address] = deque(times)

    def message(self, address: str, per_minute: int, now: float) -> float:
        """Count a message, if the client has one left in this sliding minute: 0. Else the seconds to wait."""
        if not per_minute:
            return 0.0
        stamps = self._stamps_of(address, per_minute, now)
        if len(stamps) == per_minute and now - stamps[0] < _MINUTE:
            return max(1.0, stamps[0] + _MINUTE - now)
        stamps.append(now)
        for tell in self.on_message.values():
            tell(address)
        return 0.0

    def note(self, address: str, per_minute: int, now: float, source: object) -> None:
        """Count a message that another process let in; it is told to all that hear of messages, but for ``source``."""
        if per_minute:
            self._stamps_of(address, per_minute, now).append(now)
            for who, tell in self.on_message.items():
                if who is not source:
                    tell(address)

    def _stamps_of(self, address: str, per_minute: int, now: float) -> deque[float]:
        stamps = self._stamps.get(address)
        if stamps is None or stamps.maxlen != per_minute:
            self._prune(now)
            stamps = self._stamps[address] = deque(stamps or (), maxlen=per_minute)
        return stamps

    def _prune(self, now: float) -> None:
        if len(self._stamps) < _REMEMBERED:
            return
        self._stamps = {
            address: stamps for address, stamps in self._stamps.items() if now - stamps[-1] < _MINUTE
        }


class HeaderRoom:
    """Memory for the header blocks of one listener's messages under way; their bodies go to the spool at once."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0
        """Octets held now."""

    def resize(self, before: int, now: int) -> bool:
        """Note that a block of ``before`` octets has ``now``; False when it is one of those there is no room for."""
        self.used += now - before
        return now <= ALWAYS_ROOM or self.used <= HEADERS_TOGETHER


class Patience:
    """How long a client may keep us waiting: by progress, not by the wall clock. Times are monotonic.

    A command must be complete within ``idle`` seconds of the last reply. A message must bring at least
    `SLOWEST` octets a second in every ``idle`` seconds: a long scan passes, a byte now and then does not.
    """

    __slots__ = ("_begun", "_window", "idle", "octets", "since", "transfer")

    def __init__(self, idle: float, now: float) -> None:
        self.idle = idle
        self.since = now
        """When the client was last answered."""
        self.octets = 0
        """Octets that came, counted on by the connection; reset with each window."""
        self.transfer = False
        self._window = now
        self._begun = now

    def begin_transfer(self, now: float) -> None:
        """A message starts."""
        self.transfer = True
        self.octets = 0
        self._window = self._begun = now

    def end_transfer(self, now: float) -> None:
        """The message is over; commands again."""
        self.transfer = False
        self.since = now

    def restart(self, now: float) -> None:
        """We kept the client waiting, not the other way round."""
        self.since = self._window = now
        self.octets = 0

    def remaining(self, now: float) -> float:
        """Seconds until the next look; zero or less: patience is over."""
        if not self.transfer:
            return self.since + self.idle - now
        if now - self._begun >= LONGEST_MESSAGE:
            return 0.0
        left = self._window + self.idle - now
        if left <= 0 and self.octets >= SLOWEST * self.idle:
            self._window, self.octets = now, 0
            return self.idle
        return left
