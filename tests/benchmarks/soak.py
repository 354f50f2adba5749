"""A long run at 70 % of the knee, with clients that leave and engines that die: `make soak DURATION=600`.

Three simulated engines behind the proxy; one of twenty requests is left by its client, each minute one engine is killed
and started again. Every answer must be explained: whole; or refused, or cut with an error event, with a reason that the
proxy also counted. At the end no seat is held, every request has one outcome, and the slope of the proxy's memory is
printed; it means something from half an hour on, because histories and young garbage fill up for the first fifteen
minutes. Ctrl-C ends the run early and judges what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from proxy.commands.child import Child
from tests.e2e.engines import READY, SimulatedEngine
from tests.e2e.harness import ProxyProcess, running, unclean
from tests.e2e.raw_client import chat, post
from tests.e2e.scripted_upstream import HOST

MODEL = "simulated-llama-2-7b-awq"
ENGINES = 3
SHARE_OF_KNEE = 0.7
ABORTS = 0.05
RESTART_EVERY_S = 60.0
REPORT_EVERY_S = 10.0
KNEE_CLIENTS = 48
LONGEST_S = 120.0
EXPLAINED = {  # what an engine's death may lead to: its own exchanges cut, others shed or late for a while
    "cut upstream_error", "502 upstream_error", "503 server_is_overloaded", "503 queue_timeout", "429 queue_full",
    "429 displaced", "429 rate_limit_exceeded", "504 upstream_timeout", "503 engine",
}  # fmt: skip


class SmallEngine(SimulatedEngine):
    """Eight sequences at once: its knee is low, so that the load is cheap."""

    def __init__(self, seed: int, speed: float) -> None:
        self.arguments = ["simulate", "--port=0", "--profile=t4-7b-awq", f"--speed={speed}", f"--seed={seed}"]
        self.child = Child(self.arguments)
        self.url = self.child.read_until(READY)
        self.port = int(self.url.rsplit(":", 1)[1])


@dataclass
class Tally:
    """How requests ended, and the samples of memory."""

    asked: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    rss: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes
    restarts: int = 0

    @property
    def unexplained(self) -> Counter[str]:
        good = {"whole", "left"} | EXPLAINED
        return Counter({end: count for end, count in self.ends.items() if end not in good})

    def slope_mb_per_h(self) -> float:
        """Least squares over the second half: caches and allocators have settled by then."""
        late = self.rss[len(self.rss) // 2 :]
        if len(late) < 3:
            return 0.0
        mean_s = sum(at_s for at_s, _ in late) / len(late)
        mean = sum(size for _, size in late) / len(late)
        spread = sum((at_s - mean_s) ** 2 for at_s, _ in late)
        return sum((at_s - mean_s) * (size - mean) for at_s, size in late) / spread * 3600 / 1e6


class Clients:
    """Asks, reads or leaves, and names the end of each request."""

    def __init__(self, port: int, rng: Random, tally: Tally) -> None:
        self.port, self.rng, self.tally = port, rng, tally
        self.idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        task = asyncio.get_running_loop().create_task(self.one())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def one(self) -> None:
        rng = self.rng
        stream = rng.random() < 0.7
        tokens = min(200, 1 + int(rng.expovariate(1 / 40)))
        request = post(chat(MODEL, stream=stream, max_tokens=tokens, ignore_eos=True))
        leaves_s = rng.uniform(0.0, 1.0) if rng.random() < ABORTS else LONGEST_S
        self.tally.asked += 1
        try:
            async with asyncio.timeout(leaves_s):
                end = await self._exchange(request, stream)
        except TimeoutError:
            end = "left" if leaves_s < LONGEST_S else "never ended"
        except OSError as error:
            end = f"connection: {type(error).__name__}"
        self.tally.ends[end] += 1

    async def _exchange(self, request: bytes, stream: bool) -> str:
        while self.idle:
            since_s, reader, writer = self.idle.pop()
            if time.monotonic() - since_s < 30 and not reader.at_eof():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        kept = False
        try:
            writer.write(request)
            end, kept = await self._read(reader, stream)
        finally:
            if kept:
                self.idle.append((time.monotonic(), reader, writer))
            else:
                writer.transport.abort()
        return end

    async def _read(self, reader: asyncio.StreamReader, stream: bool) -> tuple[str, bool]:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except asyncio.IncompleteReadError:
            return "no answer", False
        status = int(head.split(" ", 2)[1])
        body, whole = await self._body(reader, head)
        kept = whole and "connection: close" not in head
        if status == 200 and whole and (b"[DONE]" in body[-64:] or not stream):
            return "whole", kept
        if status == 200:
            cut = body.rfind(b'{"error":')
            return f"cut {_code(body[cut:].strip()) if cut >= 0 else 'without a word'}", False
        return f"{status} {_code(body) if 'x-penstock-reason' in head else 'engine'}", kept

    async def _body(self, reader: asyncio.StreamReader, head: str) -> tuple[bytes, bool]:
        body = b""
        try:
            if "content-length: " in head:
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                return await reader.readexactly(length), True
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body = body[-65_536:] + await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return body, False
        return body, True


def _code(body: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"]["code"])
    return "unreadable"


def rss_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


async def find_knee(clients: Clients, seconds: float) -> float:
    """Requests per second that clients in a closed loop get through, in the second half of the time."""
    until_s = time.monotonic() + seconds
    counted: list[int] = []

    async def go_on() -> None:
        while time.monotonic() < until_s:
            await clients.one()

    async def half() -> None:
        await asyncio.sleep(seconds / 2)
        counted.append(clients.tally.ends["whole"])

    await asyncio.gather(half(), *(go_on() for _ in range(KNEE_CLIENTS)))
    return (clients.tally.ends["whole"] - counted[0]) / (seconds / 2)


async def load(clients: Clients, rate: float, until_s: float, stop: asyncio.Event) -> None:
    """Arrivals of a Poisson process; nobody waits for an answer before the next one asks."""
    due_s = time.monotonic()
    while due_s < until_s and not stop.is_set():
        due_s += clients.rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        clients.start()


async def kill_engines(engines: list[SmallEngine], tally: Tally, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(engines[tally.restarts % len(engines)].restart)
        tally.restarts += 1


async def watch(proxy: ProxyProcess, tally: Tally, started_s: float, every_s: float) -> None:
    seen = 0
    while True:
        await asyncio.sleep(every_s)
        state = await asyncio.to_thread(proxy.state)
        size = rss_bytes(proxy.process.pid)
        at_s = time.monotonic() - started_s
        tally.rss.append((at_s, size))
        odd = sum(tally.unexplained.values())
        limits = "/".join(f"{one['limit']:.0f}" for one in state["upstreams"])
        print(
            f"{at_s:6.0f} s  {(tally.asked - seen) / every_s:6.1f} req/s  whole {tally.ends['whole']}  left "
            f"{tally.ends['left']}  unexplained {odd}  held {state['permits']['held']}  leaked "
            f"{state['permits']['leaked']}  limits {limits}  restarts {tally.restarts}  {size / 1e6:.1f} MB",
            flush=True,
        )  # fmt: skip
        seen = tally.asked


async def soak(proxy: ProxyProcess, engines: list[SmallEngine], arguments: argparse.Namespace) -> Tally:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    clients = Clients(proxy.port, Random(arguments.seed), Tally())
    tally = clients.tally
    knee = arguments.knee or await find_knee(clients, 20.0)
    rate = SHARE_OF_KNEE * knee
    print(f"knee {knee:.1f} req/s, load {rate:.1f} req/s for {arguments.duration:.0f} s", flush=True)
    started_s = time.monotonic()
    every_s = min(REPORT_EVERY_S, arguments.duration / 6)
    background = [
        asyncio.ensure_future(kill_engines(engines, tally, min(RESTART_EVERY_S, arguments.duration / 3))),
        asyncio.ensure_future(watch(proxy, tally, started_s, every_s)),
    ]
    await load(clients, rate, started_s + arguments.duration, stop)
    for task in background:
        task.cancel()
    await asyncio.wait(background)
    while clients.tasks:
        await asyncio.wait(set(clients.tasks))
    for _, _, writer in clients.idle:
        writer.close()
    return tally


def judge(proxy: ProxyProcess, tally: Tally) -> list[str]:
    """What is wrong, one line each."""
    until_s = time.monotonic() + 15
    while (held := unclean(proxy)) and time.monotonic() < until_s:
        time.sleep(0.1)
    state = proxy.state()
    outcomes = sum(state["outcomes"].values())
    print("ends:", ", ".join(f"{end} {count}" for end, count in tally.ends.most_common()))
    print("outcomes:", ", ".join(f"{name} {count}" for name, count in state["outcomes"].items() if count))
    print(f"permits: {state['permits']}; {tally.restarts} restarts; RSS slope {tally.slope_mb_per_h():+.2f} MB/h")
    wrong = [f"unexplained: {end} ({count})" for end, count in tally.unexplained.items()]
    wrong += [f"still held: {what}" for what in held]
    if state["permits"]["leaked"]:
        wrong.append(f"leaked permits: {state['permits']['leaked']}")
    if outcomes != tally.asked:
        wrong.append(f"{tally.asked} requests asked, {outcomes} outcomes counted")
    if "Traceback" in proxy.log():
        wrong.append("a traceback in the log")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.soak", description=__doc__, epilog="example: make soak DURATION=3600",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--duration", type=float, default=600.0, help="seconds of load (default 600)")
    parser.add_argument("--knee", type=float, help="requests per second at the knee (default: measured in 20 s)")
    parser.add_argument("--speed", type=float, default=2.0, help="of the simulated engines (default 2)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = [SmallEngine(number, arguments.speed) for number in range(ENGINES)]
        for engine in engines:
            stack.enter_context(engine)
        config = {
            "upstreams": [{"name": f"engine-{n}", "url": one.url} for n, one in enumerate(engines)],
            "probe": {"interval_s": 1},
            "target": {"itl_ms": 60, "ttft_ms": 1000},
            "log": {"sample_rate": 0.01},
        }
        proxy = stack.enter_context(running(folder, config))
        tally = asyncio.run(soak(proxy, engines, arguments))
        wrong = judge(proxy, tally)
    print(*wrong or ["clean"], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
