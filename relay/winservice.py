"""relay as a service of Windows: installed and removed through pywin32, hosted by `relay.winhost`.

Loaded on Windows only (`pip install relay[windows]`). The service runs as LocalService, which may do little; its folder,
``%ProgramData%\\relay``, is for that account, SYSTEM and administrators alone, since the secret may lie there.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import servicemanager
import win32service
import win32serviceutil

from relay.errors import RelayError

NAME = "relay"
ACCOUNT = "NT AUTHORITY\\LocalService"
PARAMETERS = rf"SYSTEM\CurrentControlSet\Services\{NAME}\Parameters"
"""Where `win32serviceutil.SetServiceCustomOption` keeps what the service is told."""
LARGEST_LOG = 50 * 1024**2
"""Octets beyond which the log of before is put aside at a start, as relay.log.1."""


def folder() -> Path:
    """Where configuration, spool and log are."""
    return Path(os.environ.get("PROGRAMDATA", "C:\\ProgramData")) / "relay"


def install(config: Path) -> None:
    """Register the service, to start with the machine. Raises RelayError: not an administrator, or there already."""
    place, python = folder(), _python()
    host = Path(__file__).with_name("winhost.py")
    try:
        place.mkdir(parents=True, exist_ok=True)
        _close_to_others(place)
        win32serviceutil.InstallService(
            f"{__name__}.RelayService", NAME, "relay (SMTP relay for Microsoft 365)",
            startType=win32service.SERVICE_AUTO_START, userName=ACCOUNT,
            exeName=str(python), exeArgs=f'-I -S "{host}" "{sysconfig.get_path("purelib")}"',
            description="Takes plain SMTP, delivers through Microsoft 365 with OAuth2.",
        )  # fmt: skip
        win32serviceutil.SetServiceCustomOption(NAME, "config", str(config.absolute()))
    except Exception as error:
        raise _explained("installed", error) from error


def _python() -> Path:
    """The Python below a virtual environment, or this one. Raises RelayError where the service's account may not read it."""
    python = Path(getattr(sys, "_base_executable", "") or sys.executable)
    if python.is_relative_to(Path.home()):
        raise RelayError(
            f"{python} is for one user alone, and the service has an account of its own",
            remedy="Install Python for all users (in its installer: Customize, Install for all users), and relay with it again.",
        )
    return python


def host() -> None:
    """Be the process of the service: Windows calls `RelayService`. Returns when it has ended."""
    servicemanager.Initialize()
    servicemanager.PrepareToHostSingle(RelayService)
    servicemanager.StartServiceCtrlDispatcher()


def remove() -> None:
    """Stop the service and take it out; configuration and spool stay. Raises RelayError."""
    try:
        if win32serviceutil.QueryServiceStatus(NAME)[1] != win32service.SERVICE_STOPPED:
            win32serviceutil.StopService(NAME)
            win32serviceutil.WaitForServiceStatus(NAME, win32service.SERVICE_STOPPED, 60)
        win32serviceutil.RemoveService(NAME)
    except Exception as error:
        raise _explained("removed", error) from error


def _explained(what: str, error: Exception) -> RelayError:
    """pywin32 raises errors of its own class, with Windows' words as their last part."""
    words = str(getattr(error, "strerror", "") or error)
    return RelayError(
        f"the service cannot be {what}: {words}",
        remedy="Run the command in a terminal that was started as administrator; `sc query relay` shows what there is.",
    )


def _close_to_others(place: Path) -> None:
    """Inherited rights away: ProgramData lets every user read."""
    grants = [
        "*S-1-5-18:(OI)(CI)F",
        "*S-1-5-32-544:(OI)(CI)F",
        "*S-1-5-19:(OI)(CI)M",
    ]  # SYSTEM, administrators, LocalService
    subprocess.run(
        ["icacls", str(place), "/inheritance:r", "/grant:r", *grants], check=True, capture_output=True
    )


class RelayService(win32serviceutil.ServiceFramework):  # type: ignore[misc]
    """What the service host makes and calls."""

    _svc_name_ = NAME

    def __init__(self, args: list[str]) -> None:
        super().__init__(args)
        self._stop: Callable[[], None] | None = None
        self._wanted = threading.Event()

    def SvcStop(self) -> None:
        """Windows asks: refuse new work, finish what is in flight. Called in another thread than `SvcDoRun`."""
        self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, waitHint=35_000)
        self._wanted.set()
        if self._stop is not None:
            self._stop()

    SvcShutdown = SvcStop

    def SvcDoRun(self) -> None:
        """Until told to stop. In a thread that Python knows for none of its own: the event loop must not take it for the main one
        (pywin32's issue 1452: `set_wakeup_fd only works in main thread`)."""
        sys.stderr = sys.stdout = _log(folder())
        daemon = threading.Thread(target=self._serve, name="relay")
        daemon.start()
        daemon.join()

    def _serve(self) -> None:
        from relay.config.load import load
        from relay.daemon import serve

        status = 1  # a fault that nobody expected is told, too; its traceback goes into the log
        try:
            config = _configured()
            status = serve(lambda: load(config), self._take_stop)
        except RelayError as error:
            sys.stderr.write(f"relay: {error}\n")
        finally:
            if status:
                servicemanager.LogErrorMsg(f"relay could not run; see {folder() / 'relay.log'}")

    def _take_stop(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        if self._wanted.is_set():
            stop()


def _configured() -> Path:
    """The configuration that the service was installed with. Read with the few rights that LocalService has."""
    winreg: Any = importlib.import_module("winreg")  # there on Windows only
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, PARAMETERS) as key:
            return Path(str(winreg.QueryValueEx(key, "config")[0]))
    except FileNotFoundError:
        return folder() / "config.yaml"


def _log(place: Path) -> TextIO:
    """The log's file: a service has no terminal."""
    file = place / "relay.log"
    if file.exists() and file.stat().st_size > LARGEST_LOG:
        file.replace(place / "relay.log.1")
    return file.open("a", encoding="utf-8", buffering=1)
