"""Wheel and source distribution: built, complete, and the wheel runs in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.build import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with both; made from a copy, so that nothing is left in the source."""
    folder = tmp_path_factory.mktemp("packages")
    build(folder)
    return folder


def resources() -> set[str]:
    """Every file of the package that is no compiled one."""
    return {
        str(one.relative_to(ROOT))
        for one in (ROOT / "relay").rglob("*")
        if one.is_file() and one.suffix != ".pyc"
    }


def test_wheel_and_source_hold_every_file_and_the_wheel_runs(built, tmp_path):
    """Templates, styles, migrations and the simulator's schema included; no tests."""
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    assert {one for one in inside if ".dist-info/" not in one} == resources()
    with tarfile.open(source) as archive:
        names = {one.partition("/")[2] for one in archive.getnames()}
    assert resources() | {"pyproject.toml", "README.md"} <= names
    assert not {one for one in names if one.startswith("tests")}
    runs_alone(wheel, tmp_path)


def runs_alone(wheel, tmp_path) -> None:
    """The command is there and knows its version; its libraries are those that are installed here already."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    python = place / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=120)
    site = next((place / "lib").glob("python3*")) / "site-packages"
    here = next(Path(one) for one in sys.path if one.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"{here}\n")
    said = subprocess.run(
        [place / "bin" / "relay", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={},
    )
    assert said.stdout.startswith("relay "), said.stderr
    where = subprocess.run(
        [python, "-c", "import relay, relay.web.shown, relay.spool.schema as s; print(relay.__file__, len(s.migrations()))"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={},
    )  # fmt: skip
    file, count = where.stdout.split()
    assert Path(file).is_relative_to(site), where.stderr
    assert int(count) == len(list((ROOT / "relay" / "spool" / "migrations").glob("*.sql")))
