from __future__ import annotations

import hashlib

import pytest

from tests.settings.faults import UPSTREAM, Write, told

KEY = "sha256:" + hashlib.sha256(b"k").hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UPSTREAM % "limit: {min: 9, max: 8}", "upstreams.0.limit.min: 9 is above max 8; give at most 8"),
        (UPSTREAM % "limit: {max: 4}", "upstreams.0.limit.initial: 8 is not between min and max; give 1 to 4"),
        (UPSTREAM % "memory: {source: seats}", "upstreams.0.memory.seats: is missing; memory.source is seats"),
        (UPSTREAM % "memory: {tokens: 5}", "memory.tokens: is not used, as memory.source is auto; set source: tokens"),
        (UPSTREAM % "memory: {source: plan}", "memory.plan: is missing"),
        (UPSTREAM % "memory: {source: none, plan: {model: a, accelerator: b}}", "memory.plan: is not used"),
        (UPSTREAM % "tls: {verify: false}", "upstreams.0.tls: is set for an http URL; give an https URL or remove tls"),
        ("listen: {tls: {cert: a}}", "listen.tls: key is missing; give cert and key, or neither"),
        ("admin: {port: 8080}", "admin.port: 8080 is also listen.port; give another"),
        ("upstreams:\n- {name: a, url: 'http://e:1'}\n- {name: a, url: 'http://f:1'}",
         "penstock.yaml:3: upstreams.1.name: has the name of upstreams.0; give each its own"),
        ("classes: [{name: high, floor: 0.6, priority_max: 0}, {name: normal, floor: 0.6}]",
         "classes: the floors sum up to 1.2"),
        ("classes: [{name: high}, {name: normal}]", "classes.0.priority_max: null takes every priority"),
        ("classes: [{name: high, priority_max: 1}, {name: normal, priority_max: 1}]",
         "classes.1.priority_max: must rise from class to class; give more than 1"),
        ("classes: [{name: high, priority_max: 1}, {name: high, priority_max: 2}, {name: normal}]",
         "classes.1.name: has the name of classes.0"),
        ("classes: [{name: high, priority_max: 1, service_tiers: [a]}, {name: normal, service_tiers: [a]}]",
         "classes.1.service_tiers: has the service tier of classes.0"),
        ("tenants: {anonymous: {default_class: gold}}",
         "tenants.anonymous.default_class: no class is called 'gold'; give one of critical, high, normal, low"),
        ("tenants: {list: [{name: a, max_class: low}]}", "tenants.list.0.default_class: normal is above max_class low"),
        (f"tenants: {{list: [{{name: a, keys: ['{KEY}']}}, {{name: b, keys: ['{KEY}']}}]}}",
         "tenants.list.1.keys: has the key of tenants.list.0"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_refused(text: str, message: str, write: Write) -> None:
    lines = told(write(text))
    assert len(lines) == 1
    assert message in lines[0]
