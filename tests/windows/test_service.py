"""The service of Windows, with stand-ins for pywin32: what is registered, and that the daemon ends when told."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import relay
from relay import logs
from relay.cli.app import build_app
from relay.errors import RelayError
from tests.journeys.kit import until
from tests.web.client import CONFIG

REAL_RUN = subprocess.run


class Framework:
    """win32serviceutil.ServiceFramework."""

    def __init__(self, args):
        self.reported = []

    def ReportServiceStatus(self, status, waitHint=0):
        self.reported.append((status, waitHint))


def registry(options: dict[str, str]) -> types.ModuleType:
    """winreg, with the key that pywin32 keeps a service's options in."""
    module = types.ModuleType("winreg")
    module.HKEY_LOCAL_MACHINE = "HKLM"

    def value(key, name):
        if name not in options:
            raise FileNotFoundError(2, "no such value")
        return options[name], 1

    module.OpenKey = lambda root, path: contextlib.nullcontext((root, path))
    module.QueryValueEx = value
    return module


@pytest.fixture
def windows(tmp_path, monkeypatch):
    """`relay.winservice` over stand-ins; the calls that were made."""
    calls: list[tuple] = []
    util = types.ModuleType("win32serviceutil")
    util.ServiceFramework = Framework
    util.options = {}
    util.InstallService = lambda *words, **more: calls.append(("install", words, more))
    util.SetServiceCustomOption = lambda name, key, value: util.options.__setitem__(key, value)
    util.QueryServiceStatus = lambda name: (0, 4)
    for name in ("StopService", "RemoveService", "WaitForServiceStatus"):
        setattr(util, name, lambda *words, name=name: calls.append((name, words)))
    service = types.ModuleType("win32service")
    service.SERVICE_AUTO_START, service.SERVICE_STOPPED, service.SERVICE_STOP_PENDING = 2, 1, 3
    manager = types.ModuleType("servicemanager")
    manager.LogErrorMsg = lambda text: calls.append(("error", text))
    manager.Initialize = lambda: calls.append(("initialize",))
    manager.PrepareToHostSingle = lambda made: calls.append(("host", made.__name__))
    manager.StartServiceCtrlDispatcher = lambda: calls.append(("dispatch",))
    for module in (util, service, manager, registry(util.options)):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("PROGRAMDATA", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delitem(sys.modules, "relay.winservice", raising=False)
    module = importlib.import_module("relay.winservice")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda words, **_: calls.append(("run", words)) or subprocess.CompletedProcess(words, 0),
    )
    yield types.SimpleNamespace(module=module, util=util, calls=calls)
    sys.modules.pop("relay.winservice", None)


def test_install_registers_a_service_with_few_rights_in_a_closed_folder(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    done = CliRunner().invoke(build_app("service"), ["service", "install"])
    assert done.exit_code == 0, done.output
    (_, icacls), (_, words, more) = windows.calls
    assert icacls[:3] == ["icacls", str(tmp_path / "relay"), "/inheritance:r"]
    assert words[:2] == ("relay.winservice.RelayService", "relay")
    assert (more["startType"], more["userName"]) == (2, "NT AUTHORITY\\LocalService")
    assert windows.util.options["config"] == str(tmp_path / "relay" / "config.yaml")
    # no launcher of a virtual environment: Windows would wait for another process than the one that serves
    assert more["exeName"] == sys._base_executable
    *flags, script, folder = shlex.split(more["exeArgs"])
    assert (flags, Path(script).name) == (["-I", "-S"], "winhost.py")
    assert Path(folder) == Path(typer.__file__).parents[1]


def test_a_python_of_one_user_is_refused_before_anything_is_installed(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "_base_executable", str(Path.home() / "AppData" / "python.exe"))
    with pytest.raises(RelayError, match="for one user alone") as caught:
        windows.module.install(tmp_path / "config.yaml")
    assert "all users" in caught.value.remedy
    assert windows.calls == []


def test_the_host_finds_the_libraries_by_itself(tmp_path):
    """Run by its path, isolated, by a Python that has nothing of relay: it gets its libraries from the folder it is told."""
    stand_in = tmp_path / "site" / "relay"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "winservice.py").write_text(
        "def host():\n    import extra\n    print('hosting', extra.__name__)\n"
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "extra.py").touch()
    (tmp_path / "site" / "pywin32.pth").write_text(f"{tmp_path / 'elsewhere'}\n")
    script = Path(relay.__file__).with_name("winhost.py")
    words = [sys._base_executable, "-I", "-S", str(script), str(tmp_path / "site")]
    done = REAL_RUN(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "hosting extra\n", done.stderr


def test_the_host_offers_the_service_to_windows(windows):
    windows.module.host()
    assert windows.calls == [("initialize",), ("host", "RelayService"), ("dispatch",)]


def test_remove_stops_first_and_a_refusal_says_what_to_do(windows, monkeypatch):
    windows.module.remove()
    assert [one[0] for one in windows.calls] == ["StopService", "WaitForServiceStatus", "RemoveService"]

    def denied(*_):
        raise OSError(5, "Access is denied.")

    monkeypatch.setattr(windows.util, "RemoveService", denied)
    with pytest.raises(RelayError, match="Access is denied") as caught:
        windows.module.remove()
    assert "administrator" in caught.value.remedy


def test_the_service_runs_the_daemon_until_it_is_told_to_stop(windows, tmp_path, monkeypatch):
    """In a thread of its own: asyncio may take the host's for the main one, and fails there. The log goes into a file."""
    folder = tmp_path / "relay"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder.as_posix()).partition("web:")[0])
    out, err = sys.stdout, sys.stderr
    service = windows.module.RelayService(["relay"])
    served: list[threading.Thread] = []
    monkeypatch.setattr("relay.daemon.harden", lambda: served.append(threading.current_thread()))
    thread = threading.Thread(target=service.SvcDoRun)
    thread.start()
    try:
        until(lambda: (folder / "spool.db.control").exists(), what="the daemon runs")
        until(lambda: "started" in (folder / "relay.log").read_text(), what="it has started")
    finally:
        service.SvcStop()
        thread.join(40)
        logs.close()
        sys.stdout, sys.stderr = out, err
    assert not thread.is_alive()
    assert len({thread, threading.main_thread(), *served}) == 3
    assert service.reported == [(3, 35_000)]
    assert "stopped" in (folder / "relay.log").read_text()
    assert [one for one in windows.calls if one[0] == "error"] == []


def test_a_fault_of_the_configuration_is_in_the_log_and_told_to_windows(windows, tmp_path):
    folder = tmp_path / "relay"
    folder.mkdir()
    (folder / "config.yaml").write_text("nonsense: true\n")
    out, err = sys.stdout, sys.stderr
    try:
        windows.module.RelayService(["relay"]).SvcDoRun()
    finally:
        sys.stdout, sys.stderr = out, err
    assert "nonsense" in (folder / "relay.log").read_text()
    assert windows.calls[-1][0] == "error"


def test_elsewhere_the_command_says_what_to_use(tmp_path):
    done = CliRunner().invoke(build_app("service"), ["service", "install"])
    assert done.exit_code == 1
    assert "systemd" in done.output
