from __future__ import annotations

import pytest

from proxy.settings import load, restart_needed


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("LISTEN__PORT", "9", ["listen.port"]),
        ("LISTEN__TLS", "{cert: a, key: b}", ["listen.tls.cert", "listen.tls.key"]),
        ("ADMIN__TOKEN", "long enough", ["admin.token"]),
        ("TRACING__ENABLED", "true", ["tracing.enabled"]),
        ("METRICS__TOP_TENANTS", "9", ["metrics.top_tenants"]),
        ("LOG__FORMAT", "json", ["log.format"]),
        ("LOG__LEVEL", "error", []),
        ("LOG__SAMPLE_RATE", "0.5", []),
        ("LISTEN__DRAIN_TIMEOUT_S", "9", []),
        ("TARGET__ITL_MS", "9", []),
        ("UPSTREAMS__0__URL", "http://e:1", []),
    ],
)
def test_only_what_a_running_proxy_cannot_change_asks_for_a_restart(name: str, value: str, needed: list[str]) -> None:
    assert restart_needed(load(None, {}, {}), load(None, {}, {f"PENSTOCK_{name}": value})) == needed
