"""A container of the image under a real OCI runtime (crun), shut in as deploy/compose.yaml says."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes.jsonlines import whole_lines
from tests.image.stage import Stage

WAIT = 60.0
"""Seconds for whatever a loaded machine may take long over."""


class Image:
    """What `tests/image/build` made: a file system, and the configuration that the Dockerfile gave it."""

    def __init__(self, folder: Path) -> None:
        self.root = (folder / "root").resolve()
        inspected = json.loads((folder / "image.json").read_text())
        self.config: dict[str, Any] = inspected["Docker"]["config"]


def bundle(
    image: Image, stage: Stage, folder: Path, environment: dict[str, str], mounts: dict[str, Path]
) -> dict[str, Any]:
    """The runtime's configuration, as an engine makes it of the image and of Compose's `read_only`, `cap_drop`, `sysctls`.

    ``mounts``: place in the container -> file or folder, read only.
    """
    user = int(image.config["User"])
    spool = folder / "spool"
    if not spool.exists():
        spool.mkdir(mode=0o700)
        os.chown(spool, user, user)  # a new volume takes its owner from the image
    own = {**dict(one.split("=", 1) for one in image.config["Env"]), **environment}
    bound = {"type": "bind", "options": ["bind", "ro", "nosuid", "nodev"]}
    memory = {"type": "tmpfs", "source": "tmpfs"}
    return {
        "ociVersion": "1.0.2",
        "hostname": "relay",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "args": image.config["Cmd"],
            "cwd": image.config["WorkingDir"],
            "env": [f"{name}={value}" for name, value in own.items()],
            "user": {"uid": user, "gid": user},
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {**memory, "destination": "/dev", "options": ["nosuid", "mode=755", "size=64k"]},
            {**memory, "destination": "/tmp", "options": ["nosuid", "nodev", "mode=1777", "size=256m"]},
            {**bound, "destination": "/etc/hosts", "source": str(stage.hosts)},
            *({**bound, "destination": place, "source": str(source)} for place, source in mounts.items()),
            {**bound, "destination": "/var/lib/relay", "source": str(spool), "options": ["bind", "nosuid", "nodev"]},
        ],
        "linux": {
            "namespaces": [
                *({"type": one} for one in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": "/run/netns/inside"},
            ],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }  # fmt: skip


class Container:
    """Its command, from the start to its exit status."""

    def __init__(
        self, image: Image, stage: Stage, folder: Path, environment: dict[str, str], mounts: dict[str, Path]
    ) -> None:
        self._image, self._stage, self._folder = image, stage, folder
        self._user = image.config["User"]
        self.log = folder / "log"
        config = bundle(image, stage, folder, environment, mounts)
        (folder / "config.json").write_text(json.dumps(config))

    def _crun(self, *words: str) -> tuple[str, ...]:
        return ("crun", "--root", "/run/crun", "--cgroup-manager=disabled", *words)

    def __enter__(self) -> Container:
        with self.log.open("wb") as log:
            run = self._crun("run", "--bundle", str(self._folder), "relay")
            self._process = self._stage.start(*run, output=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.signal("KILL")
            self._process.wait(30)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A program in the container, beside its command, as `docker exec` does."""
        user = f"{self._user}:{self._user}"
        return self._stage.run(*self._crun("exec", "--user", user, "relay", *words))

    def healthy(self) -> str:
        """Wait until the image's own HEALTHCHECK succeeds; what it said."""
        kind, *command = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        deadline = time.monotonic() + WAIT
        while (done := self.run(*command)).returncode != 0:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, done.stderr + self.log.read_text()
            time.sleep(0.1)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name in the log so far."""
        return [one for one in whole_lines(self.log) if one.get("event") == name]

    def wait_for(self, name: str) -> None:
        """Wait until the log has such an event."""
        until(lambda: bool(self.events(name)), lambda: f"no {name} in {self.log.read_text()}")

    def signal(self, name: str) -> None:
        done = self._stage.run(*self._crun("kill", "relay", name))
        assert done.returncode == 0, done.stderr

    def exit_status(self) -> int:
        """Of its command, once that has ended."""
        return self._process.wait(WAIT)


def until(condition: Any, why: Any) -> None:
    """Wait until ``condition()`` holds; ``why()`` says what is there instead."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)
