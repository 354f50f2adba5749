"""A headless Chromium, driven over the Chrome DevTools Protocol: as little of it as the status page's tests need.

https://chromedevtools.github.io/devtools-protocol/: commands are JSON with an id over a websocket, events come between.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
START_S = 30.0
ANSWER_S = 15.0
LOUD = {"error", "warning", "assert"}


class Page:
    """One tab. `complaints` are console errors, uncaught exceptions and what the browser itself reports."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        self.requested: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {told['exceptionDetails']['text']} {told['exceptionDetails']}"[:500])
        elif method == "Runtime.consoleAPICalled" and told["type"] in LOUD:
            self.complaints.append(f"console: {told['args']}"[:500])
        elif method == "Log.entryAdded":
            self.complaints.append(f"{told['entry']['source']}: {told['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])

    async def send(self, method: str, **arguments: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": arguments})
        async with asyncio.timeout(ANSWER_S):
            told = await self._answers[number]
        assert "error" not in told, f"{method}: {told.get('error')}"
        result: dict[str, Any] = told["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Runtime", "Log", "Network", "Page"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression (a promise is awaited) gives, as JSON. The page's policy does not hold here."""
        told = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression: str, seconds: float = ANSWER_S) -> Any:
        """Wait until an expression is true."""
        deadline_s = time.monotonic() + seconds
        while not (found := await self.value(expression)):
            assert time.monotonic() < deadline_s, f"not within {seconds} s: {expression}\n{await self.text()}"
            await asyncio.sleep(0.05)
        return found

    async def text(self) -> str:
        return str(await self.value("document.body.innerText"))

    async def look(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        """Size of the window in CSS pixels, a phone below 600, and the colour scheme that the user prefers."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
            mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        event = {"key": key, "windowsVirtualKeyCode": codes[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        await self.send("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def picture(self, whole: bool = True) -> bytes:
        """A PNG of the whole page, or of what the window shows."""
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


def _program() -> str:
    found = shutil.which("chromium")
    assert found, "install the Debian package chromium"
    return found


async def _port(folder: Path, alive: Callable[[], bool]) -> int:
    file = folder / "DevToolsActivePort"
    deadline_s = time.monotonic() + START_S
    while not (file.exists() and file.read_text().strip()):
        assert alive(), "Chromium has ended"
        assert time.monotonic() < deadline_s, f"Chromium has not started within {START_S} s"
        await asyncio.sleep(0.05)
    return int(file.read_text().split()[0])


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A fresh Chromium with an empty profile and one tab."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [_program(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
        try:
            port = await _port(Path(profile), lambda: process.returncode is None)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(one for one in await answer.json() if one["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    yield page
                    listening.cancel()
        finally:
            process.terminate()
            await process.wait()
