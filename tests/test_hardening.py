"""What the daemon's process denies itself: core dumps with memory in them, files that others may read."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from relay import daemon

SCRIPT = """
import json, os, resource, subprocess
os.umask(0o002)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from relay.hardening import harden
harden()
open("made", "w").close()
child = subprocess.run(["cat", "/proc/self/coredump_filter"], capture_output=True, text=True).stdout.strip()
print(json.dumps({"core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
                  "filter": child, "mode": oct(os.stat("made").st_mode & 0o777)}))
"""


def test_harden(tmp_path: Path) -> None:
    """No core file, no memory for a crash collector, children included; new files are private; descriptors are raised."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=tmp_path, timeout=30, check=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    seen = json.loads(done.stdout)
    assert seen["core"] == [0, 0]
    assert int(seen["filter"], 16) == 0
    assert seen["mode"] == "0o600"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert seen["files"][0] == (min(65536, hard) if hard != resource.RLIM_INFINITY else 65536)


def test_the_daemon_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it reads the first secret."""

    class Hardened(Exception):
        pass

    def hardened() -> None:
        raise Hardened

    monkeypatch.setattr(daemon, "harden", hardened)
    with pytest.raises(Hardened):
        daemon.serve(lambda: pytest.fail("the configuration was read first"))
