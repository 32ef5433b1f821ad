"""A shell session as a reader would have it: one page's commands after one another, in a scratch folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.blocks import ROOT, Block
from tests.journeys.kit import free_port

PATIENCE = 150
"""Seconds for all commands of a page: tens of times what they take on an idle machine."""
REHEARSAL = """\
relay simulator --dir sim {simulator} > simulator.json 2>simulator.log &
relay setup --yes --no-check --simulator simulator.json --listen 127.0.0.1:2525 --web 127.0.0.1:8025 \
  --config config.yaml 2>/dev/null
export RELAY_CONFIG=$PWD/config.yaml
relay run 2>relay.log &
relay health --wait 60
"""
"""What a page takes for granted: a relay that runs, and a Microsoft 365 (the simulated one)."""


@dataclass(frozen=True)
class Scene:
    """What stands ready before a page's first command."""

    before: str = ""
    """Commands."""
    replace: dict[str, str] = field(default_factory=dict)
    """Words of the page -> what stands for them here; ``{folder}`` is the scratch folder."""
    env: dict[str, str] = field(default_factory=dict)


def rehearsal(more: str = "", simulator: str = "", **words: dict[str, str]) -> Scene:
    """A scene with a running relay, and more commands after its start."""
    return Scene(REHEARSAL.format(simulator=simulator) + more, **words)


class Session:
    """Runs blocks; the output of each is in ``outputs``."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self._folder = folder
        self._scene = scene
        listen, web = free_port(), free_port()
        self._words = {
            **{key: value.replace("{folder}", str(folder)) for key, value in scene.replace.items()},
            "127.0.0.1:2525": f"127.0.0.1:{listen}",
            "127.0.0.1:8025": f"127.0.0.1:{web}",
        }
        self.outputs: list[str] = []

    def run(self, blocks: list[Block]) -> None:
        """All of them in one shell; the first command that fails ends it, and the test."""
        parts = [("before", self._scene.before), *((f"line {one.line}", one.text) for one in blocks)]
        files = [self._folder / f"output-{number}" for number in range(len(parts))]
        script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"
        for file, (_, text) in zip(files, parts, strict=True):
            script += f'exec >"{file}" 2>&1\n{self.here(text)}\n'
        status = self._bash(script)
        said = [file.read_text() if file.exists() else "" for file in files]
        last = max((number for number, file in enumerate(files) if file.exists()), default=0)
        assert status == 0, f"{parts[last][0]}: {parts[last][1]}\nexit status {status}:\n{said[last]}"
        self.outputs = said[1:]

    def here(self, text: str) -> str:
        """The text with what stands here for the page's addresses and folders."""
        for word, meant in self._words.items():
            text = text.replace(word, meant)
        return text

    def _bash(self, script: str) -> int:
        base = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        path = f"{Path(sys.executable).parent}:{base.get('PATH', '')}"
        own = {"PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(self._folder)}
        env = {**base, **own, **self._scene.env}
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=self._folder, env={key: self.here(value) for key, value in env.items()},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            return shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)  # a session of its own: what it started, and nothing else
            shell.wait()
            return -1
