"""PROXY headers: believed from listed peers only, and then required."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from relay.accept.proxy import SIGNATURE, BadProxyHeader, Stated, read_header
from tests.accept.support import listener, networks, running

BALANCED = {"proxy_protocol_from": networks("127.0.0.0/8")}


def version2(address: str, port: int = 5, command: int = 0x21, extra: bytes = b"") -> bytes:
    ip = ipaddress.ip_address(address)
    family = 0x11 if ip.version == 4 else 0x21
    rest = ip.packed + ip.packed + struct.pack("!HH", port, 25) + extra
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def test_version1() -> None:
    """Version 1, whole and in parts."""
    line = b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 25\r\n"
    assert read_header(line + b"EHLO x\r\n") == Stated("10.0.0.7", 4711, len(line))
    assert all(read_header(line[:n]) is None for n in range(len(line)))
    assert read_header(b"PROXY UNKNOWN\r\n") == Stated(None, 0, 15)
    assert read_header(b"PROXY TCP6 ::ffff:10.0.0.7 ::1 1 2\r\n") == Stated("10.0.0.7", 1, 36)


def test_version2() -> None:
    """Version 2 with either family, TLVs, and LOCAL."""
    header = version2("10.0.0.7", 4711, extra=b"\x03\x00\x01x")
    assert read_header(header + b"EHLO") == Stated("10.0.0.7", 4711, len(header))
    assert all(read_header(header[:n]) is None for n in range(len(header)))
    assert read_header(version2("2001:db8::1")) == Stated("2001:db8::1", 5, 52)
    local = version2("10.0.0.7", command=0x20)
    assert read_header(local) == Stated(None, 0, len(local))


@pytest.mark.parametrize(
    "data",
    [b"EHLO x\r\n", b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
     b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", b"PROXY " + b"x" * 120, SIGNATURE + b"\x31\x11\x00\x0c" + b"x" * 12,
     SIGNATURE + b"\x21\x11\xff\xff", SIGNATURE + b"\x21\x11\x00\x02xx"],
)  # fmt: skip
def test_broken(data: bytes) -> None:
    """Broken or missing headers are refused."""
    with pytest.raises(BadProxyHeader):
        read_header(data)


async def test_stated_address_decides() -> None:
    """The stated address is what rules, trace and limits see; no banner comes before the header."""
    conf = listener(**BALANCED, allow=networks("10.0.0.0/8"))
    async with running(conf) as bench:
        client = await bench.client()
        client.send(b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 25\r\n")
        assert await client.reply() == "220 relay.test ESMTP"
        assert (await client.deliver(b"X: y\r\n\r\n.\r\n")).startswith("250")
        assert bench.spool.stored[0].message.client.address == "10.0.0.7"
        assert bench.spool.stored[0].message.client.port == 4711
        client.close()


async def test_stated_address_may_be_refused() -> None:
    """``allow`` is judged by the stated address."""
    async with running(listener(**BALANCED, allow=networks("10.0.0.0/8"))) as bench:
        client = await bench.client()
        client.send(version2("192.0.2.1"))
        assert (await client.reply()).startswith("554 5.7.1")
        assert await client.closed() == b""
        client.close()


async def test_no_loopback_trust_through_a_balancer() -> None:
    """AUTH in clear is for loopback clients; a balancer on loopback does not make its clients so."""
    async with running(listener(**BALANCED, auth="optional")) as bench:
        client = await bench.client()
        client.send(b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 25\r\nEHLO x\r\n")
        await client.reply()
        assert "AUTH" not in await client.reply()
        assert (await client.ask("AUTH LOGIN")).startswith("538 5.7.11")
        client.close()


async def test_header_is_required() -> None:
    """A listed peer without a header is closed."""
    async with running(listener(**BALANCED)) as bench:
        client = await bench.client()
        client.send(b"EHLO x\r\n")
        assert (await client.reply()).startswith("421 4.7.0")
        assert await client.closed() == b""
        assert bench.server.rejected == 1
        client.close()
