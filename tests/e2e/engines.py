"""`penstock simulate` as a process: an engine that counts tokens and aborts, and fails when told."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from contextlib import suppress
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxy.commands.child import Child
from tests.e2e.scripted_upstream import LONGEST_WAIT_S, wait_for

MODEL = "simulated-qwen3-14b"  # of the default profile
READY = r"^simulated engine \S+ at (\S+)$"


class SimulatedEngine:
    """A child process; `with` ends it. `port` 0 takes a free one."""

    def __init__(self, speed: float = 1.0, seed: int = 1, port: int = 0) -> None:
        self.arguments = ["simulate", f"--port={port}", f"--speed={speed}", f"--seed={seed}"]
        self.child = Child(self.arguments)
        self.url = self.child.read_until(READY)
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self) -> SimulatedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)
        self.child.__exit__(None, None, None)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, number)

    def restart(self) -> None:
        """Killed without a word, and up again at the same address."""
        self.signal(signal.SIGKILL)
        self.child.__exit__(None, None, None)
        self.child = Child([self.arguments[0], f"--port={self.port}", *self.arguments[2:]])
        self.child.read_until(READY)

    def ask(self, path: str, body: object = None) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        with opener.open(urllib.request.Request(self.url + path, data), timeout=LONGEST_WAIT_S) as answer:
            text: str = answer.read().decode()
            return text

    def control(self, **faults: object) -> dict[str, Any]:
        """Change faults; answers with `running`, `waiting` and `aborted`."""
        found: dict[str, Any] = json.loads(self.ask("/sim/control", faults))
        return found

    def wait_state(self, timeout_s: float = LONGEST_WAIT_S, **expected: int) -> None:
        def reached() -> bool:
            state = self.control()
            return all(state[name] == number for name, number in expected.items())

        wait_for(reached, f"the engine should have {expected}, has {self.control()}", timeout_s)

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.ask("/metrics"))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
