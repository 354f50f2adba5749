"""The limit through real sockets, before an engine unknown to the laboratory: python -m tests.benchmarks.over_http

Each case offers one and a half times what its engine can do within its targets. The engine (simulated, in real time)
and the load share one process on the first core, `penstock serve` has the second. The best fixed limit of each phase is
found in virtual time, with the same engine and the same arrivals. Takes some ten minutes; other work on the machine
shows as requests that are late.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import uvloop

from proxy.laboratory.measures import jain, near_from_s
from tests.benchmarks.data_path.__main__ import asking, await_port, process, tell
from tests.benchmarks.data_path.contestants import free_port
from tests.benchmarks.over_http.cases import CASES, FACTOR, SLOWER_AT_S, Case
from tests.benchmarks.over_http.engine import Asked, Engine, trace
from tests.benchmarks.over_http.load import Client, offer
from tests.benchmarks.over_http.oracle import Served, attainment, best, goodput
from tests.benchmarks.over_http.serving import Face, Serving

CONFIG = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{port: {admin}}}
upstreams:
  - {{name: engine, url: "http://127.0.0.1:{upstream}", engine: {engine}, models: [m], shared_by: {proxies}}}
target: {{itl_ms: {itl_ms}, ttft_ms: {ttft_ms}}}
classes: [{{name: normal, queue_max: 20000, queue_timeout_s: 600}}]
tenants: {{anonymous: {{max_class: normal}}}}
log: {{level: warning}}
"""
HEAD = """| engine and load | phase | best fixed limit | settled after | goodput over its \
| best that keeps the target | settled after | goodput over its | within both targets |
|---|---|---:|---:|---:|---:|---:|---:|---:|"""
READY_S = 2.0
COLD_BAND, COLD_SPAN_S = 0.10, 60.0  # as in scenario A
SLOW_BAND, SLOW_SPAN_S = 0.15, 40.0  # as in scenario C


class Run(NamedTuple):
    """What was seen: by clients, joined with when the engine got each request; in flight there; its counts."""

    served: list[Served]
    per_proxy: list[int]  # tokens of whole answers
    moments: list[tuple[float, int]]
    computed: int
    recomputed: int


def joined(clients: Sequence[Client], serving: Serving) -> list[Served]:
    """Whole answers. The first token's time is from the engine's receipt on: our own queue is not the limit's doing."""
    found = []
    for client in clients:
        one = serving.ended.get(client.one.number)
        if client.whole and one is not None:
            spread_s = (client.last_s - client.first_s) / max(1, client.tokens - 1)
            found.append(Served(client.tokens, client.last_s, client.first_s - one.came_s, spread_s))
    return found


def start(stack: ExitStack, case: Case, penstock: list[str], upstream: int, ports: Sequence[int]) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for number, port in enumerate(ports):
        file = folder / f"{number}.yaml"
        text = CONFIG.format(
            port=port, admin=free_port(), upstream=upstream, engine=case.engine, proxies=case.proxies,
            itl_ms=case.target.itl_s * 1e3, ttft_ms=case.target.ttft_s * 1e3,
        )  # fmt: skip
        file.write_text(text, encoding="utf-8")
        stack.enter_context(process(1, *penstock, "serve", "--config", str(file), log=folder / f"{number}.log"))
    for port in ports:
        await_port(port)


async def measure(case: Case, asked: Sequence[Asked], penstock: list[str]) -> Run:
    """One run through fresh processes."""
    loop, upstream = asyncio.get_running_loop(), free_port()
    ports = [free_port() for _ in range(case.proxies)]
    zero_s = loop.time()
    serving = Serving(Engine(case.kind, Random(5)), lambda: loop.time() - zero_s)
    server = await loop.create_server(lambda: Face(serving), "127.0.0.1", upstream, backlog=4096)
    stack = ExitStack()
    try:
        await asyncio.to_thread(start, stack, case, penstock, upstream, ports)
        await asyncio.sleep(READY_S)
        zero_s = loop.time()
        if case.slows:
            loop.call_later(SLOWER_AT_S, setattr, serving.engine, "slower", FACTOR)
        watching = loop.create_task(serving.watch())
        clients = await offer(asked, ports, zero_s, case.until_s)
        watching.cancel()
    finally:
        await asyncio.to_thread(stack.close)  # they drain, and the engine has to answer meanwhile
        server.close()
    per_proxy = [sum(one.tokens for one in clients if one.port == port and one.whole) for port in ports]
    engine = serving.engine
    return Run(joined(clients, serving), per_proxy, serving.moments, engine.computed, engine.recomputed)


def lines(case: Case, asked: Sequence[Asked], run: Run) -> list[str]:
    """Rows of the table: phase; limit of the best goodput, settled, goodput over its; the same of the best one that
    keeps the target; attainment."""
    phases = [("cold", 0.0, 20.0, SLOWER_AT_S if case.slows else case.until_s, 1.0, COLD_BAND, COLD_SPAN_S)]
    if case.slows:
        phases.append((f"{FACTOR} times slower", SLOWER_AT_S, 80.0, case.until_s, FACTOR, SLOW_BAND, SLOW_SPAN_S))
    told = []
    for name, begin_s, from_s, end_s, slower, band, span_s in phases:
        moments = [one for one in run.moments if begin_s <= one[0] < end_s]
        reached = goodput(run.served, case.target, from_s, end_s)
        cells = [case.name, name]
        for one in best(case.kind, asked, case.target, from_s, end_s, case.seats(slower), slower):
            settled = near_from_s(moments, one.limit, band, span_s) - begin_s
            cells += [
                f"{one.limit} ({100 * one.attainment:.0f} %)",
                "never" if settled == inf else f"{settled:.0f} s",
                f"{reached / one.goodput:.3f}",
            ]
        met = attainment(run.served, case.target, from_s, end_s)
        told.append(f"| {' | '.join(cells)} | {100 * met:.1f} % |")
    if case.kind.cache_tokens < 1 << 30:
        told.append(f"| {case.name} | tokens computed again |{' |' * 6} {100 * run.recomputed / run.computed:.1f} % |")
    if case.proxies > 1:
        told.append(f"| {case.name} | Jain's index of the proxies |{' |' * 6} {jain(run.per_proxy):.3f} |")
    return told


def main() -> None:
    parser = asking(__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write how many were in flight, and every answer")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    if not cases:
        parser.error(f"--only {arguments.only}: the cases are {', '.join(case.name for case in CASES)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    print(HEAD, flush=True)
    seen = dict[str, Any]()
    for case in cases:
        asked = trace(Random(arguments.seed), case.rate(), case.until_s, case.prompt, case.output, case.shape)
        tell(f"{case.name}: {case.until_s:.0f} s")
        run = uvloop.run(measure(case, asked, shlex.split(arguments.penstock)))
        seen[case.name] = {"moments": run.moments, "served": run.served}
        if arguments.json:
            arguments.json.write_text(json.dumps(seen), encoding="utf-8")
        tell(f"{case.name}: best fixed limits")
        told = lines(case, asked, run)
        tell("")
        print(*told, sep="\n", flush=True)


if __name__ == "__main__":
    main()
