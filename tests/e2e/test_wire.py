"""Wire behaviour judged by others: varnishtest and slowhttptest. Needs Debian's varnish and slowhttptest."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import CHAT, RawClient, bare
from tests.e2e.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.system

SCRIPTS = sorted(Path(__file__).with_name("wire").glob("*.vtc"))
FRESH = {"min_requests": 1_000_000}


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"install {name}: a test that is skipped proves nothing"
    return found


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxyProcess, int]]:
    """A proxy whose upstream is whatever a script starts at that port."""
    healthy = ScriptedUpstream()  # until the one probe has seen it
    port = healthy.port
    config = settings(
        upstream("one", f"http://127.0.0.1:{port}", "m"),
        listen={"head_timeout_s": 5, "body_timeout_s": 5, "max_body_bytes": 1_000_000, "drain_timeout_s": 3},
        routing={"ttft_timeout_s": 5, "itl_timeout_s": 5, "response_timeout_s": 5, "retry_budget": 1.0},
        breaker=FRESH,
    )
    with running(tmp_path_factory.mktemp("wired"), config) as proxy:
        healthy.close()
        yield proxy, port


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_varnishtest(wired: tuple[ProxyProcess, int], script: Path) -> None:
    proxy, port = wired
    found = subprocess.run(
        [program("varnishtest"), "-Dproxy=" + str(proxy.port), "-Dupstream=" + str(port), str(script)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    failed = [line for line in found.stdout.splitlines() if line.startswith("----")]
    assert found.returncode == 0, "\n".join([*failed, *found.stdout.splitlines()[-40:]])
    assert_clean(proxy)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-H", "-i", "2"], id="slow heads"),
        pytest.param(["-B", "-i", "2", "-s", "8192", "-t", "POST"], id="slow bodies"),
        pytest.param(["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "10", "-k", "3"], id="slow readers"),
    ],
)
def test_slowhttptest(wired: tuple[ProxyProcess, int], options: list[str], tmp_path: Path) -> None:
    """Every slow client is ended by its deadline, and others are served all the while."""
    proxy, _ = wired
    path = CHAT if "-B" in options else "/v1/models"
    attack = subprocess.Popen(
        [
            program("slowhttptest"), *options, "-c", "100", "-r", "100", "-l", "8", "-p", "2",
            "-u", f"http://127.0.0.1:{proxy.port}{path}", "-o", str(tmp_path / "report"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        served = 0
        while attack.poll() is None:
            with RawClient(proxy.port) as client:
                served += client.send(bare("GET /v1/models HTTP/1.1", "Connection: close")).answer().status == 200
            time.sleep(0.2)
    finally:
        attack.kill()
        assert attack.stdout is not None
        attack.stdout.close()
        attack.wait()
    assert served >= 5
    assert proxy.state()["server"]["connections"] <= 5
    assert_clean(proxy)
