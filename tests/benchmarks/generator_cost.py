"""What the load generator itself adds: python -m tests.benchmarks.generator_cost [--streams 1000] [--seconds 20]

A sender on one core writes every stream's events with the moment of writing inside; the generator on the other core
stamps them as in any load test. Stamp minus moment is the delay that kernel and generator add; its p99 should stay
below 5 ms, with CPU left. `--pattern even` gives every stream its own phase, as the streams of many engines have;
`steps` writes one token of every stream at once, as one engine does after each step, which is the harder case.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

from proxy.loadtest import Arrival, Flow, Lengths, Workload, read_endpoint, run
from proxy.loadtest.client import runner as runner_module
from proxy.loadtest.client.call import Call
from proxy.loadtest.client.runner import Runner
from proxy.loadtest.stats import Sketch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"t":%016d}\n\n'
FRAME = b"%x\r\n%b\r\n" % (len(EVENT % 0), EVENT)
END = b"d\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".replace(b"d\r\n", b"e\r\n", 1)
MOMENT = re.compile(rb'"t":(\d+)')


class TimedCall(Call):
    """Reads the moment of writing out of every event."""

    __slots__ = ()
    added = Sketch()

    def answer_body(self, pieces: list[bytes], last: bool) -> None:
        super().answer_body(pieces, last)
        stamp_s = self.clock.turn() + self.clock.started_s
        for piece in pieces:
            if match := MOMENT.search(piece):
                self.added.add(max(0.0, stamp_s - int(match[1]) / 1e9))


def send(port_pipe: int, streams: int, rate: float, seconds: float, pattern: str) -> None:
    """Answers `streams` connections with `rate` events a second each, for so long."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    os.write(port_pipe, b"%d\n" % listener.getsockname()[1])
    poll = select.epoll()
    peers: list[socket.socket] = []
    while len(peers) < streams:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.recv(65536)
        peer.send(HEAD)
        peers.append(peer)
    poll.close()
    rng = random.Random(1)
    gap_s, start_s = 1 / rate, time.perf_counter() + 0.5
    phases = sorted((rng.random() * gap_s if pattern == "even" else 0.0, index) for index in range(streams))
    for turn in range(int(seconds * rate)):
        for phase_s, index in phases:
            due_s = start_s + turn * gap_s + phase_s
            if (wait_s := due_s - time.perf_counter()) > 0.0005:
                time.sleep(wait_s)
            peers[index].send(FRAME % time.perf_counter_ns())
    for peer in peers:
        peer.send(END)
    time.sleep(0.5)


async def measured(port: int, streams: int, seconds: float, rate: float) -> Runner:
    tokens = int(seconds * rate) + 1
    flow = Flow("f", prompt_tokens=Lengths(mean=64), output_tokens=Lengths(mean=tokens))
    closed = Arrival("closed", concurrency=streams)
    load = Workload("cost", (flow,), closed, warmup_s=0, requests=streams, duration_s=seconds + 60)
    runner = Runner(read_endpoint(f"http://127.0.0.1:{port}"), load, "m")
    await runner.run()
    return runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=30.0, help="events per second and stream")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pattern", choices=("even", "steps"), default="even")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if chosen.send is not None:
        os.sched_setaffinity(0, {cores[0]})
        send(chosen.send, chosen.streams, chosen.rate, chosen.seconds, chosen.pattern)
        return
    reading, writing = os.pipe()
    words = [sys.executable, "-m", "tests.benchmarks.generator_cost", *sys.argv[1:], f"--send={writing}"]
    sender = subprocess.Popen(words, pass_fds=(writing,), cwd=Path(__file__).parent.parent.parent)
    os.sched_setaffinity(0, {cores[-1]})
    port = int(os.read(reading, 16))
    runner_module.Call = TimedCall  # type: ignore[attr-defined]
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    runner = run(measured(port, chosen.streams, chosen.seconds, chosen.rate))
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    sender.wait()
    events, added, lag = TimedCall.added.total, TimedCall.added, runner.lag.sketch
    print(f"{runner.ended} streams, {runner.failed} failed, {events} events in {wall_s:.1f} s")
    print(f"CPU {cpu_s / wall_s:.0%} of one core, {cpu_s / max(1, events) * 1e6:.1f} us per event")
    for name, sketch in (("added to a stamp", added), ("own timers late", lag)):
        values = ", ".join(f"p{percent} {sketch.percentile(percent) * 1e3:.2f}" for percent in (50, 90, 99, 99.9))
        print(f"{name}: {values}, max {sketch.max_s * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
