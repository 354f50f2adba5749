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
TARGET = {"itl_ms": 16, "ttft_ms": 500}


async def take(folder: Path, seconds: float) -> bytes:
    with engines("h100-a", "h100-b", speed=1.0) as made:
        config = settings(made) | {"target": TARGET}
        with proxy(folder, config) as served:
            async with load(served.port, 24, pause_s=0.5), AsyncExitStack() as stack:
                clock = asyncio.get_running_loop().time
                ends_s = clock() + seconds
                while clock() < ends_s:
                    await asyncio.sleep(min(CALM_S, ends_s - clock()))
                    async with load(served.port, 96, seed=1, pause_s=0.5):
                        await asyncio.sleep(min(BUSY_S, max(20.0, ends_s - clock())))
                await stack.enter_async_context(load(served.port, 96, seed=2, pause_s=0.5))
                page = await stack.enter_async_context(browser())
                await page.look(*LOOK, scale=1.5)
                await page.open(f"http://{HOST}:{served.admin_port}/")
                await asyncio.sleep(10)
                return await page.picture(whole=False)


def main() -> None:
    path = Path(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
    with tempfile.TemporaryDirectory() as folder:
        path.write_bytes(asyncio.run(take(Path(folder), seconds)))
    print(path)


if __name__ == "__main__":
    main()
