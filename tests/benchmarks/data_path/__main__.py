"""Penstock and others in turn, before the same upstream: python -m tests.benchmarks.data_path [--beside sglang-router]

Upstream and load run on the first core, the proxy under test alone on the second; the other one is stopped meanwhile.
Each cycle measures nginx, then Penstock: compare within a cycle, by CPU time per request or per event, since the speed
of a shared machine drifts. The table shows medians over cycles, and the median of the ratios within a cycle.
Penstock runs with its defaults; its limit finds its place before the first cycle. Needs nginx (Debian: nginx-light) and
two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.error crit;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_body_buffer_size 2m; client_max_body_size 32m;
  keepalive_requests 1000000000; tcp_nodelay on;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
PENSTOCK = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{port: {admin}}}
upstreams:
  - {{name: engine, url: "http://127.0.0.1:{upstream}", engine: openai, models: [m]}}
tenants: {{list: [{{name: a, keys: ["sha256:{key}"]}}, {{name: b, keys: []}}, {{name: c, keys: []}}]}}
log: {{format: json}}
"""
ROUTERS = ("--host", "127.0.0.1", "--policy", "round_robin", "--log-level", "error")
PEERS = {"sglang-router": ("launch", *ROUTERS), "vllm-router": ROUTERS}  # both from the Python package index
START_S = 3.0  # routers ask their workers how they are
FIND_LIMIT_S = 12.0  # the limit starts at 8 and doubles
BENCH_KEY = sha256(b"sk-bench").hexdigest()


class Case(NamedTuple):
    """One row: `unit` is what the CPU time is divided by."""

    name: str
    connections: int
    body_bytes: int
    streaming: bool

    @property
    def unit(self) -> str:
        return "events" if self.streaming else "requests"


CASES = (
    Case("1 connection, 1 kB", 1, 1_000, False),
    Case("32 connections, 1 kB", 32, 1_000, False),
    Case("256 connections, 1 kB", 256, 1_000, False),
    Case("32 connections, 32 kB", 32, 32_000, False),
    Case("8 connections, 1 MB", 8, 1_000_000, False),
    Case("256 streams of 50 events/s", 256, 1_000, True),
)


MANY = CASES[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def family(pid: int) -> list[int]:
    """A process and its descendants; any thread may have made them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]
    return [pid, *(one for child in children for one in family(child))]


def awake(pids: list[int], on: bool) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT if on else signal.SIGSTOP)


def tell(what: str) -> None:
    """Progress, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{what:70}\r", end="", file=sys.stderr, flush=True)


def measure(case: Case, port: int, pids: list[int], seconds: float) -> dict[str, Any]:
    words = [port, case.connections, case.body_bytes, int(case.streaming), seconds, *pids]
    command = ["taskset", "-c", "0", sys.executable, "-m", "tests.benchmarks.data_path.load", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    result["us"] = result["cpu_s"] * 1e6 / max(1, result[case.unit])
    return result


class Proxy(NamedTuple):
    """One of those that are compared, stopped but for its turns."""

    name: str
    port: int
    pids: list[int]

    def turn(self, case: Case, seconds: float) -> dict[str, Any]:
        awake(self.pids, True)
        try:
            return measure(case, self.port, self.pids, seconds)
        finally:
            awake(self.pids, False)


def commands(penstock: list[str], beside: list[str], folder: Path, upstream: int) -> dict[str, tuple[int, list[str]]]:
    """Port and command line by name, their configurations written."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    ports = [free_port() for _ in range(2 + 2 * len(beside))]
    settings = {"folder": folder, "upstream": upstream, "admin": free_port(), "key": BENCH_KEY}
    (folder / "nginx.conf").write_text(NGINX.format(port=ports[0], **settings), encoding="utf-8")
    (folder / "penstock.yaml").write_text(PENSTOCK.format(port=ports[1], **settings), encoding="utf-8")
    found = {
        "nginx": (ports[0], [nginx, "-c", str(folder / "nginx.conf")]),
        "penstock": (ports[1], [*penstock, "serve", "--config", str(folder / "penstock.yaml")]),
    }
    for command, port, metrics in zip(beside, ports[2::2], ports[3::2], strict=True):
        words = [*PEERS[Path(command).name], "--port", str(port), "--prometheus-port", str(metrics)]
        found[Path(command).name] = (port, [command, *words, "--worker-urls", f"http://127.0.0.1:{upstream}"])
    return found


def start(stack: ExitStack, found: dict[str, tuple[int, list[str]]], folder: Path) -> list[Proxy]:
    proxies = []
    for name, (port, command) in found.items():
        child = stack.enter_context(process(1, *command, log=folder / f"{name}.log"))
        await_port(port)
        time.sleep(START_S)
        proxies.append(Proxy(name, port, family(child.pid)))
        awake(proxies[-1].pids, False)
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
        found = commands(penstock, beside, folder, upstream)
        engine = (sys.executable, "-m", "tests.benchmarks.data_path.upstream", str(upstream))
        stack.enter_context(process(0, *engine, log=folder / "upstream.log"))
        await_port(upstream)
        proxies = start(stack, found, folder)
        for proxy in proxies:
            if proxy.name == "penstock":
                proxy.turn(MANY, FIND_LIMIT_S)
        for cycle in range(cycles):
            for case in cases:
                both = {}
                for proxy in proxies:
                    tell(f"cycle {cycle + 1} of {cycles}: {case.name}, {proxy.name}")
                    both[proxy.name] = proxy.turn(case, seconds)
                results[case.name].append(both)
        tell("")
    return results


def ratio(cycles: list[dict[str, Any]], to: str) -> float:
    return float(median(one["penstock"]["us"] / one[to]["us"] for one in cycles))


def show(results: dict[str, list[dict[str, Any]]], cases: list[Case]) -> str:
    """A Markdown table."""
    peers = [name for name in PEERS if name in results[cases[0].name][0]]
    lines = [
        "| case | nginx us | penstock us | ratio | per | nginx p50 / p99 us | penstock p50 / p99 us |"
        + "".join(f" {name} us | penstock to it |" for name in peers),
        "|---|---:|---:|---:|---|---:|---:|" + "---:|---:|" * len(peers),
    ]
    for case in cases:
        cycles = results[case.name]
        nginx, ours = ([one[name] for one in cycles] for name in ("nginx", "penstock"))
        key = "transit_us" if case.streaming else "latency_us"
        spans = [" / ".join(f"{median(one[key][at] for one in side):,.0f}" for at in (0, 2)) for side in (nginx, ours)]
        lines.append(
            f"| {case.name} | {median(one['us'] for one in nginx):.0f} | {median(one['us'] for one in ours):.0f} "
            f"| {ratio(cycles, 'nginx'):.1f} | {case.unit[:-1]} | {spans[0]} | {spans[1]} |"
            + "".join(
                f" {median(one[name]['us'] for one in cycles):.0f} | {ratio(cycles, name):.2f} |" for name in peers
            )
        )
        errors = sum(one[name]["errors"] for one in cycles for name in one)
        if errors:
            lines.append(f"| | | | | {errors} errors | | |" + " | |" * len(peers))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    source = f"{sys.executable} -m proxy"
    parser.add_argument("--penstock", default=source, metavar="COMMAND", help="what is measured (default: the source)")
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
