"""The image of the Dockerfile does the main job: from plain SMTP at port 25 to Exchange, shut in as far as it goes."""

from __future__ import annotations

import email
import email.policy
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image.container import Container, Image
from tests.image.microsoft import Microsoft
from tests.image.stage import INSIDE, Stage

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|ld|as|make|cmake|cargo|rustc|git|pip|pip3|uv|npm|easy_install)[-0-9.]*"
)
LARGEST = 160_000_000
"""Octets that relay and its libraries may add to the base image."""


@dataclass
class Site:
    """A stage with Microsoft on it, and what a container there is started with."""

    stage: Stage
    microsoft: Microsoft
    image: Image
    folder: Path

    def container(self, **environment: str) -> Container:
        """The image's command, set up by the environment alone; the secret is a file."""
        mounted = self.folder / "secrets"
        if not mounted.exists():
            mounted.mkdir(mode=0o755)
            for name, text in {
                "client-secret": self.microsoft.env["RELAY_CLIENT_SECRET"],
                "ca.pem": Path(self.microsoft.env["RELAY_CA_FILE"]).read_text(),
            }.items():
                (mounted / name).write_text(text)
                os.chown(mounted / name, 0, int(self.image.config["User"]))
                (mounted / name).chmod(0o440)
        own = {
            **self.microsoft.env,
            "RELAY_CLIENT_SECRET_FILE": "/run/secrets/client-secret",
            "RELAY_CA_FILE": "/run/secrets/ca.pem",
            "RELAY_LISTEN": "0.0.0.0:25",
            "RELAY_ALLOW": "192.0.2.0/24",
            "RELAY_LOG_LEVEL": "debug",
            **environment,
        }
        del own["RELAY_CLIENT_SECRET"]
        return Container(self.image, self.stage, self.folder, own, mounted)

    def send(self, *options: str) -> None:
        """One message from the outside host to port 25, by a real client."""
        done = self.stage.run("swaks", "--server", f"{INSIDE}:25", "--to", "anna@example.net", *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def site(work: Path, image: Image, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Hosts, Microsoft and folders of one test; its parameter: the simulator's options."""
    folder = work / secrets.token_hex(4)
    (folder / "microsoft").mkdir(parents=True)
    options = getattr(request, "param", ())
    with Stage(folder) as stage:
        yield Site(stage, Microsoft(stage, folder / "microsoft", *options), image, folder)


def size_of(folder: Path) -> int:
    """Octets on disk."""
    done = subprocess.run(
        ["du", "-sx", "--block-size=1", str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])


def test_nothing_in_the_image_builds_or_installs_python(image):
    """No compiler, no pip, nothing that brings pip back; what relay adds to the base is bounded."""
    folders = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "opt/relay/bin")
    programs = {one.name for folder in folders for one in (image.root / folder).glob("*")}
    assert {"relay", "python3"} <= programs
    assert {one for one in programs if BUILDERS.fullmatch(one)} == set()
    assert [one for one in image.root.rglob("*.whl") if "pip" in one.name] == []
    assert [one for one in image.root.rglob("ensurepip") if one.is_dir()] == []
    added, whole = size_of(image.root / "opt" / "relay"), size_of(image.root)
    print(f"image: {whole / 1e6:.0f} MB, of which relay and its libraries {added / 1e6:.0f} MB")
    assert added < LARGEST


def test_the_main_job_at_port_25_as_nobody_special(site):
    """Read-only root, no capability, no privilege to gain; health, delivery of every octet, and an end with 0."""
    attached = site.folder / "scan.pdf"
    attached.write_bytes(secrets.token_bytes(300_000))
    with site.container() as container:
        assert "live and ready" in container.healthy()
        status = container.run("cat", "/proc/1/status").stdout
        assert re.search(r"^Uid:\s10001\s10001\s10001\s10001$", status, re.MULTILINE)
        for line in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert re.search(rf"^{line}:\s0{{16}}$", status, re.MULTILINE), line
        assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
        refused = container.run("touch", "/opt/relay/x", "/etc/x", "/x").stderr
        assert refused.count("Read-only file system") == 3
        secret = site.microsoft.env["RELAY_CLIENT_SECRET"]
        shown = container.run("cat", "/proc/1/environ", "/proc/1/cmdline").stdout
        assert "RELAY_CLIENT_SECRET_FILE=/run/secrets/client-secret" in shown
        assert secret not in shown

        site.send("--from", "erp@legacy.local", "--body", "first\n.\nlast", "--attach", f"@{attached}")
        taken, raw = site.microsoft.arrived(1)
        assert (taken["transport"], taken["recipients"]) == ("smtp", ["anna@example.net"])
        assert taken["header_from"] == "notifications@contoso.com"
        assert parts(raw) == [b"first\n.\nlast", attached.read_bytes()]

        assert secret not in container.log.read_text()
        container.signal("TERM")
        assert container.exit_status() == 0


@pytest.mark.parametrize("site", [("--permission", "Mail.Send")], indirect=True, ids=["simulator"])
def test_the_guides_permission_is_enough(site):
    """`Mail.Send` alone: the same container delivers through Graph."""
    with site.container() as container:
        container.healthy()
        site.send("--from", "erp@legacy.local", "--body", "by the guide")
        taken, raw = site.microsoft.arrived(1)
        assert taken["transport"] == "graph"
        assert b"by the guide" in raw
        container.signal("TERM")
        assert container.exit_status() == 0


@pytest.mark.parametrize(
    "site", [("--fault", "end-of-data:delay;seconds=2;times=1")], indirect=True, ids=["simulator"]
)
def test_sigterm_lets_what_is_in_flight_arrive_once(site):
    """The signal comes while Exchange is silent; the next container on the same volume finds nothing left to do."""
    with site.container() as container:
        container.healthy()
        site.send("--from", "erp@legacy.local", "--body", "in flight")
        container.wait_for("attempted")
        container.signal("TERM")
        assert container.exit_status() == 0, container.log.read_text()
        assert len(container.events("delivered")) == 1
    site.microsoft.arrived(1)
    with site.container() as container:
        container.healthy()
        assert container.run("relay", "queue", "list", "--json").stdout.strip() == "[]"
        container.signal("TERM")
        assert container.exit_status() == 0
    site.microsoft.arrived(1)


def parts(raw: bytes) -> list[bytes]:
    """What a reader of the message gets to see and to save."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    leaves = [one for one in message.walk() if not one.is_multipart()]
    text = leaves[0].get_payload(decode=True).replace(b"\r\n", b"\n").rstrip(b"\n")
    return [text, *(one.get_payload(decode=True) for one in leaves[1:])]
