"""The example of a group, run: HAProxy with the example's very file (ports and addresses put in), real relays behind it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import smtplib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.kit import Relay, free_port, until

GROUP = Path(__file__).parents[2] / "deploy" / "group"
CLIENT = "127.0.0.77"
UNREACHABLE = "https://127.0.0.1:9"
"""Nobody listens on port 9: accepted mail stays in the spool, which is all that is looked at."""


def haproxy() -> str:
    """The program; Debian keeps it out of a user's PATH."""
    program = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    assert program, "haproxy is missing: run .ci/tools, which installs Debian's package"
    return program


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Group:
    """Two relays on addresses of their own, the balancer in front of them."""

    def __init__(self, folder: Path) -> None:
        self.port, smtp, web = free_port(), free_port(), free_port()
        self.web = web
        config = (GROUP / "config.yaml").read_text()
        config = config.replace("[172.30.26.2]", "[127.0.0.1]").replace("[10.0.0.0/8,", f"[{CLIENT},")
        self.relays = {f"127.0.1.{n}": self._relay(folder / f"relay{n}", n, smtp, config) for n in (1, 2)}
        text = (GROUP / "haproxy.cfg").read_text().replace("bind :25", f"bind 127.0.0.1:{self.port}")
        text = re.sub(r"relay([12]):25\b", rf"127.0.1.\1:{smtp}", text.replace("port 8025", f"port {web}"))
        text = re.sub(r"^  server relay3.*\n", "", text, flags=re.MULTILINE)
        self.text = text
        self.log = folder / "haproxy.log"
        self.balancer: subprocess.Popen[bytes] | None = None

    def balance(self, ready: str = "/readyz") -> None:
        """Start the balancer, which asks for the page ``ready``."""
        self.log.with_name("haproxy.cfg").write_text(self.text.replace("/readyz", ready))
        with self.log.open("wb") as log:
            command = [haproxy(), "-db", "-f", str(self.log.with_name("haproxy.cfg"))]
            self.balancer = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: _listens(self.port), what="the balancer listens")

    def _relay(self, folder: Path, number: int, smtp: int, config: str) -> Relay:
        folder.mkdir()
        config = config.replace("0.0.0.0:25", f"127.0.1.{number}:{smtp}").replace(
            "0.0.0.0:8025", f"127.0.1.{number}:{self.web}"
        )
        (folder / "config.yaml").write_text(config)
        env = {
            "RELAY_FROM_EMAIL": "notifications@contoso.com",
            "RELAY_TENANT_ID": "11111111-2222-4333-8444-555555555555",
            "RELAY_CLIENT_ID": "66666666-7777-4888-9999-aaaaaaaaaaaa",
            "RELAY_CLIENT_SECRET": "none",
            "RELAY_AUTHORITY": UNREACHABLE,
            "RELAY_TRANSPORT": "smtp",
            "RELAY_LOG_FORMAT": "json",
        }
        relay = Relay(folder, env, folder / "config.yaml")
        del relay.env["RELAY_LISTEN"]  # by the file, as in the example
        return relay.start(wait=False)

    def answers(self, address: str, path: str) -> bool:
        """Whether one relay says yes; ``/readyz`` is what HAProxy asks."""
        try:
            with urllib.request.urlopen(f"http://{address}:{self.web}{path}", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def said(self, words: str) -> bool:
        """Whether the balancer's log has these words."""
        return words in self.log.read_text()

    def send(self, message_id: str) -> None:
        """One message from the client's address."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20, source_address=(CLIENT, 0)) as client:
            text = f"From: app@legacy.local\r\nMessage-ID: <{message_id}>\r\nSubject: hello\r\n\r\nhello\r\n"
            client.sendmail("app@legacy.local", ["anna@contoso.com"], text)

    def accepted(self, address: str) -> list[str]:
        """The clients of the mail that one relay has accepted, as its log says."""
        return [one["client"] for one in self.relays[address].events("accepted")]

    def all_accepted(self, count: int) -> list[str]:
        """The same of both, once there are so many."""
        until(lambda: sum(len(self.accepted(one)) for one in self.relays) >= count, what=f"{count} accepted")
        return [client for one in self.relays for client in self.accepted(one)]

    def close(self) -> None:
        """End what still runs."""
        if self.balancer is not None:
            self.balancer.kill()
            self.balancer.wait(10)
        for relay in self.relays.values():
            relay.close()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    one = Group(tmp_path)
    try:
        for address in one.relays:
            until(lambda address=address: one.answers(address, "/readyz"), what=f"{address} is ready")
        yield one
    finally:
        one.close()


def test_haproxy_takes_the_example_as_it_is():
    done = subprocess.run(
        [haproxy(), "-c", "-f", str(GROUP / "haproxy.cfg")], capture_output=True, text=True, timeout=30,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[ALERT]" not in done.stderr


def test_clients_keep_their_address_and_a_relay_that_stops_is_taken_out(group):
    first, second = group.relays
    group.balance()
    for number in range(4):
        group.send(f"{number}@legacy.local")
    assert group.all_accepted(4) == [CLIENT] * 4
    assert set(group.accepted(first)) == set(group.accepted(second)) == {CLIENT}

    assert group.relays[first].stop() == 0
    group.send("at-once@legacy.local")  # whether or not the balancer has noticed yet
    until(lambda: group.said("Server relays/relay1 is DOWN"), what="the stopped relay is taken out")
    group.send("later@legacy.local")
    assert len(group.all_accepted(6)) == 6

    group.relays[first].start(wait=False)
    until(lambda: group.said("Server relays/relay1 is UP"), what="it is back")
    found = group.relays[first].command("queue", "list", "--json").stdout
    assert CLIENT in found


def test_when_no_relay_is_ready_clients_still_hear_the_relay_and_not_a_closed_door(group):
    """The balancer asks for a page that says no, as /readyz does while the database is away: relay itself answers 451 then."""
    group.balance(ready="/nowhere")
    for name in ("relay1", "relay2"):
        until(lambda name=name: group.said(f"Server relays/{name} is DOWN"), what=f"{name} is out")
    group.send("anyway@legacy.local")
    assert group.all_accepted(1) == [CLIENT]
