"""This machine's own addresses and the networks behind them, from the operating system, without a library."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from relay.settings import Network

_ADDRESS, _MASK = 0x8915, 0x891B
"""SIOCGIFADDR and SIOCGIFNETMASK of Linux (netdevice(7))."""
_IPV6 = Path("/proc/net/if_inet6")
_LOCAL_PREFIX = 24
"""Assumed where the system does not tell the mask: what small networks have."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of this machine."""

    name: str
    address: str
    network: Network

    @property
    def public(self) -> bool:
        """Whether it can be reached from the Internet."""
        return ipaddress.ip_address(self.address).is_global

    @property
    def inside_containers(self) -> bool:
        """Whether the name is one that container engines give their bridges."""
        return self.name.startswith(("docker", "br-", "podman", "cni", "virbr", "lxc"))


def interfaces() -> list[Interface]:
    """All addresses but loopback and link-local ones, IPv4 first; empty when the system does not tell."""
    found = [*_ipv4(), *_ipv6()] or _by_name()
    return [one for one in found if not one.network.is_loopback and not one.network.is_link_local]


def _ipv4() -> list[Interface]:
    try:
        import fcntl
    except ImportError:  # Windows
        return []
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                address = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), _ADDRESS, request)[20:24])
                mask = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), _MASK, request)[20:24])
                network = ipaddress.ip_network(f"{address}/{mask}", strict=False)
                found.append(Interface(name, address, network))
    return found


def _ipv6() -> list[Interface]:
    try:
        lines = _IPV6.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        digits, _, prefix, _, _, name = line.split()
        address = ipaddress.ip_address(bytes.fromhex(digits))
        network = ipaddress.ip_network(f"{address}/{int(prefix, 16)}", strict=False)
        found.append(Interface(name, str(address), network))
    return found


def _by_name() -> list[Interface]:
    """Where there is no better way: what this machine's name resolves to."""
    found = []
    with contextlib.suppress(OSError):
        for row in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_DGRAM):
            address = str(row[4][0])
            network = ipaddress.ip_network(f"{address}/{_LOCAL_PREFIX}", strict=False)
            found.append(Interface("", address, network))
    return list(dict.fromkeys(found))
