"""A real Prometheus scrapes a real relay, and the rules fire."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from pathlib import Path

import pytest

from tests.journeys.kit import free_port
from tests.monitor.test_metrics import FOLDER, send

CONFIG = """\
global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: relay
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
async def prometheus(site, tmp_path: Path):
    """Prometheus in a folder of its own, scraping the relay; its address. The rules wait for nothing."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    rules = (FOLDER / "relay.rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"\n +for: \w+", "", rules))
    (folder / "prometheus.yml").write_text(CONFIG.format(target=site.url.removeprefix("http://")))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()


async def test_it_scrapes_and_the_rules_fire(site, prometheus):
    """Mail waits, and Entra ID is nowhere: the query finds the message, and RelayTokenRefused is raised."""
    await asyncio.to_thread(send, site)
    expected = {
        'relay_events_total{event="accepted"} == 1',
        'relay_lane_backlog{mailbox="notifications@contoso.com"} == 1',
        'ALERTS{alertname="RelayTokenRefused", alertstate="firing", upstream="Microsoft 365"}',
    }
    async with asyncio.timeout(60):
        while expected:
            for query in tuple(expected):
                if await found(site, prometheus, query):
                    expected.discard(query)
            await asyncio.sleep(0.1)


async def found(site, prometheus: str, query: str) -> bool:
    """Whether a query has a result."""
    try:
        answer = await site.get(f"{prometheus}/api/v1/query?query={urllib.parse.quote(query)}")
    except OSError:  # not up yet
        return False
    return answer.status == 200 and bool(json.loads(answer.text)["data"]["result"])
