"""Builds wheel and source distribution from a copy, so that nothing is left in the source.

python tests/packaging/build.py FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools makes argv its own
print(build_meta.build_wheel(folder))
print(build_meta.build_sdist(folder))
"""


def build(folder: Path) -> None:
    """Both, in ``folder``."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, source / name)
        shutil.copytree(ROOT / "relay", source / "relay", ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder.resolve())],
            cwd=source, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    build(Path(sys.argv[1]))
