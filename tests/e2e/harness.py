"""The real process, `penstock serve`, and what must hold after any fault."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.children import environ
from tests.e2e.scripted_upstream import HOST, LONGEST_WAIT_S, wait_for


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


class ProxyProcess:
    """`penstock serve` on free ports with a configuration of its own. `module`: what is run in place of the command."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], stdout: int | None = None, module: str = "proxy"
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.port, self.admin_port = settings.get("listen", {}).get("port") or free_port(), free_port()
        self.log_path, self.config_path = folder / "log.txt", folder / "penstock.yaml"
        self.tasks = 0  # that run when it is ready
        self.configure(settings)
        environment = {name: value for name, value in environ().items() if not name.startswith("PENSTOCK_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "serve", "--config", str(self.config_path), "--check-invariants"],
                stdout=stdout or log, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            )  # fmt: skip

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the file that a start or a reload reads."""
        listen = {"host": HOST, **settings.get("listen", {}), "port": self.port}
        admin = {**settings.get("admin", {}), "host": HOST, "port": self.admin_port}
        self.config_path.write_text(yaml.safe_dump({**settings, "listen": listen, "admin": admin}))

    def wait_alive(self, path: str = "/health") -> ProxyProcess:
        def alive() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log()}"
            with suppress(OSError):
                return self.admin(path)[0] == 200
            return False

        wait_for(alive, f"{path} of the admin listener", 2 * LONGEST_WAIT_S)
        self.tasks = self.state()["server"]["tasks"]
        return self

    def admin(self, path: str, method: str = "GET", body: object = None) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{HOST}:{self.admin_port}{path}", data, method=method)
        try:
            with opener.open(request, timeout=LONGEST_WAIT_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.admin("/admin/state")[1])
        return found

    def upstream(self, name: str) -> dict[str, Any]:
        return next(one for one in self.state()["upstreams"] if one["name"] == name)

    def hold_limit(self, name: str, seats: int | None) -> None:
        status, text = self.admin(f"/admin/upstreams/{name}/limit", "PUT", {"limit": seats})
        assert status == 200, text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.admin("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def record(self, request_id: str) -> dict[str, Any]:
        """The log line of a request that has ended."""

        def line() -> dict[str, Any] | None:
            found = [json.loads(text) for text in self.log().splitlines() if f'"request_id":"{request_id}"' in text]
            return next((one for one in found if one["event"] == "request"), None)

        found: dict[str, Any] = wait_for(line, f"the log line of {request_id}", 2.0)
        return found

    def wait_metric(self, expected: float, name: str, **labels: str) -> None:
        """The page is rendered at most once a second."""
        wait_for(lambda: self.metric(name, **labels) == expected, f"{name} {labels} = {expected}", 3.0)

    def stop(self, timeout_s: float = LONGEST_WAIT_S) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running {timeout_s} s after SIGTERM: {self.log()[-2000:]}") from None


def unclean(proxy: ProxyProcess) -> list[str]:
    """What is still held: nothing, once every request has ended."""
    state = proxy.state()
    numbers = {f"permits {key}": state["permits"][key] for key in ("held", "leaked")}
    numbers["queue_bytes"] = state["queue_bytes"]
    numbers["tasks beyond those of the start"] = max(0, state["server"]["tasks"] - proxy.tasks)
    numbers |= {f"{one['name']} queued": one["queued"] for one in state["classes"]}
    for one in state["upstreams"]:
        numbers |= {f"{one['name']} {key}": one[key] for key in ("in_flight", "aborting", "kv_reserved_tokens")}
    return [f"{what} = {number}" for what, number in numbers.items() if number]


def assert_clean(proxy: ProxyProcess, timeout_s: float = 2.0) -> None:
    until_s = time.monotonic() + timeout_s
    while left := unclean(proxy):
        assert time.monotonic() < until_s, f"still held after {timeout_s} s: {', '.join(left)}"
        time.sleep(0.02)


@contextmanager
def running(
    folder: Path, settings: Mapping[str, Any], ready: str = "/ready", module: str = "proxy"
) -> Iterator[ProxyProcess]:
    """A proxy that is ready; it must end with exit code 0, nothing held and, if it is the product, no fault of its own
    in its log."""
    proxy = ProxyProcess(folder, settings, module=module)
    try:
        yield proxy.wait_alive(ready)
        if proxy.process.poll() is None:
            assert_clean(proxy)
    finally:
        code = proxy.stop()
    assert code == 0, proxy.log()[-2000:]
    for line in proxy.log().splitlines():
        assert not line.startswith("{") or isinstance(json.loads(line), dict)
    assert "Traceback" not in proxy.log()
    assert module != "proxy" or '"event":"internal error"' not in proxy.log()
