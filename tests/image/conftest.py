"""The image, built once for all tests here, in a folder that goes again."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.container import Image
from tests.image.debian import ROOT, System
from tests.image.stage import ALONE, tools

PLACE, PREFIX = "/var/tmp", "relay-image."


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A folder on disk; the file system below has files of other users, which pytest's own folders would keep."""
    assert os.geteuid() == 0, "an image is built as root: `make test-image`"
    tools()
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
    folder.chmod(0o711)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    shutil.rmtree(folder)


def sweep() -> None:
    """Remove what runs that were killed have left: nobody holds their locks any more."""
    for lock in Path(PLACE).glob(f"{PREFIX}*/lock"):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.parent)


def made(*command: str) -> None:
    """Run a script in namespaces of its own, politely; what it said when it failed."""
    done = subprocess.run(
        [*ALONE, "nice", *command], capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.fixture(scope="session")
def image(work: Path) -> Image:
    """Built from the Dockerfile."""
    made(str(ROOT / ".ci" / "base"))
    made(str(Path(__file__).parent / "build"), str(work))
    return Image(work)


@pytest.fixture(scope="session")
def package(work: Path) -> Path:
    """The Debian package, built in a Debian of its own."""
    made(str(ROOT / ".ci" / "base"))
    builder = System(work / "builder")
    builder.do("/src/deploy/debian/build /root/dist")
    (built,) = (builder.path / "root" / "dist").glob("relay_*.deb")
    shutil.move(built, work / built.name)
    shutil.rmtree(builder.folder)
    return work / built.name


@pytest.fixture
def system(work: Path) -> Iterator[System]:
    """A small Debian, fresh for each test."""
    made(str(ROOT / ".ci" / "base"))
    one = System(work / "system")
    yield one
    shutil.rmtree(one.folder)
