from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from proxy.settings import Settings, load
from tests.settings.faults import Write, told

KEY = "sha256:" + hashlib.sha256(b"k").hexdigest()


def test_nothing_given_is_the_default_and_each_source_wins_over_the_ones_below(write: Write, tmp_path: Path) -> None:
    assert load(None, {}, {}) == Settings()
    path = write("listen: {host: a, port: 1, head_timeout_s: 5}\nlog:\n  level: debug\ntarget: {itl_ms: 1e1}\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, text in {
        "PENSTOCK_LISTEN__HOST": "b",
        "listen__port": "2\n",
        "admin__token": "s3cret-token\n",
        ".data": "x",
        "other": "y",
    }.items():
        (secrets / name).write_text(text)
    environ = {
        "PENSTOCK_SECRETS_DIR": str(secrets),
        "PENSTOCK_LISTEN__PORT": "3",
        "PENSTOCK_LISTEN__HOST": "c",
        "PENSTOCK_LOG__LEVEL": "",  # compose passes empty variables on: not given
        "PENSTOCK_PORT": "tcp://10.0.0.1:80",  # Kubernetes sets it for a service called penstock
    }
    settings = load(path, {"listen": {"port": 4}}, environ)
    assert (settings.listen.host, settings.listen.port, settings.listen.head_timeout_s) == ("c", 4, 5)
    assert (settings.log.level, settings.target.itl_ms) == ("debug", 10)
    assert settings.admin.token is not None
    assert settings.admin.token.get_secret_value() == "s3cret-token"
    assert "s3cret" not in repr(settings) + str(settings.model_dump(mode="json"))


def test_a_fault_on_the_command_line_is_told_as_such() -> None:
    assert told(None, listen={"port": "x"}) == ["command line: listen.port: 'x' does not fit; give a whole number"]


def test_tenants_file_and_token_file_are_read_from_beside_the_configuration(write: Write, tmp_path: Path) -> None:
    path = write(
        "admin: {token_file: token}\ntenants:\n  file: tenants.yaml\n  list: [{name: a}]\n"
        "upstreams: [{url: 'https://e', tls: {ca: ca.pem}, memory: {plan: {model: m/config.json, accelerator: x}}}]\n"
    )
    write("s3cret-token\n", "token")
    write(f"tenants:\n- name: b\n  keys: ['{KEY}']\n", "tenants.yaml")
    settings = load(path, {}, {})
    assert [tenant.name for tenant in settings.tenants.list] == ["a", "b"]
    assert settings.admin.token is not None
    assert settings.admin.token.get_secret_value() == "s3cret-token"
    assert settings.upstreams[0].tls.ca == tmp_path / "ca.pem"
    plan = settings.upstreams[0].memory.plan
    assert plan is not None
    assert plan.model == str(tmp_path / "m/config.json")
    for text, message in [
        (
            "tenants:\n- name: b\n- name: b\n  weight: 0",
            "tenants.yaml:4: tenants.list.2.weight: 0 does not fit; give more than 0",
        ),
        ("tenants:\n- name: a", "tenants.yaml:2: tenants.list.1.name: has the name of tenants.list.0"),
        ("- name: b", "tenants.yaml:1: the tenants file is no mapping"),
        ("users: []", "tenants.yaml: the tenants file holds one list; start it with `tenants:`"),
    ]:
        write(text, "tenants.yaml")
        assert message in told(path)[0]
    (tmp_path / "tenants.yaml").write_bytes(b"\xff")
    assert "is not UTF-8 at byte 0" in told(path)[0]
    (tmp_path / "tenants.yaml").unlink()
    assert "tenants.yaml: the tenants file cannot be read (no such file or directory)" in told(path)[0]
    token = {"PENSTOCK_ADMIN__TOKEN": "long enough"}
    write("tenants: []", "tenants.yaml")
    assert told(path, token) == ["penstock.yaml:1: admin.token_file: is given beside admin.token; keep one"]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("tenants: {list: [{name: a}]}", False),
        ("tenants: {list: [{name: a}], anonymous: {allowed: true}}", True),
        ("tenants: {list: [{name: a}]}\nlisten: {host: localhost}", True),
        ("tenants: {list: [{name: a}]}\nlisten: {host: '::1'}", True),
        ("listen: {host: 0.0.0.0}", True),
    ],
)
def test_strangers_are_shut_out_where_tenants_are_defined_and_others_can_connect(
    write: Write, text: str, allowed: bool
) -> None:
    assert load(write(text), {}, {}).tenants.anonymous.allowed is allowed
