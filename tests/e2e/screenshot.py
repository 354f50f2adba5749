"""`make screenshot`: the status page's picture for the README, taken of two simulated engines under a changing load.

usage: python -m tests.e2e.screenshot docs/status.png [SECONDS]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.e2e.browser import browser
from tests.e2e.page_world import engines, load, proxy, settings
from tests.e2e.scripted_upstream import HOST

LOOK = (1280, 1150)
CALM_S, BUSY_S = 50.0, 70.0
TARGET = {"itl_ms": 100, "ttft_ms": 2000}


async def take(folder: Path, seconds: float) -> bytes:
    with engines("vllm-0", "vllm-1", profile="h100x4-llama70b-fp8", speed=0.2) as made:
        config = settings(made) | {"target": TARGET}
        with proxy(folder, config) as served:
            async with load(served.port, 60, pause_s=2.0), AsyncExitStack() as stack:
                clock = asyncio.get_running_loop().time
                ends_s = clock() + seconds
                while clock() < ends_s:
                    await asyncio.sleep(min(CALM_S, ends_s - clock()))
                    async with load(served.port, 120, seed=1, pause_s=1.0):
                        await asyncio.sleep(min(BUSY_S, max(20.0, ends_s - clock())))
                await stack.enter_async_context(load(served.port, 120, seed=2, pause_s=1.0))
                page = await stack.enter_async_context(browser())
                await page.look(*LOOK, scale=1.5)
                await page.open(f"http://{HOST}:{served.admin_port}/")
                await asyncio.sleep(25)
                return await page.picture(whole=False)


def main() -> None:
    path = Path(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
    with tempfile.TemporaryDirectory() as folder:
        path.write_bytes(asyncio.run(take(Path(folder), seconds)))
    print(path)


if __name__ == "__main__":
    main()
