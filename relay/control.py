"""The daemon's control channel: one JSON line asked, one JSON line answered, on this host only.

A Unix socket beside the spool, which only the daemon's own account (and root) may open. Where there are no Unix
sockets (Windows), a loopback port whose number and key are in a file with the same protection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from relay.dburl import shown_url
from relay.errors import ControlError, RelayError
from relay.settings import Settings

Answer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
_LONGEST_PATH = 100
"""Unix socket paths end at about 104 octets on some systems."""
_OWN_FOLDER = Path("/var/lib/relay")
_LONGEST_LINE = 8 * 1024 * 1024
_HAS_UNIX = hasattr(socket, "AF_UNIX") and os.name != "nt"


def control_path(settings: Settings) -> Path:
    """Where the channel of this process is: beside a spool in a file; for one on a server in relay's own folder where
    that exists (a service's temporary folder may be its own), else, and for too long a path, in the temporary one.

    Several relays of one host may share a spool on a server: each has a channel of its own.
    """
    url = settings.spool.url
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///")).absolute()
        path = path.with_name(path.name + ".control")
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            return path
    base = _base(url)
    if url.startswith("sqlite:"):
        return base.with_name(f"{base.name}.control")
    return base.with_name(f"{base.name}.{_replica()}.{os.getpid()}.control")


def _base(url: str) -> Path:
    """What the channels of one spool begin with, where they are not beside it."""
    # without the password: others may see the names of files, and try passwords until the name fits
    name = hashlib.sha256(shown_url(url).encode()).hexdigest()[:16]
    if not url.startswith("sqlite:") and os.access(_OWN_FOLDER, os.W_OK):
        return _OWN_FOLDER / name
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"relay-{user}-{name}"


def _replica() -> str:
    """This process's name in the group as a part of a file's name."""
    kept = "".join(
        one if one.isalnum() or one in "-_" else "_" for one in os.environ.get("RELAY_REPLICA", "")
    )
    return kept[:30] or "relay"


def channels(settings: Settings) -> list[Path]:
    """Where a relay of this configuration may answer on this host: first the one that RELAY_REPLICA names."""
    url = settings.spool.url
    if url.startswith("sqlite:"):
        return [control_path(settings)]
    base = _base(url)
    found = sorted(base.parent.glob(f"{base.name}.*.control"))
    return sorted(found, key=lambda path: not path.name.startswith(f"{base.name}.{_replica()}."))


class ControlServer:
    """Answers on the channel while the daemon runs."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._key = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer. The spool's lock, or our number in the path, makes sure that no other daemon uses it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        await asyncio.to_thread(_sweep, self._path)
        if _HAS_UNIX:
            self._server = await asyncio.start_unix_server(
                self._serve, sock=_private_socket(self._path), limit=_LONGEST_LINE
            )
            return
        self._key = secrets.token_hex(16)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LONGEST_LINE)
        port = self._server.sockets[0].getsockname()[1]
        handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump({"port": port, "key": self._key}, file)

    async def stop(self) -> None:
        """Stop answering and take the path away."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 30)
            if line:
                writer.write(json.dumps(await self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # whoever asked has gone, or talks nonsense: there is nobody to tell
        finally:
            writer.close()

    async def _reply(self, line: bytes) -> dict[str, Any]:
        request = json.loads(line)
        if not isinstance(request, dict) or request.pop("key", "") != self._key:
            return {"ok": False, "error": "not understood"}
        try:
            return {"ok": True, "data": await self._answer(str(request.pop("do", "")), request)}
        except RelayError as error:
            return {"ok": False, "error": str(error), "remedy": error.remedy}


def _private_socket(path: Path) -> socket.socket:
    """A Unix socket that only our account may open: nobody can connect before it listens, and it listens only then.

    So the umask, which is the whole process's (SQLite may be making a file at this moment), is left alone.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    return sock


def _sweep(path: Path) -> None:
    """Take away the channels of processes that were killed."""
    base = path.name.rsplit(".", 3)
    if not _HAS_UNIX or len(base) < 4 or not base[2].isdigit():
        return
    for other in path.parent.glob(f"{base[0]}.*.*.control"):
        try:
            _connect(other, 1.0)[0].close()
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                other.unlink()
        except (OSError, ValueError):
            continue


def ask(
    settings: Settings, do: str, *, timeout: float = 30.0, exactly: bool = False, **payload: Any
) -> dict[str, Any]:
    """Ask the running daemon. Raises ControlError when none answers, or with its words when it refuses.

    Of several on this host that share a spool, the one that RELAY_REPLICA names, else any of them; ``exactly``: only
    that one, or the only one that runs here.
    """
    try:
        paths = channels(settings)
        connection, key = _connect_any(_exactly(paths) if exactly else paths, timeout)
    except (OSError, ValueError) as error:
        raise ControlError(
            "no running relay answers for this configuration",
            remedy="Start it with `relay run`, or check that --config names the configuration it runs with "
            "and that you may read its spool's folder.",
        ) from error
    with connection:
        try:
            connection.sendall(json.dumps({**payload, "do": do, "key": key}).encode() + b"\n")
            with connection.makefile("rb") as file:
                answer = json.loads(file.readline() or b"{}")
        except TimeoutError as error:
            raise ControlError(
                f"the running relay has not answered within {timeout:.0f} s",
                remedy="It stands still or is overloaded: look at its process (top, its log), and restart it if need be.",
            ) from error
        except (OSError, ValueError) as error:
            raise ControlError(f"the running relay did not answer: {error}") from error
    if not answer.get("ok"):
        raise ControlError(str(answer.get("error") or "no answer"), remedy=str(answer.get("remedy") or ""))
    data: dict[str, Any] = answer["data"]
    return data


def _exactly(paths: list[Path]) -> list[Path]:
    """The channels of the one that is meant. Raises ControlError when several answer and none of them is named."""
    named = os.environ.get("RELAY_REPLICA")
    mine = [path for path in paths if named and path.name.split(".")[1:2] == [_replica()]]
    if len(paths) < 2 or mine:
        return mine or paths
    alive = [path for path in paths if _answers(path)]
    if len(alive) > 1:
        names = ["{1} (process {2})".format(*path.name.split(".")) for path in sorted(alive)]
        raise ControlError(
            f"several relays of this configuration run on this host: {', '.join(names)}",
            remedy="Say which one is meant: RELAY_REPLICA=NAME before the command, as in its service.",
        )
    return alive or paths


def _answers(path: Path) -> bool:
    try:
        _connect(path, 1.0)[0].close()
    except (OSError, ValueError):
        return False
    return True


def _connect_any(paths: list[Path], timeout: float) -> tuple[socket.socket, str]:
    trouble: Exception = FileNotFoundError("no channel")
    for path in paths:
        try:
            return _connect(path, timeout)
        except (OSError, ValueError) as error:
            trouble = error
    raise trouble


def _connect(path: Path, timeout: float) -> tuple[socket.socket, str]:
    if _HAS_UNIX:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except BaseException:
            connection.close()
            raise
        return connection, ""
    address = json.loads(path.read_text())
    return socket.create_connection(("127.0.0.1", address["port"]), timeout=timeout), address["key"]
