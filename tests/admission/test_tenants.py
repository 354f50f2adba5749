"""Quotas, shares, and who is remembered."""

from __future__ import annotations

import pytest

from proxy.admission.queue import QueueConfig, TenantConfig
from proxy.admission.tenants import Bucket, TenantBook


def book(*configs: TenantConfig, tenants_max: int = 10, max_bytes: int = 100) -> TenantBook:
    return TenantBook(configs, QueueConfig(max_bytes, 0.5), 0.0, tenants_max)


def test_a_bucket_is_one_minute_deep_and_refills_evenly() -> None:
    bucket = Bucket(60.0, 0.0)
    assert bucket.wait_s(60, 0.0) == 0
    bucket.take(60)
    assert (bucket.wait_s(10, 0.0), bucket.wait_s(10, 4.0), bucket.wait_s(10, 10.0)) == (10, 6, 0)
    bucket.take(-1e9)
    assert bucket.level == 60, "giving back never exceeds a minute"
    assert bucket.wait_s(600, 10.0) == 0, "more than a minute's worth runs on a full bucket"
    bucket.take(600)
    assert bucket.wait_s(600, 5.0) == 600, "time does not run backwards"


def test_a_request_waits_for_the_quota_that_is_shortest() -> None:
    one = book(TenantConfig("a", tokens_per_minute=600, requests_per_minute=6)).get("a", 0.0)
    assert one.quota_wait_s(100, 0.0) == (0, "")
    one.charge(6, 100)
    assert one.quota_wait_s(100, 0.0) == (10, "requests per minute")
    one.charge(-6, 600)
    assert one.quota_wait_s(100, 0.0) == (20, "tokens per minute")
    assert book().get("b", 0.0).quota_wait_s(1e9, 0.0) == (0, "")


def test_new_bounds_keep_what_is_held_and_unchanged_quotas() -> None:
    tenants = book(TenantConfig("a", 2.0, tokens_per_minute=60, requests_per_minute=60))
    one = tenants.get("a", 0.0)
    one.charge(60, 60)
    one.queue(2, 1)
    changed = TenantConfig("a", 3.0, tokens_per_minute=60, requests_per_minute=120)
    tenants.reconfigure((changed,), tenants.queue, 0.0)
    assert one.tokens is not None and one.tokens.level == 0 and one.requests is not None and one.requests.level == 120
    tenants.reconfigure((), tenants.queue, 0.0)
    assert one.quota_wait_s(1e9, 0.0) == (0, "") and (one.config, one.queued_in) == (TenantConfig("a"), {2: 1})
    assert repr(one) == "Tenant(a, in_flight=0, queued=1)"


@pytest.mark.parametrize(("others", "fits"), [(0, 100), (1, 50)])
def test_a_tenant_of_several_gets_its_share_of_the_bytes(others: int, fits: int) -> None:
    tenants = book()
    for number in range(others):
        tenants.get(f"other{number}", 0.0)
    assert not tenants.reserve_bytes("a", fits + 1, 0.0)
    assert tenants.reserve_bytes("a", fits, 0.0)
    assert not tenants.reserve_bytes("a", 1, 0.0)
    tenants.release_bytes("a", fits, 0.0)
    with pytest.raises(AssertionError, match="once"):
        tenants.release_bytes("a", 1, 0.0)
    assert tenants.body_bytes == 0


def test_only_idle_tenants_that_are_not_configured_are_forgotten() -> None:
    tenants = book(TenantConfig("kept"), tenants_max=4)
    tenants.get("busy", 0.0).in_flight = 1
    tenants.get("waiting", 0.0).queue(0, 2)
    assert tenants.reserve_bytes("sending", 5, 0.0)
    for number in range(50):
        tenants.get(f"t{number}", 0.0)
    assert len(tenants) <= 8
    assert [one.config.name for one in tenants.busiest(9)] == ["waiting", "busy"]
    assert tenants.get("sending", 0.0).body_bytes == 5
    assert len(tenants.busiest(1)) == 1
