"""Penstock and nginx in turn, before the same upstream: python -m tests.benchmarks.data_path [--penstock COMMAND]

Upstream and load run on the first core, the proxy under test alone on the second; the other one is stopped meanwhile.
Each cycle measures nginx, then Penstock: compare within a cycle, by CPU time per request or per event, since the speed
of a shared machine drifts. The table shows medians over cycles, and the median of the ratios within a cycle.
Needs nginx (Debian: nginx-light) and two cores.
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
  - {{name: engine, url: "http://127.0.0.1:{upstream}", engine: openai, models: [m],
      limit: {{mode: fixed, initial: 4096}}}}
tenants: {{list: [{{name: a, keys: ["sha256:{key}"]}}, {{name: b, keys: []}}, {{name: c, keys: []}}]}}
log: {{format: json}}
"""
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
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(int(child) for child in children)]


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


def run(penstock: list[str], cycles: int, seconds: float, cases: list[Case]) -> dict[str, list[dict[str, Any]]]:
    """Results by case: one {"nginx": ..., "penstock": ...} per cycle."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    upstream, admin = free_port(), free_port()
    ports = {"nginx": free_port(), "penstock": free_port()}
    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        settings = {"folder": folder, "upstream": upstream, "admin": admin, "key": BENCH_KEY}
        (folder / "nginx.conf").write_text(NGINX.format(port=ports["nginx"], **settings), encoding="utf-8")
        (folder / "penstock.yaml").write_text(PENSTOCK.format(port=ports["penstock"], **settings), encoding="utf-8")
        python = sys.executable
        commands = {
            "nginx": (nginx, "-c", str(folder / "nginx.conf")),
            "penstock": (*penstock, "serve", "--config", str(folder / "penstock.yaml")),
        }
        stack.enter_context(
            process(0, python, "-m", "tests.benchmarks.data_path.upstream", str(upstream), log=folder / "upstream.log")
        )
        await_port(upstream)
        pids: dict[str, list[int]] = {}
        for name, command in commands.items():
            child = stack.enter_context(process(1, *command, log=folder / f"{name}.log"))
            await_port(ports[name])
            time.sleep(1.0)
            pids[name] = family(child.pid)
            awake(pids[name], False)
        for cycle in range(cycles):
            for case in cases:
                both = {}
                for name in commands:
                    print(
                        f"\rcycle {cycle + 1} of {cycles}: {case.name}, {name:10}", end="", file=sys.stderr, flush=True
                    )
                    awake(pids[name], True)
                    both[name] = measure(case, ports[name], pids[name], seconds)
                    awake(pids[name], False)
                results[case.name].append(both)
        tell("")
    return results


def show(results: dict[str, list[dict[str, Any]]], cases: list[Case]) -> str:
    """A Markdown table."""
    lines = [
        "| case | nginx us | penstock us | ratio | per | nginx p50 / p99 us | penstock p50 / p99 us |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for case in cases:
        cycles = results[case.name]
        nginx, ours = ([one[name] for one in cycles] for name in ("nginx", "penstock"))
        ratio = median(p["us"] / n["us"] for n, p in zip(nginx, ours, strict=True))
        key = "transit_us" if case.streaming else "latency_us"
        spans = [" / ".join(f"{median(one[key][at] for one in side):,.0f}" for at in (0, 2)) for side in (nginx, ours)]
        lines.append(
            f"| {case.name} | {median(one['us'] for one in nginx):.0f} | {median(one['us'] for one in ours):.0f} "
            f"| {ratio:.1f} | {case.unit[:-1]} | {spans[0]} | {spans[1]} |"
        )
        errors = sum(one[name]["errors"] for one in cycles for name in one)
        if errors:
            lines.append(f"| | | | | {errors} errors | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    source = f"{sys.executable} -m proxy"
    parser.add_argument("--penstock", default=source, metavar="COMMAND", help="what is measured (default: the source)")
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured per case and proxy")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    penstock = shlex.split(arguments.penstock)
    subprocess.run([*penstock, "--version"], check=True)
    results = run(penstock, arguments.cycles, arguments.seconds, cases)
    print(show(results, cases))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
