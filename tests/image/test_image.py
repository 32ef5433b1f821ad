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

from tests.container.kube import rendered
from tests.image.container import Container, Image, until
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

    def secrets(self) -> Path:
        """The folder of mounted secrets, readable for the image's user alone."""
        folder = self.folder / "secrets"
        if not folder.exists():
            folder.mkdir(mode=0o755)
            self.give(folder / "client-secret", self.microsoft.env["RELAY_CLIENT_SECRET"])
            self.give(folder / "ca.pem", Path(self.microsoft.env["RELAY_CA_FILE"]).read_text())
        return folder

    def give(self, file: Path, text: str) -> None:
        """A file for the image's user."""
        file.write_text(text)
        os.chown(file, 0, int(self.image.config["User"]))
        file.chmod(0o440)

    def environment(self) -> dict[str, str]:
        """What points relay at this Microsoft; without the secret."""
        given = {
            **self.microsoft.env,
            "RELAY_CA_FILE": "/run/secrets/relay/ca.pem",
            "RELAY_LOG_LEVEL": "debug",
        }
        return {name: text for name, text in given.items() if name != "RELAY_CLIENT_SECRET"}

    def container(self) -> Container:
        """The image's command, set up by the environment alone; the secret is a file."""
        own = {
            **self.environment(),
            "RELAY_CLIENT_SECRET_FILE": "/run/secrets/relay/client-secret",
            "RELAY_LISTEN": "0.0.0.0:25",
            "RELAY_ALLOW": "192.0.2.0/24",
        }
        return Container(self.image, self.stage, self.folder, own, {"/run/secrets/relay": self.secrets()})

    def get(self, port: int, path: str) -> str:
        """The status that the outside host gets, asking by address as a kubelet does."""
        url = f"http://{INSIDE}:{port}{path}"
        return self.stage.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url).stdout

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
        assert "RELAY_CLIENT_SECRET_FILE=/run/secrets/relay/client-secret" in shown
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


def test_the_charts_configuration_answers_kubernetes_probes(site):
    """The pod that Helm makes, in a container: its probes over HTTP, its metrics, and mail through its port."""
    values = site.folder / "values.yaml"
    values.write_text("clientNetworks: [192.0.2.0/24]\nweb: {metricsFrom: [192.0.2.0/24]}\n")
    items = {one["kind"]: one for one in rendered(values)}
    (pod,) = items["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    (site.folder / "etc").mkdir(mode=0o755)
    site.give(site.folder / "etc" / "config.yaml", items["ConfigMap"]["data"]["config.yaml"])
    variables = {**site.environment(), **{one["name"]: one["value"] for one in pod["env"]}}
    mounts = {"/run/secrets/relay": site.secrets(), "/etc/relay": site.folder / "etc"}
    (port,) = (one["containerPort"] for one in pod["ports"] if one["name"] == "web")
    with Container(site.image, site.stage, site.folder, variables, mounts) as container:
        started, *others = (
            pod[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        )
        until(lambda: site.get(port, started) == "200", container.log.read_text)
        assert {site.get(port, path) for path in others} == {"200"}
        assert site.get(port, "/metrics") == "200"
        site.send("--from", "erp@legacy.local", "--body", "through the chart's pod")
        assert b"through the chart's pod" in site.microsoft.arrived(1)[1]
        container.signal("TERM")
        assert container.exit_status() == 0


def parts(raw: bytes) -> list[bytes]:
    """What a reader of the message gets to see and to save."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    leaves = [one for one in message.walk() if not one.is_multipart()]
    text = leaves[0].get_payload(decode=True).replace(b"\r\n", b"\n").rstrip(b"\n")
    return [text, *(one.get_payload(decode=True) for one in leaves[1:])]
