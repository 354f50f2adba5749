from __future__ import annotations

import pytest

from tests.settings.faults import UPSTREAM, Write, told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen:\n  port: 70000", "penstock.yaml:2: listen.port: 70000 does not fit; give at most 65535"),
        ("listen: {port: x}", "penstock.yaml:1: listen.port: 'x' does not fit; give a whole number"),
        ("\nlisten:\n  prot: 1", "penstock.yaml:3: listen.prot: no such key; did you mean port?"),
        ("target: {zzz: 1}", "target.zzz: no such key; known here: itl_ms, ttft_ms, attainment"),
        ("listne: {}", "listne: no such key; did you mean listen?"),
        ("listen: 5", "listen: 5 does not fit; give a mapping: key: value"),
        ("upstreams: {}", "upstreams: does not fit; give a list"),
        ("classes: []", "classes: does not fit; give at least 1 entries"),
        ("log: {level: loud}", "log.level: 'loud' does not fit; give one of 'debug', 'info', 'warning' or 'error'"),
        ("target: {attainment: 1}", "target.attainment: 1 does not fit; give less than 1"),
        ("target: {itl_ms: .inf}", "target.itl_ms: inf does not fit; give"),
        ("target: {itl_ms: .nan}", "target.itl_ms: nan does not fit; give"),
        ("listen: {reuse_port: maybe}", "listen.reuse_port: 'maybe' does not fit; give true or false"),
        ("listen: {host: 5}", "listen.host: 5 does not fit; give text"),
        ("upstreams: [{name: a}]", "penstock.yaml:1: upstreams.0.url: is missing; add it"),
        (UPSTREAM % "models: 5", "upstreams.0.models: 5 does not fit; give auto or a list of names"),
        (UPSTREAM % "shared_by: some", "upstreams.0.shared_by: 'some' does not fit; give auto or a whole number"),
    ],
)  # fmt: skip
def test_each_fault_gives_one_line_with_place_key_and_remedy(text: str, message: str, write: Write) -> None:
    lines = told(write(text))
    assert len(lines) == 1
    assert message in lines[0]


def test_all_faults_are_told_at_once_and_no_secret_appears(write: Write) -> None:
    text = (
        "admin: {token: tiny}\nlisten: {port: -1}\nupstreams: [{url: 'http://u:hunter2@e:1', api_key: [hunter3]}]\n"
        "tenants: {list: [{name: a, keys: [hunter4]}]}\n"
    )
    lines = told(write(text), {"PENSTOCK_ADMIN__TOKEN": "hunter5"})
    assert [line.split(": ")[1] for line in lines] == [
        "listen.port", "admin.token", "upstreams.0.url", "upstreams.0.api_key", "tenants.list.0.keys.0",
    ]  # fmt: skip
    assert lines[1].startswith("environment PENSTOCK_ADMIN__TOKEN: admin.token: ")
    assert "hunter" not in " ".join(lines)
