"""What the browser looks at: a simulated Microsoft 365, and a real relay process with a page of its own."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from relay.config.load import load
from relay.message import Client, Envelope, Recipient
from relay.spool.contract import NewMessage, Spool, lane_name
from relay.spool.factory import build_spool
from tests.journeys.kit import Microsoft, Relay, free_port, until

PASSWORD = "correct horse battery staple"
LANE = lane_name("Microsoft 365", "notifications@contoso.com")
CONFIG = """\
# Written by hand, and it stays that way.
upstreams:
  - server_name: Microsoft 365  # the guide calls it so
    from_email: notifications@contoso.com
    tenant_id: {RELAY_TENANT_ID}
    client_id: {RELAY_CLIENT_ID}
    client_secret: file:client-secret
    port: {RELAY_PORT}
    timeout: 120
    batch_size: medium
    host: {RELAY_HOST}
    authority: {RELAY_AUTHORITY}
    graph_url: {RELAY_GRAPH_URL}
    ca_file: {RELAY_CA_FILE}
listeners:
  - bind: 127.0.0.1:{listen}
senders:
  - match: "*@scanners.local"  # every device on the second floor
    from: scans@contoso.com
  - {{match: erp@legacy.local, from: reports@contoso.com}}
spool: {{url: "sqlite:///{folder}/spool.db"}}
web: {{bind: "127.0.0.1:{port}"}}
"""


class Stage:
    """One folder with everything in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "microsoft").mkdir()
        self.microsoft = Microsoft(folder / "microsoft")
        self.secret = self.microsoft.env["RELAY_CLIENT_SECRET"]
        self.port, self.listen = free_port(), free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.config = folder / "config.yaml"
        self.write(folder / "client-secret", self.secret)
        self.write(
            self.config,
            CONFIG.format(**self.microsoft.env, listen=self.listen, port=self.port, folder=folder),
        )
        self.relay = Relay(folder, {}, self.config)
        for name in ("RELAY_LISTEN", "RELAY_SPOOL_URL"):
            del self.relay.env[name]  # the file says it, and the page changes the file
        self.relay.port = self.listen

    @staticmethod
    def write(path: Path, text: str) -> None:
        """A private file."""
        path.touch(mode=0o600)
        path.write_text(text)

    def start(self) -> str:
        """Start the relay; the one-time link it prints."""
        self.relay.start()
        return str(until(self._link, what="the one-time link"))

    def _link(self) -> str:
        lines = [one for one in self.relay.log.read_text().splitlines() if '"link"' in one]
        return json.loads(lines[-1])["link"] if lines else ""

    def fill(self, count: int) -> None:
        """Put mail into the queue of a relay that is not started yet."""
        asyncio.run(_fill(self.config, count))

    def stop(self) -> None:
        """End both processes."""
        self.relay.close()
        self.microsoft.stop()


SUBJECTS = (
    "Order {n} confirmed", "Scan from 2nd floor, page {n}", "Backup report: {n} files", "Signify: alarm in zone {n}",
    "Rechnung Nr. {n} – Größe geändert", "Re: question about delivery {n}",
    "A very long subject that somebody wrote without ever thinking of who has to read it in a narrow table {n}",
)  # fmt: skip
SENDERS = (
    "erp@legacy.local", "scanner-3@scanners.local", "backup@nas.office.example", "notify@signify.local",
    "a.very.long.address.of.a.department.that.nobody.shortened@subsidiary.of.the.group.example.com",
)  # fmt: skip


async def _fill(config: Path, count: int) -> None:
    spool = build_spool(load(config, {}).spool)
    await spool.open()
    try:
        for start in range(0, count, 500):
            await asyncio.gather(*(_put(spool, number) for number in range(start, min(count, start + 500))))
    finally:
        await spool.close()


async def _put(spool: Spool, number: int) -> None:
    sender = SENDERS[number % len(SENDERS)]
    subject = SUBJECTS[number % len(SUBJECTS)].format(n=number)
    people = tuple(Recipient(f"person{number}.{index}@customer.example") for index in range(1 + number % 3))
    draft = spool.draft()
    await draft.write(b"Hello.\r\n" * (1 + number % 400))
    await draft.commit(
        NewMessage(
            envelope=Envelope(sender, people),
            client=Client("192.168.10.7", 40000, "device", None, None, "127.0.0.1:25"),
            header=f"From: {sender}\r\nTo: {people[0].address}\r\nMessage-ID: <{number}@legacy.local>\r\n"
            f"Subject: order {number}\r\n\r\n".encode(),
            lane=LANE,
            source=sender,
            header_from=(sender,),
            message_id=f"<{number}@legacy.local>",
            subject=subject,
        )
    )


def token_of(html: str) -> str:
    """The CSRF token of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', html)
    assert found is not None, html[:500]
    return found[1]
