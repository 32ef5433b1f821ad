"""Certificates that are renewed on disk are used without a reload; unusable ones change nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import smtplib
import ssl

from relay.simulator import pki
from tests.web.client import CONFIG, Site


async def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("relay.daemon.LOOK_AT_CERTIFICATES", 0.05)
    ca, pair = pki.prepare(tmp_path, ("localhost",))
    (tmp_path / "new").mkdir()
    _, renewed = pki.prepare(tmp_path / "new", ("localhost",))
    tls = f"{{{{certificate: '{pair}', key: '{pair}'}}}}"
    config = CONFIG.replace(
        "- bind: 127.0.0.1:0",
        f"- {{{{bind: '127.0.0.1:0', tls: {{{{mode: starttls, certificate: '{pair}', key: '{pair}'}}}}}}}}",
    )
    site = Site(tmp_path, config=config + f"  tls: {tls}\n", trust=ssl.create_default_context(cafile=str(ca)))
    await site.start()
    try:
        old = await asyncio.to_thread(both, site)
        assert old[0] == old[1]
        replace(pair, b"-----BEGIN NONSENSE-----\n")
        await said(site, "cannot be used")
        assert await asyncio.to_thread(both, site) == old
        shutil.copy(renewed, tmp_path / "next.pem")
        os.replace(tmp_path / "next.pem", pair)
        await said(site, "certificate read again")
        async with asyncio.timeout(20):
            while (new := await asyncio.to_thread(both, site))[0] == old[0] or new[1] == old[1]:
                await asyncio.sleep(0.02)
        assert new[0] == new[1]
    finally:
        await site.stop()


def replace(path, content: bytes) -> None:
    """Another file in its place."""
    new = path.with_suffix(".tmp")
    new.write_bytes(content)
    os.replace(new, path)


async def said(site: Site, words: str) -> None:
    """Wait until the log says so."""
    async with asyncio.timeout(20):
        while not any(words in str(fields.get("what", "")) for _, fields in site.said):
            await asyncio.sleep(0.02)


def both(site: Site) -> tuple[bytes, bytes]:
    """The certificates of the listener and of the page."""
    host, port = next(iter(site.daemon.listeners.values())).address
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP(host, port, timeout=20) as client:
        client.starttls(context=anybody)
        listener = client.sock.getpeercert(binary_form=True)
    address = site.url.removeprefix("https://").rsplit(":", 1)
    page = ssl.get_server_certificate((address[0], int(address[1])), timeout=20)
    return listener, ssl.PEM_cert_to_DER_cert(page)
