from __future__ import annotations

import asyncio
import resource
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy.loadtest import Arrival, Flow, Options, Results, Slo, Sources, Workload, measure, read_endpoint, run
from proxy.loadtest.client.measure import allow_connections
from proxy.loadtest.client.runner import Progress
from tests.loadtest.support import HANG, STREAM, chunk, good, scripted, token, whole

CLOSED = Workload("w", (Flow("f"),), Arrival("closed", concurrency=2), warmup_s=0, requests=6)


def measured(workload: Workload, *script: bytes, options: Options | None = None, **more: Any) -> Results:
    async def scenario() -> Results:
        async with scripted(*script, **more) as endpoint, asyncio.timeout(15):
            return await measure(endpoint.url, workload, options)

    return run(scenario())


def test_a_run_from_url_to_results() -> None:
    told: list[Progress] = []
    options = Options(slo=Slo(1.0), sources=Sources(), label="mine", progress=told.append)
    results = measured(CLOSED, options=options)
    meta = results.document["meta"]
    assert (meta["model"], meta["label"], meta["interrupted"]) == ("m", "mine", False)
    assert meta["url"].startswith("http://127.0.0.1:")
    assert (results.total["requests"], results.total["successes"], len(results.records)) == (6, 6, 6)
    assert results.total["goodput"]["ratio"] == 1
    assert told
    assert results.document["generator"]["cpu_share"] > 0


@pytest.mark.parametrize(
    ("ca", "verify", "endings"),
    [("valid.pem", True, {"success"}), (None, False, {"success"}), (None, True, {"connect"})],
)
def test_encrypted_endpoints(ca: str | None, verify: bool, endings: set[str]) -> None:
    folder = Path(__file__).parent.parent / "adapters" / "certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "valid.pem", folder / "key.pem")

    async def scenario() -> Results:
        async with scripted(tls=context) as endpoint, asyncio.timeout(15):
            trusted = read_endpoint(endpoint.url, ca=str(folder / ca) if ca else None, verify=verify)
            return await measure(trusted, CLOSED, Options(sources=Sources(trusted.root)))

    results = run(scenario())
    assert results.total["endings"].keys() == endings
    assert results.document["meta"]["model"] == ("m" if "success" in endings else "default")
    if "connect" in endings:
        assert "certificate" in results.document["examples"]["connect"]


def test_without_a_model_list_the_run_says_what_it_asked_for() -> None:
    results = measured(CLOSED, pages={})
    assert results.document["meta"]["model"] == "default"
    assert "say which with --model" in results.document["notes"][0]
    assert measured(CLOSED, pages={}, options=Options(model="x")).document["meta"]["model"] == "x"
    own = Workload("w", (Flow("f", model="own"),), CLOSED.arrival, warmup_s=0, requests=2)
    assert measured(own, pages={}).document["meta"]["model"] == ""


def test_a_stop_keeps_what_was_measured() -> None:
    async def scenario() -> Results:
        stop = asyncio.Event()
        script = [(good(),)] * 5
        async with scripted(STREAM, chunk(token()), HANG, first=script) as endpoint, asyncio.timeout(15):
            endpoint.seen = lambda said: stop.set() if len(endpoint.asked) == 7 else None
            return await measure(endpoint.url, CLOSED, Options(stop=stop))

    results = run(scenario())
    assert results.document["meta"]["interrupted"]
    assert results.total["endings"] == {"success": 4}
    assert results.total["interrupted"] >= 1
    assert any(note.startswith("interrupted") for note in results.document["notes"])


def test_the_soft_limit_of_descriptors_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_the_probe_and_a_dead_endpoint_have_to_tell_is_noted() -> None:
    refused = [(whole({"error": "ignore_eos"}, 400),)]
    assert "refuses ignore_eos" in measured(CLOSED, first=refused).document["notes"][0]
    dead = Workload("w", (Flow("f"),), Arrival("constant", 2000), warmup_s=0, duration_s=60)
    results = run(measure("http://127.0.0.1:9", dead))
    assert any(note.startswith("given up after") for note in results.document["notes"])
    assert results.total["endings"].keys() == {"connect"}
