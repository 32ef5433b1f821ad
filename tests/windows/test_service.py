"""The service of Windows, with stand-ins for pywin32: what is registered, and that the daemon ends when told."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import types

import pytest
from typer.testing import CliRunner

from relay import logs
from relay.cli.app import build_app
from relay.errors import RelayError
from tests.journeys.kit import until
from tests.web.client import CONFIG


class Framework:
    """win32serviceutil.ServiceFramework."""

    def __init__(self, args):
        self.reported = []

    def ReportServiceStatus(self, status, waitHint=0):
        self.reported.append((status, waitHint))


@pytest.fixture
def windows(tmp_path, monkeypatch):
    """`relay.winservice` over stand-ins; the calls that were made."""
    calls: list[tuple] = []
    util = types.ModuleType("win32serviceutil")
    util.ServiceFramework = Framework
    util.options = {}
    util.InstallService = lambda *words, **more: calls.append(("install", words, more))
    util.SetServiceCustomOption = lambda name, key, value: util.options.__setitem__(key, value)
    util.GetServiceCustomOption = lambda name, key, default: util.options.get(key, default)
    util.QueryServiceStatus = lambda name: (0, 4)
    for name in ("StopService", "RemoveService", "WaitForServiceStatus"):
        setattr(util, name, lambda *words, name=name: calls.append((name, words)))
    service = types.ModuleType("win32service")
    service.SERVICE_AUTO_START, service.SERVICE_STOPPED, service.SERVICE_STOP_PENDING = 2, 1, 3
    manager = types.ModuleType("servicemanager")
    manager.LogErrorMsg = lambda text: calls.append(("error", text))
    for module in (util, service, manager):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("PROGRAMDATA", str(tmp_path))
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


def test_remove_stops_first_and_a_refusal_says_what_to_do(windows, monkeypatch):
    windows.module.remove()
    assert [one[0] for one in windows.calls] == ["StopService", "WaitForServiceStatus", "RemoveService"]

    def denied(*_):
        raise OSError(5, "Access is denied.")

    monkeypatch.setattr(windows.util, "RemoveService", denied)
    with pytest.raises(RelayError, match="Access is denied") as caught:
        windows.module.remove()
    assert "administrator" in caught.value.remedy


def test_the_service_runs_the_daemon_until_it_is_told_to_stop(windows, tmp_path):
    """In a thread, as the service host does: no signals there. The log goes into a file."""
    folder = tmp_path / "relay"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder.as_posix()).partition("web:")[0])
    out, err = sys.stdout, sys.stderr
    service = windows.module.RelayService(["relay"])
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
