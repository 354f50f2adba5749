"""Penstock and others in turn, before the same upstream: python -m tests.benchmarks.data_path [--beside sglang-router]

Upstream and load run on the first core, the proxy under test alone on the second; the other one is stopped meanwhile.
Each cycle measures nginx, then Penstock: compare within a cycle, by CPU time per request or per event, since the speed
of a shared machine drifts. Penstock runs with its defaults; its limit finds its place before the first cycle.
Needs nginx (Debian: nginx-light) and two cores; what `--beside` names may lie in a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.data_path.cases import CASES, Case
from tests.benchmarks.data_path.contestants import KEY, PEERS, Contestant, contestants, free_port
from tests.benchmarks.data_path.load import cpu_s, request
from tests.benchmarks.data_path.table import show

LISTEN_S = 120.0  # importing LiteLLM takes most of a minute on a busy machine
START_S = 3.0  # routers ask their workers how they are
FIND_LIMIT_S = 12.0  # the limit starts at 8 and doubles
REST_S, LOOK_S, RESTS_BELOW = 20.0, 0.25, 0.1  # answers to clients that left are worked on for so long at most
MANY = CASES[2]


@contextmanager
def process(core: int, *command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, ended at the end."""
    with log.open("wb") as output:
        pinned = ("taskset", "-c", str(core), *command)
        child = subprocess.Popen(pinned, stdout=output, stderr=output)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            child.wait(20)


def await_port(port: int) -> None:
    until = time.monotonic() + LISTEN_S
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def answer_first(port: int) -> None:
    """Of either kind, so that nobody is measured while it imports or connects, nor while it refuses."""
    for streaming in (False, True):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LISTEN_S)
        body = request(1_000, streaming).partition(b"\r\n\r\n")[2]
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        with closing(connection), closing(connection.getresponse()) as answer:
            if answer.status != 200:
                raise SystemExit(f"port {port}: {answer.status} {answer.read(1_000)!r}")
            answer.readline()


def family(pid: int) -> list[int]:
    """A process and its descendants; any thread may have made them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]
    return [pid, *(one for child in children for one in family(child))]


def tell(what: str) -> None:
    """Progress, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{what:70}\r", end="", file=sys.stderr, flush=True)


def measure(case: Case, port: int, connections: int, pids: list[int], seconds: float) -> dict[str, Any]:
    words = [port, connections, case.body_bytes, int(case.streaming), seconds, *pids]
    command = ["taskset", "-c", "0", sys.executable, "-m", "tests.benchmarks.data_path.load", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    if not result[case.unit]:
        raise SystemExit(f"{case.name}: no {case.unit} in {seconds} s, {result['errors']} errors")
    return {**result, "us": result["cpu_s"] * 1e6 / result[case.unit], "connections": connections}


class Proxy(NamedTuple):
    """One of those that are compared, stopped but for its turns."""

    contestant: Contestant
    pid: int

    def awake(self, on: bool) -> None:
        for pid in family(self.pid):
            os.kill(pid, signal.SIGCONT if on else signal.SIGSTOP)

    def turn(self, case: Case, seconds: float) -> dict[str, Any]:
        self.awake(True)
        try:
            connections = self.contestant.connections(case)
            result = measure(case, self.contestant.port, connections, family(self.pid), seconds)
            self.rest()
            return result
        finally:
            self.awake(False)

    def rest(self) -> None:
        """Wait until it is done with what the last clients left behind: the next turn would be charged for it."""
        pids, until = family(self.pid), time.monotonic() + REST_S
        spent, before = LOOK_S, cpu_s(pids)
        while spent > RESTS_BELOW * LOOK_S and time.monotonic() < until:
            time.sleep(LOOK_S)
            now = cpu_s(pids)
            spent, before = now - before, now


def start(stack: ExitStack, found: dict[str, Contestant], folder: Path) -> dict[str, Proxy]:
    proxies = {}
    for name, contestant in found.items():
        child = stack.enter_context(process(1, *contestant.command, log=folder / f"{name}.log"))
        await_port(contestant.port)
        time.sleep(START_S)
        answer_first(contestant.port)
        proxies[name] = Proxy(contestant, child.pid)
        proxies[name].awake(False)
    return proxies


def run(
    penstock: list[str], beside: list[str], cycles: int, seconds: float, cases: list[Case]
) -> dict[str, list[dict[str, Any]]]:
    """Results by case: one {"nginx": ..., "penstock": ...} per cycle."""
    upstream = free_port()
    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        found = contestants(penstock, beside, folder, upstream)
        engine = (sys.executable, "-m", "tests.benchmarks.data_path.upstream", str(upstream))
        stack.enter_context(process(0, *engine, log=folder / "upstream.log"))
        await_port(upstream)
        proxies = start(stack, found, folder)
        proxies["penstock"].turn(MANY, FIND_LIMIT_S)
        for cycle in range(cycles):
            for case in cases:
                both = {}
                for name, proxy in proxies.items():
                    tell(f"cycle {cycle + 1} of {cycles}: {case.name}, {name}")
                    both[name] = proxy.turn(case, seconds)
                results[case.name].append(both)
        tell("")
    return results


def asking(text: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A command line that names what is measured; `text` is the module's, told by its first line."""
    parser = argparse.ArgumentParser(prog=prog, description=text.splitlines()[0] if text else None)
    source = f"{sys.executable} -m proxy"
    parser.add_argument("--penstock", default=source, metavar="COMMAND", help="what is measured (default: the source)")
    return parser


def main() -> None:
    parser = asking(__doc__, prog="make bench")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="COMMAND", help=f"measure this, too: {', '.join(PEERS)}"
    )
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured per case and proxy")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    penstock = shlex.split(arguments.penstock)
    subprocess.run([*penstock, "--version"], check=True)
    if unknown := [command for command in arguments.beside if Path(command).name not in PEERS]:
        parser.error(f"--beside {unknown[0]}: known are {', '.join(PEERS)}, with or without a path before the name")
    results = run(penstock, arguments.beside, arguments.cycles, arguments.seconds, cases)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(show(results, cases))


if __name__ == "__main__":
    main()
