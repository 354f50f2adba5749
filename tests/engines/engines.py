"""Real engines as processes: vLLM on CPU and `transformers serve`, with a model of random weights."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness import free_port
from tests.e2e.scripted_upstream import HOST, wait_for

FOLDER = Path(os.environ.get("PENSTOCK_TEST_ENGINES", "build/engines")).absolute()
START_S = 300.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
MAX_SEQUENCES, MAX_QUEUED = 8, 24


def vllm(port: int) -> list[str]:
    return [
        str(FOLDER / "vllm/bin/vllm"), "serve", str(FOLDER / "model"), "--served-model-name", "tiny", "--host", HOST,
        "--port", str(port), "--max-num-seqs", str(MAX_SEQUENCES), "--max-num-queued-reqs", str(MAX_QUEUED),
        "--max-model-len", "4096", "--dtype", "float32", "--enforce-eager",
    ]  # fmt: skip


def transformers(port: int) -> list[str]:
    return [
        str(FOLDER / "transformers/bin/transformers"), "serve", str(FOLDER / "model"), "--continuous-batching",
        "--device", "cpu", "--dtype", "float32", "--cb-block-size", "32", "--cb-num-blocks", "512",
        "--cb-max-batch-tokens", "512", "--host", HOST, "--port", str(port),
    ]  # fmt: skip


class RealEngine:
    """One engine and its children, in a process group of their own."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.command, self.port, self.log = command, port, log
        self.url = f"http://{HOST}:{port}"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HOME": str(self.log.parent / "hub")}
        (self.log.parent / "hub/hub").mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def wait_ready(self) -> RealEngine:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            with suppress(OSError):
                return bool(self.ask("/v1/models"))
            return False

        wait_for(ready, f"{self.command[0]} should listen", START_S)
        return self

    def ask(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str) -> float:
        families = text_string_to_metric_families(self.ask("/metrics"))
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def label(self, name: str, label: str) -> str:
        families = text_string_to_metric_families(self.ask("/metrics"))
        return next(one.labels[label] for family in families for one in family.samples if one.name == name)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = self._start()
        self.wait_ready()


@contextmanager
def engine(kind: str, folder: Path) -> Iterator[RealEngine]:
    port = free_port()
    command = vllm(port) if kind == "vllm" else transformers(port)
    one = RealEngine(command, port, folder / f"{kind}.log")
    try:
        yield one.wait_ready()
    finally:
        one.kill()
