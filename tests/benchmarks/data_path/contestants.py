"""Who is measured: command lines, and the configurations that go with them.

LiteLLM runs as its own guide to production says, as far as one core and no database allow: one worker, a master key,
errors logged alone, prices from the package instead of the network.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.data_path.cases import Case

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
log: {{format: json, sample_rate: 1.0}}
"""
LITELLM = """
model_list:
  - {{model_name: m, litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}}}
litellm_settings: {{set_verbose: false, request_timeout: 600}}
general_settings: {{master_key: {key}, disable_spend_logs: true}}
"""
LITELLM_ENVIRONMENT = ("LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR", "LITELLM_MODE=PRODUCTION")
LITELLM_WORDS = ("--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False")
ROUTER_WORDS = ("--host", "127.0.0.1", "--policy", "round_robin", "--log-level", "error")
KEY = "sk-bench"


class Contestant(NamedTuple):
    """The bounds are what it can carry: clients that it does not answer many times in a window measure its backlog."""

    port: int
    command: list[str]
    connections_max: int = 1_000
    streams_max: int = 1_000

    def connections(self, case: Case) -> int:
        return min(case.connections, self.streams_max if case.streaming else self.connections_max)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def router(command: str, folder: Path, upstream: int, *words: str) -> Contestant:
    port, metrics = free_port(), free_port()
    ports = ("--port", str(port), "--prometheus-port", str(metrics))
    return Contestant(port, [command, *words, *ROUTER_WORDS, *ports, "--worker-urls", f"http://127.0.0.1:{upstream}"])


def sglang_router(command: str, folder: Path, upstream: int) -> Contestant:
    return router(command, folder, upstream, "launch")


def vllm_router(command: str, folder: Path, upstream: int) -> Contestant:
    return router(command, folder, upstream)


def litellm(command: str, folder: Path, upstream: int) -> Contestant:
    port, file = free_port(), folder / "litellm.yaml"
    file.write_text(LITELLM.format(upstream=upstream, key=KEY), encoding="utf-8")
    words = [command, "--config", str(file), "--port", str(port), *LITELLM_WORDS]
    return Contestant(port, ["env", *LITELLM_ENVIRONMENT, *words], connections_max=8, streams_max=4)


PEERS: dict[str, Callable[[str, Path, int], Contestant]] = {  # all from the Python package index
    "sglang-router": sglang_router,
    "vllm-router": vllm_router,
    "litellm": litellm,
}


def contestants(penstock: list[str], beside: list[str], folder: Path, upstream: int) -> dict[str, Contestant]:
    """By name, their configurations written to `folder`."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(port=port, folder=folder, upstream=upstream), encoding="utf-8")
    found = {
        "nginx": Contestant(port, [nginx, "-c", str(folder / "nginx.conf")]),
        "penstock": ours(penstock, folder, upstream),
    }
    for one in beside:
        name = Path(one).name
        found[name] = PEERS[name](one, folder, upstream)
    return found


def ours(command: list[str], folder: Path, upstream: int) -> Contestant:
    """Penstock with its defaults."""
    port, file = free_port(), folder / "penstock.yaml"
    key = sha256(KEY.encode()).hexdigest()
    text = PENSTOCK.format(port=port, admin=free_port(), upstream=upstream, key=key)
    file.write_text(text, encoding="utf-8")
    return Contestant(port, [*command, "serve", "--config", str(file)])
