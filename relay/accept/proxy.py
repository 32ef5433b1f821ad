"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): who really connected, said by a balancer.

Only peers named in ``proxy_protocol_from`` are asked for it, so nobody else can lend himself an address.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LIMIT = 107
V2_LIMIT = 16 + 4096
"""A header with every TLV in use stays below 1 kB; the field could say 64 kB."""


class BadProxyHeader(ValueError):
    """Not a PROXY header, or a broken one: the connection is closed."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What the header said; ``address`` is None for LOCAL and UNKNOWN (the peer speaks for itself)."""

    address: str | None
    port: int
    length: int
    """Octets the header took."""


def read_header(data: bytes) -> Stated | None:
    """The header at the start of ``data``; None when more octets are needed. Raises BadProxyHeader."""
    if data.startswith(SIGNATURE[: len(data)]):
        return _version2(data) if len(data) >= 16 else None
    if data.startswith(b"PROXY "[: len(data)]):
        return _version1(data)
    raise BadProxyHeader("no PROXY header")


def _version1(data: bytes) -> Stated | None:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise BadProxyHeader("the line is too long")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return Stated(None, 0, end + 2)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadProxyHeader("not TCP4, TCP6 or UNKNOWN with four values")
    address = _address(words[2], 4 if words[1] == "TCP4" else 6)
    return Stated(address, _port(words[4]), end + 2)


def _version2(data: bytes) -> Stated | None:
    version_command, family, length = struct.unpack_from("!BBH", data, 12)
    if version_command not in (0x20, 0x21) or 16 + length > V2_LIMIT:
        raise BadProxyHeader("unknown version or command, or far too long")
    if len(data) < 16 + length:
        return None
    if version_command == 0x20 or family not in (0x11, 0x21):  # LOCAL, or neither TCP over IPv4 nor IPv6
        return Stated(None, 0, 16 + length)
    width = 4 if family == 0x11 else 16
    if length < 2 * width + 4:
        raise BadProxyHeader("too short for its addresses")
    address = ipaddress.ip_address(data[16 : 16 + width])
    (port,) = struct.unpack_from("!H", data, 16 + 2 * width)
    return Stated(plain(str(address)), port, 16 + length)


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise BadProxyHeader("not an address") from error
    if address.version != version:
        raise BadProxyHeader("the address is of the other family")
    return plain(str(address))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise BadProxyHeader("not a port")
    return int(text)


def plain(host: str) -> str:
    """An IP address as text without a zone, IPv4-mapped IPv6 shown as IPv4."""
    if ":" not in host:
        return host
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own."""
    return host.startswith("127.") or host == "::1"
