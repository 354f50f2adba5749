"""Where the time of one request and of one streamed event goes: python -m tests.benchmarks.data_path.stages

The real connection, intake, dispatcher and exchange over transports that swallow what is written, so that neither
system calls nor the event loop count. Each stage is timed inside the whole; a stage contains those indented below it,
and a reading adds about 0.2 us to every stage around it. The least of many short runs is shown: what the machine does
meanwhile only adds. The heads are those of a client and an engine that send the same ones again and again. Log lines
are not rendered: they are made many in a row. A loop as tight as this one keeps its code and data in the caches;
between system calls the same steps take longer, and what happens once in a few hundred events, such as the beginning
and the end of a stream, finds neither there. That is shown as it is, too: with other data read in between.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from proxy.adapters import forward, metrics, upstream_pool
from proxy.adapters.build_info import COMPILED, NAME
from proxy.adapters.repeats import MISSES_MAX
from proxy.dispatcher import core
from proxy.server import connection, intake
from tests.adapters.shell import CHAT, DONE, LAST_CHUNK, STREAM_HEAD, ScriptedTransport, Shell, chunk, said, token
from tests.server.edge import Client, Edge, post

BATCH, BATCHES = 200, 100
STREAMS = 300
CACHES_BYTES = 8 << 20  # read to empty the caches of one core
STAGES: tuple[tuple[int, str, Any, str], ...] = (
    (0, "bytes of a request", connection.ClientConnection, "data_received"),
    (1, "body: JSON, class, ticket", intake.Intake, "read_body"),
    (2, "JSON", intake, "read_body"),
    (1, "dispatcher: arrived", core.Dispatcher, "arrived"),
    (1, "permit, connection, request sent", forward.Exchange, "granted"),
    (0, "bytes of the answer", upstream_pool.UpstreamConnection, "data_received"),
    (1, "answer relayed and ended", forward.Exchange, "answer_whole"),
    (2, "usage", forward, "usage_of"),
    (2, "dispatcher: finished", core.Dispatcher, "finished"),
    (2, "record", forward, "record_of"),
    (0, "metrics, of many at once", metrics.Metrics, "count"),
)
ENDS = ("a stream's request", "its head and first event", "its end")
USAGE = b'"usage":{"prompt_tokens":256,"completion_tokens":140,"total_tokens":396}'


class Silent(ScriptedTransport):
    """Swallows what is written."""

    def write(self, data: object) -> None: ...
    def writelines(self, pieces: Any) -> None: ...


class Clocks:
    """Sums of time by stage."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys((name for _, name, _, _ in STAGES), 0.0)

    def wrap(self, name: str, owner: Any, method: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)
        sums = self.sums

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                sums[name] += perf_counter() - started

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        taken, self.sums = dict(self.sums), self.sums
        for name in self.sums:
            self.sums[name] = 0.0
        return taken


