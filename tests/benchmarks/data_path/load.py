"""A closed loop: python -m tests.benchmarks.data_path.load PORT CONNECTIONS BYTES STREAM SECONDS PID...

Prints one JSON object: requests and events in the measured window, quantiles of latency, of the time to the first
event and of the transit of each event (its receipt less the stamp it carries), and the CPU time that the processes
PID took meanwhile, their threads and children included.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from tests.benchmarks.data_path.upstream import STAMP

OK = b"HTTP/1.1 200"
STAMPED = len(STAMP) + 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
QUANTILES = (0.5, 0.9, 0.99)


def cpu_s(pids: list[int]) -> float:
    """User and system time of these processes so far (field 14 and 15 of /proc/PID/stat: all threads)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def quantiles(values: list[float]) -> list[float]:
    """Microseconds at `QUANTILES`."""
    ordered = sorted(values)
    return [round(ordered[int(q * (len(ordered) - 1))] * 1e6, 1) for q in QUANTILES] if ordered else []


def request(body_bytes: int, streaming: bool) -> bytes:
    start = b'{"model": "m", "max_tokens": 256, %b"messages": [{"role": "user", "content": "' % (
        b'"stream": true, ' if streaming else b""
    )
    body = start + b"x" * max(0, body_bytes - len(start) - 4) + b'"}]}'
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\naccept: */*\r\n"
        b"content-type: application/json\r\nauthorization: Bearer sk-bench\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
    )


class Books:
    """What was seen since the warm-up ended."""

    def __init__(self) -> None:
        self.open = False
        self.requests = self.events = self.errors = 0
        self.latency: list[float] = []
        self.first: list[float] = []
        self.transit: list[float] = []


class Client(asyncio.Protocol):
    """Sends the next request when the answer to the last one is whole."""

    def __init__(self, sent: bytes, books: Books, streaming: bool) -> None:
        self.sent, self.books, self.streaming = sent, books, streaming
        self.rest = b""
        self.started = self.first = 0.0
        self.expected = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self.books.errors += self.books.open

    def begin(self) -> None:
        self.rest, self.expected, self.first = b"", 0, 0.0
        self.started = time.monotonic()
        self.transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.rest += data
        if self.streaming:
            if not self.expected and len(self.rest) >= len(OK):
                self.books.errors += not self.rest.startswith(OK)
                self.expected = 1
            self.read_events(now_ns)
            if self.rest.endswith(b"0\r\n\r\n"):
                self.ended(now_ns / 1e9)
            return
        if not self.expected:
            head, mark, _ = self.rest.partition(b"\r\n\r\n")
            if not mark:
                return
            self.books.errors += not head.startswith(OK)
            self.expected = len(head) + 4 + int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self.rest) >= self.expected:
            self.ended(now_ns / 1e9)

    def read_events(self, now_ns: int) -> None:
        """Count the whole events; a stamp is twenty digits after its mark."""
        books = self.books
        at = self.rest.find(STAMP)
        while at >= 0 and len(self.rest) >= at + STAMPED:
            if not self.first:
                self.first = now_ns / 1e9
                if books.open:
                    books.first.append(self.first - self.started)
            if books.open:
                books.events += 1
                books.transit.append((now_ns - int(self.rest[at + len(STAMP) : at + STAMPED])) / 1e9)
            self.rest = self.rest[at + STAMPED :]
            at = self.rest.find(STAMP)

    def ended(self, now: float) -> None:
        if self.books.open:
            self.books.requests += 1
            self.books.latency.append(now - self.started)
        self.begin()


async def measure(
    port: int, connections: int, body_bytes: int, streaming: bool, seconds: float, pids: list[int]
) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    books, sent = Books(), request(body_bytes, streaming)
    ramp_s = 4.0 / connections if streaming else 0.0  # streams that begin together would beat together
    for _ in range(connections):
        await loop.create_connection(lambda: Client(sent, books, streaming), "127.0.0.1", port)
        await asyncio.sleep(ramp_s)
    await asyncio.sleep(1.0)
    books.open, cpu_before, own_before = True, cpu_s(pids), time.process_time()
    await asyncio.sleep(seconds)
    books.open, cpu = False, cpu_s(pids) - cpu_before
    return {
        "requests": books.requests, "events": books.events, "errors": books.errors, "cpu_s": round(cpu, 3),
        "generator_cpu_s": round(time.process_time() - own_before, 3), "latency_us": quantiles(books.latency),
        "first_us": quantiles(books.first), "transit_us": quantiles(books.transit),
    }  # fmt: skip


if __name__ == "__main__":
    port, connections, size, stream = (int(word) for word in sys.argv[1:5])
    result = uvloop.run(
        measure(port, connections, size, bool(stream), float(sys.argv[5]), [int(word) for word in sys.argv[6:]])
    )
    print(json.dumps(result))
