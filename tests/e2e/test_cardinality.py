"""However many tenants and models clients name, the number of series stays bounded, and no request goes uncounted."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import running
from tests.e2e.raw_client import RawClient, chat, post
from tests.e2e.scripted_upstream import HOST, ScriptedUpstream, wait_for

TOP = 5
TENANTS = 60


def test_tenants_beyond_the_top_and_models_nobody_serves_share_one_label(tmp_path: Path) -> None:
    engine = ScriptedUpstream()
    config = settings(
        upstream("main", engine.url, "m"), metrics={"top_tenants": TOP}, trust={"proxies": [f"{HOST}/32"]}
    )
    with running(tmp_path, config) as proxy:
        with RawClient(proxy.port) as client:
            for number in range(TENANTS):
                for model in ("m", f"m-{number}"):
                    headers = [f"x-tenant-id: tenant-{number}", f"x-priority: p-{number}"]
                    client.send(post(chat(model), headers=headers)).answer()

        wait_for(lambda: proxy.metric("penstock_requests_total") == 2 * TENANTS, "all counted", 3)
        samples = [sample for family in parse(proxy.admin("/metrics")[1]) for sample in family.samples]
        labels = {
            name: {sample.labels[name] for sample in samples if name in sample.labels}
            for name in ("tenant", "model", "class")
        }
        assert len(labels["tenant"]) == TOP + 1
        assert "other" in labels["tenant"]
        assert labels["model"] <= {"m", "other", "none"}
        assert labels["class"] <= {"high", "normal", "low", "none"}
        assert proxy.metric("penstock_tenant_requests_total") == 2 * TENANTS
        assert proxy.metric("penstock_requests_total", model="other") == TENANTS
        assert proxy.metric("penstock_priority_unknown_total") == TENANTS
