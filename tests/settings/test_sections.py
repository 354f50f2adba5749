from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.settings import Settings
from proxy.settings.sections import Listen, Queue, Routing, Section, entry
from tests.settings.faults import Write, told


class Small(Section):
    share: float = entry(0.5, "share of all, for nobody", gt=0, le=1)
    name: str = entry(..., "a name", min_length=1)


def test_an_entry_carries_default_help_and_bounds() -> None:
    share = Small.model_fields["share"]
    assert (share.default, share.description) == (0.5, "share of all, for nobody")
    assert Small.model_fields["name"].is_required()
    assert Small(name="a").share == 0.5
    for wrong in (0, 1.01, float("inf"), float("nan")):
        with pytest.raises(ValidationError):
            Small(name="a", share=wrong)


def test_a_section_takes_no_unknown_key_and_no_later_change_and_shows_no_input() -> None:
    with pytest.raises(ValidationError, match="extra") as caught:
        Small.model_validate({"name": "a", "planted": "planted-secret"})
    assert "planted-secret" not in str(caught.value)
    with pytest.raises(ValidationError, match="frozen"):
        Small(name="a").share = 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: {port: 65536}", "listen.port: 65536 does not fit; give at most 65535"),
        ("listen: {max_body_bytes: 1023}", "listen.max_body_bytes: 1023 does not fit; give 1024 or more"),
        ("listen: {head_timeout_s: 0}", "listen.head_timeout_s: 0 does not fit; give more than 0"),
        ("listen: {drain_timeout_s: -1}", "listen.drain_timeout_s: -1 does not fit; give 0 or more"),
        ("admin: {token: short}", "admin.token: does not fit"),
        ("target: {attainment: 1}", "target.attainment: 1 does not fit; give less than 1"),
        ("queue: {tenant_share: 0}", "queue.tenant_share: 0 does not fit; give more than 0"),
        ("queue: {max_bytes: .inf}", "queue.max_bytes: inf does not fit"),
        ("routing: {policy: best}", "routing.policy: 'best' does not fit"),
        ("routing: {retries: 11}", "routing.retries: 11 does not fit; give at most 10"),
        ("probe: {path: up}", "probe.path: 'up' does not fit"),
        ("breaker: {failure_ratio: 2}", "breaker.failure_ratio: 2 does not fit; give at most 1"),
        ("log: {level: loud}", "log.level: 'loud' does not fit"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_named_with_the_bound(text: str, message: str, write: Write) -> None:
    lines = told(write(text))
    assert len(lines) == 1
    assert message in lines[0]


def test_the_promised_defaults() -> None:
    """What is documented as the default of the keys that bound the process."""
    assert (Listen().max_body_bytes, Listen().drain_timeout_s, Listen().reuse_port) == (32 << 20, 30, False)
    assert (Queue().max_bytes, Queue().tenant_share, Queue().keepalive_s) == (1 << 30, 0.5, 0)
    assert (Routing().retries, Routing().retry_on, Routing().retry_budget) == (2, ("connect", "shed", "stale"), 0.1)


def test_every_key_of_every_section_has_a_line_of_help() -> None:
    for name, section in Settings.model_fields.items():
        assert section.description, name
        kind = section.annotation
        for key, field in getattr(kind, "model_fields", {}).items():
            assert field.description, f"{name}.{key}"
            assert len(field.description) <= 110, f"{name}.{key}"
