"""A TCP connection to Exchange: straight, or through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import socket
from urllib.parse import unquote, urlsplit

from relay.deliver.classify import Fallen

LONGEST_ANSWER = 16384
"""Octets of a proxy's answer header."""


async def tunnel(proxy: str, host: str, port: int) -> socket.socket:
    """A non-blocking socket that the proxy has joined to ``host:port``. The caller bounds the time.

    Raises Fallen (``proxy-refused``, ``proxy-failed``).
    """
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise Fallen("proxy-refused", "only http:// proxies can be used for SMTP")
    try:
        sock = await dial(parts.hostname, parts.port or 8080)
    except OSError as error:
        raise Fallen("proxy-failed", error.strerror or str(error)) from error
    try:
        await _connect(sock, _request(host, port, parts.username, parts.password))
    except OSError as error:
        sock.close()
        raise Fallen("proxy-failed", error.strerror or str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def proxy_name(proxy: str) -> str:
    """The proxy as shown to people: without user and password."""
    return proxy.rpartition("@")[2].rpartition("//")[2]


async def dial(host: str, port: int) -> socket.socket:
    """A connected non-blocking socket, the host's addresses tried in turn. Raises OSError; the caller bounds the time."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem: OSError = OSError("no address")
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise problem


def _request(host: str, port: int, user: str | None, password: str | None) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user is not None:
        login = f"{unquote(user)}:{unquote(password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _connect(sock: socket.socket, request: bytes) -> None:
    """Ask, and read the answer's header octet by octet: what follows it is already the SMTP greeting."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        octet = await loop.sock_recv(sock, 1)
        if not octet or len(answer) > LONGEST_ANSWER:
            raise Fallen("proxy-failed", "it ended the connection")
        answer += octet
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    words = status.split(None, 2)
    code = words[1] if len(words) > 1 else ""
    if not code.startswith("2"):
        raise Fallen("proxy-failed" if code.startswith("5") else "proxy-refused", status)
