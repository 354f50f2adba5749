"""Every panel shows data: the real Prometheus scrapes a proxy under mixed load, then answers the queries of all boards.

The proxy's own counts are compared with what the clients saw, to the last request.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.children import ROOT
from tests.e2e.harness import ProxyProcess, free_port, running
from tests.e2e.scripted_upstream import HOST, wait_for

pytestmark = pytest.mark.system

MODEL = "simulated-qwen3-14b"
LOAD_S = 25.0
CLIENTS = 60
RATE_INTERVAL = "15s"
SILENT_WITHOUT_FAULTS = {"Retries"}  # a healthy engine refuses nobody


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as started:
        try:
            yield started
        finally:
            started.terminate()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False


@contextmanager
def prometheus(folder: Path, admin_port: int) -> Iterator[str]:
    program = shutil.which("prometheus")
    assert program, "install the Debian package prometheus"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "config/prometheus/alerts.yml")],
        "scrape_configs": [{"job_name": "penstock", "static_configs": [{"targets": [f"{HOST}:{admin_port}"]}]}],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    url = f"http://{HOST}:{free_port()}"
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    with process(program, *options, f"--web.listen-address={url.removeprefix('http://')}"):
        wait_for(lambda: answers(f"{url}/-/ready"), "Prometheus", 20)
        yield url


async def one_request(session: aiohttp.ClientSession, url: str, number: int, seen: Counter[str]) -> None:
    """Mostly well; every tenth is unknown, every ninth leaves, others are of several classes and attempts."""
    body = {"model": "unknown" if number % 10 == 0 else MODEL, "stream": True, "max_tokens": 40}
    body["messages"] = [{"role": "user", "content": "word " * 50}]
    headers = {"x-priority": ("high", "normal", "low", "critical", "nonsense")[number % 5]}
    headers["x-stainless-retry-count"] = str(number % 3)
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        if number % 9 == 1 and answer.status == 200:
            await answer.content.readline()
            answer.close()
            seen["left"] += 1
            return
        text = await answer.read()
        seen["success" if text.endswith(b"data: [DONE]\n\n") else str(answer.status)] += 1


async def load(url: str) -> Counter[str]:
    seen: Counter[str] = Counter()
    until_s = time.monotonic() + LOAD_S

    async def client(first: int) -> None:
        number = first
        while time.monotonic() < until_s:
            await one_request(session, url, number, seen)
            number += 7

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return seen


def ask(url: str, query: str) -> list[dict[str, Any]]:
    filled = query.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", RATE_INTERVAL)
    with urllib.request.urlopen(
        f"{url}/api/v1/query?{urllib.parse.urlencode({'query': filled})}", timeout=10
    ) as response:
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return found


def numbers(samples: list[dict[str, Any]]) -> list[float]:
    return [value for sample in samples if (value := float(sample["value"][1])) == value]


def empty_panels(url: str) -> list[str]:
    """Queries that return nothing, or nothing but NaN."""
    boards = [json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))]
    return [
        f"{board['title']}: {panel['title']}: {target['expr']}"
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", [])
        if panel["title"] not in SILENT_WITHOUT_FAULTS and not numbers(ask(url, target["expr"]))
    ]


def check_counts(proxy: ProxyProcess, seen: Counter[str]) -> None:
    def settled() -> bool:
        return proxy.metric("penstock_requests_total") == seen.total()

    wait_for(settled, f"{seen} counted", 5)
    left = proxy.metric("penstock_requests_total", outcome="client_gone")
    assert left <= seen["left"]  # one that left after its last token has succeeded
    assert proxy.metric("penstock_requests_total", outcome="success") == seen["success"] + seen["left"] - left
    assert proxy.metric("penstock_requests_total", outcome="bad_request") == seen["404"]
    assert proxy.metric("penstock_client_disconnects_total") == left
    assert proxy.metric("penstock_tenant_requests_total") == seen.total()
    assert proxy.metric("penstock_request_duration_seconds_count") == seen.total()
    assert proxy.metric("penstock_leaked_permits") == 0


def test_every_panel_shows_data_and_counts_agree(tmp_path: Path) -> None:
    port = free_port()
    engine = [sys.executable, "-m", "proxy", "simulate", "--port", str(port), "--speed", "3"]
    settings = {
        "upstreams": [{"name": "engine", "url": f"http://{HOST}:{port}", "engine": "vllm"}],
        "target": {"itl_ms": 8},
    }
    with process(*engine):
        wait_for(lambda: answers(f"http://{HOST}:{port}/health"), "the simulated engine", 20)
        with running(tmp_path, settings) as proxy, prometheus(tmp_path, proxy.admin_port) as url:
            seen = asyncio.run(load(f"http://{HOST}:{proxy.port}"))
            assert empty_panels(url) == []
            check_counts(proxy, seen)
