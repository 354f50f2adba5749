"""What a run in virtual time comes to, in one number for each: python -m tests.digest

The first line says whether the package is compiled. The rest is the same on every machine that rounds as IEEE 754 says.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import replace

from proxy.adapters.build_info import COMPILED
from proxy.admission.ceiling import MemoryBound
from proxy.admission.limits import LimitConfig, Target
from proxy.admission.queue import ClassConfig
from proxy.dispatcher import DispatcherConfig, UpstreamConfig
from proxy.laboratory.lab import Lab
from proxy.laboratory.workload import Arrival, Stream, arrivals
from proxy.simulator.profiles import H100_QWEN3_14B
from tests.simulation.world import play

SMALL = replace(H100_QWEN3_14B, max_seqs=24, kv_tokens=60_000)
CLASSES = (ClassConfig("high", 0.1, 1.0, 64, 5.0), ClassConfig("low", 0.0, 0.9, 64, 2.0))
IMPATIENT = Arrival(0.0, 1, 1, patience_s=3.0)
STREAMS = (
    Stream(10.0, 0.0, 40.0, 0, "a"),
    Stream(16.0, 0.0, 40.0, 1, "b", like=IMPATIENT),
    Stream(4.0, 10.0, 30.0, 1, "c", prompt_mean=4096.0, output_mean=64.0, like=Arrival(0.0, 1, 1, streaming=False)),
)
SEEDS = range(10)


def laboratory() -> Iterable[object]:
    """Two engines with too little memory under too much of a mix: every part of the control loop has work."""
    target, limit = Target(itl_s=0.04, ttft_s=0.5), LimitConfig()
    upstreams = tuple(
        UpstreamConfig(name, ("m",), limit=limit, target=target, memory=memory)
        for name, memory in (("one", None), ("two", MemoryBound(tokens=60_000, source="config")))
    )
    lab = Lab(DispatcherConfig(CLASSES, upstreams), {"one": SMALL, "two": SMALL}, checks=True)
    lab.run(arrivals(STREAMS, random.Random(1)), 45.0)
    assert lab.steps and len({one.outcome for one in lab.requests}) > 3
    yield from ((one.outcome, one.first_s, one.ended_s, one.last_s, one.ticket.upstream) for one in lab.requests)
    yield from (lab.steps, lab.moments, lab.dispatcher.snapshot(lab.now))


def data_path(seed: int) -> Iterable[object]:
    world = play(seed)
    yield from (world.loop.turns, world.loop.time(), sorted(world.report.answers.items()), world.records)
    yield world.dispatcher.snapshot(world.loop.time())


def digest(told: Iterable[object]) -> str:
    found = hashlib.sha256()
    for one in told:
        found.update(repr(one).encode())
    return found.hexdigest()


if __name__ == "__main__":
    print(COMPILED)
    print("laboratory", digest(laboratory()))
    for seed in SEEDS:
        print(f"world {seed}", digest(data_path(seed)))
