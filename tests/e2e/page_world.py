"""Two simulated engines, a proxy before them and a load, for looking at the status page."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from proxy.commands.demo_load import demo_workload
from proxy.loadtest.prompts import Prompts
from proxy.loadtest.workload import shots
from tests.children import ROOT
from tests.e2e.harness import ProxyProcess, free_port
from tests.e2e.scripted_upstream import HOST, wait_for

TENANTS = ("acme", "search", "mobile-app", "batch-embeddings")


class Engine:
    """`penstock simulate` on a free port."""

    def __init__(self, profile: str, speed: float) -> None:
        self.url = f"http://{HOST}:{free_port()}"
        port = self.url.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "proxy", "simulate", "--port", port, "--profile", profile, f"--speed={speed}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)

    def answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
            return bool(response.status == 200)
        return False

    def control(self, **faults: Any) -> None:
        body = json.dumps(faults).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/sim/control", body), timeout=5).close()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def engines(*names: str, profile: str = "h100-qwen3-14b", speed: float = 4.0) -> Iterator[dict[str, Engine]]:
    made = {name: Engine(profile, speed) for name in names}
    try:
        for name, engine in made.items():
            wait_for(engine.answers, f"the simulated engine {name}", 20)
        yield made
    finally:
        for engine in made.values():
            engine.end()


def settings(made: dict[str, Engine], **limit: Any) -> dict[str, Any]:
    return {
        "upstreams": [{"name": name, "url": one.url, "engine": "vllm", "limit": limit} for name, one in made.items()],
        "trust": {"proxies": [f"{HOST}/32"]},
        "probe": {"interval_s": 0.5, "fail_after": 2, "pass_after": 1},
        "queue": {"tenant_share": 1},
        "log": {"sample_rate": 0},
    }


class Proxy(ProxyProcess):
    """A proxy that can be started again on the same ports."""

    def again(self) -> None:
        self.stop()
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


@contextmanager
def proxy(folder: Path, config: dict[str, Any]) -> Iterator[Proxy]:
    made = Proxy(folder, config)
    try:
        made.wait_alive("/ready")
        yield made
    finally:
        made.process.kill()
        made.process.wait()


@asynccontextmanager
async def load(port: int, clients: int, seed: int = 0, pause_s: float = 0.0) -> AsyncIterator[None]:
    """Clients that send one request after another, of several tenants and classes, until the block ends."""
    rng = random.Random(seed)
    prompts, sizes = Prompts(rng), shots(demo_workload(1.0, 1e9, seed), rng)
    url = f"http://{HOST}:{port}"

    async def client(session: aiohttp.ClientSession, model: str, tenant: str) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause_s) if pause_s else 0)
            shot = next(sizes)
            headers = {"content-type": "application/json", "x-priority": shot.flow.class_name}
            body = prompts.body(shot, model)
            with suppress(aiohttp.ClientError):
                path = f"{url}/v1/chat/completions"
                async with session.post(path, data=body, headers={**headers, "x-tenant-id": tenant}) as answer:
                    await answer.read()
                    if answer.status >= 400:
                        await asyncio.sleep(0.5)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async with session.get(f"{url}/v1/models") as answer:
            model = (await answer.json())["data"][0]["id"]
        names = itertools.islice(itertools.cycle(TENANTS), clients)
        tasks = [asyncio.create_task(client(session, model, tenant)) for tenant in names]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
