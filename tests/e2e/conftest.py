"""One proxy for all cases that the same configuration serves: starting a process costs more than a case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import Answer, RawClient
from tests.e2e.scripted_upstream import ScriptedUpstream, Step

KEYS = {"acme": "key-of-acme", "small": "key-of-small"}

CLASSES = [
    {"name": "high", "priority_max": -1, "queue_timeout_s": 5},
    {"name": "normal", "priority_max": 0, "service_tiers": ["auto", "default"], "queue_timeout_s": 5},
    {"name": "low", "service_tiers": ["flex"], "queue_max": 2, "queue_timeout_s": 0.5},
]


def upstream(name: str, url: str, *models: str, seats: int = 8, **more: Any) -> dict[str, Any]:
    limit = {"mode": "fixed", "initial": seats}
    return {"name": name, "url": url, "engine": "openai", "models": list(models) or "auto", "limit": limit, **more}


def settings(*upstreams: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    """Deadlines short enough to wait for, and a breaker that stays shut unless a test asks for it."""
    base: dict[str, Any] = {
        "upstreams": list(upstreams),
        "classes": CLASSES,
        "listen": {
            "head_timeout_s": 0.6, "body_timeout_s": 0.6, "body_min_bytes_per_s": 10_000_000, "write_timeout_s": 1.0,
            "max_body_bytes": 200_000, "drain_timeout_s": 3,
        },
        "routing": {
            "retry_budget": 1.0, "connect_timeout_s": 0.5, "ttft_timeout_s": 0.6, "itl_timeout_s": 0.6,
            "response_timeout_s": 0.8,
        },
        "breaker": {"min_requests": 1_000_000},
        "probe": {"interval_s": 3600},
        "queue": {"tenant_share": 1},
    }  # fmt: skip
    return {key: {**base.get(key, {}), **value} for key, value in sections.items()} | {
        key: value for key, value in base.items() if key not in sections
    }


@dataclass
class Bench:
    """`main` serves m, narrow (one seat), tiny and roomy (little and much memory); `first` and `second` serve pair."""

    proxy: ProxyProcess
    main: ScriptedUpstream
    first: ScriptedUpstream
    second: ScriptedUpstream

    def play(self, *steps: Step) -> ScriptedUpstream:
        """Script of `main` for this case."""
        self.main.reset(*steps)
        return self.main

    def play_pair(self, *scripts: tuple[Step, ...]) -> None:
        """Scripts of the successive tries, whichever of the two upstreams each reaches."""
        self.first.reset()
        self.second.reset()
        self.first.scripts = self.second.scripts = list(scripts)

    def pair_calls(self) -> int:
        return len(self.first.calls) + len(self.second.calls)


@pytest.fixture(scope="session")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    main, first, second = (ScriptedUpstream() for _ in range(3))
    config = settings(
        upstream("main", main.url, "m"),
        upstream("narrow", main.url, "narrow", seats=1),
        upstream("tiny", main.url, "tiny", memory={"source": "tokens", "tokens": 1000}),
        upstream("roomy", main.url, "roomy", memory={"source": "tokens", "tokens": 1_000_000}),
        upstream("first", first.url, "pair"),
        upstream("second", second.url, "pair"),
    )
    with running(tmp_path_factory.mktemp("proxy"), config) as proxy:
        yield Bench(proxy, main, first, second)


@pytest.fixture
def bench(_bench: Bench) -> Iterator[Bench]:
    """The shared proxy; whatever a case did, nothing may be held after it."""
    _bench.play()
    yield _bench
    for one in (_bench.main, _bench.first, _bench.second):
        one.release.set()
    assert_clean(_bench.proxy)


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A proxy with tenants: no key, no service."""
    main = ScriptedUpstream()
    hashes = {name: "sha256:" + hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    tenants = {
        "list": [
            {"name": "acme", "keys": [hashes["acme"]], "max_class": "normal"},
            {"name": "small", "keys": [hashes["small"]], "max_in_flight": 1, "models": ["m"]},
        ],
        "anonymous": {"allowed": False},
    }
    config = settings(upstream("main", main.url, "m", "other"), tenants=tenants, listen={"max_connections": 20})
    with running(tmp_path_factory.mktemp("keyed"), config) as proxy:
        yield Bench(proxy, main, main, main)


def ask(bench: Bench, request: bytes, head_only: bool = False) -> Answer:
    with RawClient(bench.proxy.port) as client:
        return client.send(request).answer(head_only)
