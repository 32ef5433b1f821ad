"""Limits by client and patience by progress, with the time given."""

from __future__ import annotations

from relay.accept import replies
from relay.accept.limits import LONGEST_MESSAGE, Gate, Networks, Patience
from relay.accept.proxy import is_loopback, plain
from tests.accept.support import limits, networks


def transfer(rate: float, every: float, seconds: float) -> bool:
    """Whether a transfer of ``rate`` octets each ``every`` seconds lives that long with idle 300 s."""
    patience = Patience(300.0, 0.0)
    patience.begin_transfer(0.0)
    now = 0.0
    while now < seconds:
        now += every
        patience.octets += int(rate)
        if patience.remaining(now) <= 0:
            return False
    return True


def test_slow_scan_is_healthy() -> None:
    """A 16-minute scan at 64 kB/s passes, and one with a pause of four minutes."""
    assert transfer(64_000, 1.0, 960.0)
    assert transfer(300_000, 240.0, 960.0)


def test_dribble_is_not() -> None:
    """An octet every 30 s is cut off, and a message that takes for ever."""
    assert not transfer(1, 30.0, 960.0)
    assert not transfer(20_000, 60.0, LONGEST_MESSAGE + 60)


def test_command_patience() -> None:
    """Between commands the time since the last answer counts, and our own delays do not."""
    patience = Patience(300.0, 0.0)
    assert patience.remaining(299.0) > 0
    assert patience.remaining(300.0) <= 0
    patience.restart(300.0)
    assert patience.remaining(301.0) > 298
    patience.begin_transfer(400.0)
    patience.end_transfer(500.0)
    assert patience.remaining(799.0) > 0


def test_gate_counts_connections() -> None:
    """Connections in all and by client; leaving makes room; nothing is kept of those who left."""
    gate, few = Gate(), limits(connections=3, connections_per_client=2)
    assert gate.enter("a", few) is None
    assert gate.enter("a", few) is None
    assert gate.enter("a", few) == replies.CLOSE_CLIENT_FULL
    assert gate.enter("b", few) is None
    assert gate.enter("c", few) == replies.CLOSE_FULL
    for who in ("a", "a", "b"):
        gate.leave(who)
    assert gate.open == 0
    assert gate.enter("a", few) is None


def test_gate_counts_messages() -> None:
    """Messages in a sliding minute, for each client by itself; 0 means no limit."""
    gate = Gate()
    assert [gate.message("a", 2, now) for now in (0.0, 10.0)] == [0.0, 0.0]
    assert gate.message("a", 2, 20.0) == 40.0
    assert gate.message("b", 2, 20.0) == 0.0
    assert gate.message("a", 2, 60.5) == 0.0
    assert gate.message("a", 2, 61.0) == 9.0
    assert all(gate.message("c", 0, 0.0) == 0.0 for _ in range(100))


def test_networks() -> None:
    """Membership, with IPv6 and nonsense; none given means it is asked of nobody."""
    some = Networks(networks("10.0.0.0/8", "::1/128"))
    assert "10.1.2.3" in some
    assert "::1" in some
    assert "11.0.0.1" not in some
    assert "nonsense" not in some
    assert not Networks(())


def test_addresses_as_shown() -> None:
    """IPv4-mapped IPv6 is IPv4; zones go; loopback is known."""
    assert plain("::ffff:10.0.0.1") == "10.0.0.1"
    assert plain("fe80::1%eth0") == "fe80::1"
    assert is_loopback("127.3.2.1")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