class Path:
    """One client connection and one upstream connection, kept alive."""

    def __init__(self) -> None:
        self.edge = Edge(Shell(seats=8, checks=False))
        shell = self.edge.shell
        self.edge.listener.record = shell.metrics.request_ended
        shell.relay.record = shell.metrics.request_ended
        words = ("user-agent: bench", "accept: */*", "content-type: application/json", "authorization: Bearer sk-bench")
        text = b"word " * 180
        body = b'{"model":"m","max_tokens":256,%b"messages":[{"role":"user","content":"%b"}]}'
        self.plain = post(body % (b"", text), CHAT, *words)
        self.streamed = post(body % (b'"stream":true,', text), CHAT, *words)
        self.answer = said(b'{"choices":[{"message":{"content":"%b"}}],%b}' % (text, USAGE))
        self.client = Client(self.edge)
        self.client.transport.__class__ = Silent
        self.client.send(self.plain)
        self.upstream = shell.upstream()
        shell.transport().__class__ = Silent
        shell.answer(self.answer)

    def pass_time(self, seconds: float) -> None:
        """What the gate's loop does meanwhile."""
        self.edge.shell.now += seconds
        self.edge.shell.gate.expire()
        self.edge.shell.gate.tick()

    def requests(self, count: int, known: bool = True) -> float:
        """Seconds of so many requests, whose heads and those of their answers have come before, or not."""
        client, pool = self.client.connection, self.upstream.pool
        started = perf_counter()
        for _ in range(count):
            if not known:
                client.known, client.misses, pool.known = None, MISSES_MAX, None
            client.data_received(self.plain)
            self.upstream.data_received(self.answer)
        spent = perf_counter() - started
        self.pass_time(0.05)
        return spent

    def events(self, count: int) -> float:
        """Seconds of so many events of one stream, its request and end left out."""
        self.client.connection.data_received(self.streamed)
        self.upstream.data_received(STREAM_HEAD + chunk(token()))
        event = chunk(token())
        started = perf_counter()
        for _ in range(count):
            self.upstream.data_received(event)
        spent = perf_counter() - started
        self.upstream.data_received(chunk(token("stop")) + chunk(DONE) + LAST_CHUNK)
        self.pass_time(0.05)
        return spent

    def ends(self, count: int, cold: bool) -> list[float]:
        """Median seconds of what `ENDS` names; `cold`: each after the caches have been emptied."""
        client, upstream = self.client.connection, self.upstream
        first, event, ballast = STREAM_HEAD + chunk(token()), chunk(token()), bytearray(CACHES_BYTES)
        last = chunk(token("stop")) + chunk(b'data: {"choices":[],%b}\n\n' % USAGE) + chunk(DONE) + LAST_CHUNK
        steps = ((client.data_received, self.streamed), (upstream.data_received, first), (upstream.data_received, last))
        spent: list[list[float]] = [[] for _ in steps]
        for _ in range(count):
            for (step, data), seconds in zip(steps, spent, strict=True):
                if data is last:
                    for _ in range(BATCH):
                        upstream.data_received(event)
                if cold:
                    bytes(ballast)
                started = perf_counter()
                step(data)
                seconds.append(perf_counter() - started)
            self.pass_time(0.05)
        return [median(one) for one in spent]


def stages() -> list[str]:
    """Rows of the least time of each stage."""
    clocks = Clocks()
    for _, name, owner, method in STAGES:
        clocks.wrap(name, owner, method)
    path = Path()  # one that has bound none of the methods yet
    path.requests(10 * BATCH)
    least = dict.fromkeys(clocks.sums, float("inf"))
    for _ in range(BATCHES):
        clocks.take()
        path.requests(BATCH)
        least = {name: min(least[name], spent) for name, spent in clocks.take().items()}
    return [f"| {'&nbsp;' * 4 * depth}{name} | {least[name] / BATCH * 1e6:.1f} |" for depth, name, _, _ in STAGES]


def main() -> None:
    path = Path()
    path.requests(10 * BATCH)
    gc.collect()
    gc.freeze()
    whole = min(path.requests(BATCH) for _ in range(BATCHES)) / BATCH
    event = min(path.events(BATCH) for _ in range(BATCHES)) / BATCH
    unknown = min(path.requests(BATCH, known=False) for _ in range(BATCHES)) / BATCH
    print(f"{NAME}\n\n| stage of a request | us |\n|---|---:|")
    if not COMPILED:  # methods of compiled classes cannot be replaced by timed ones
        print("\n".join(stages()))
    print(f"| **whole request, without clocks inside** | **{whole * 1e6:.0f}** |")
    print(f"| **the same with heads that have not come before** | **{unknown * 1e6:.0f}** |")
    print(f"| **one streamed event** | **{event * 1e6:.1f}** |")
    print("\n| of a stream | us | with the caches emptied us |\n|---|---:|---:|")
    for name, warm, cold in zip(ENDS, path.ends(STREAMS, False), path.ends(STREAMS, True), strict=True):
        print(f"| {name} | {warm * 1e6:.0f} | {cold * 1e6:.0f} |")


if __name__ == "__main__":
    main()
