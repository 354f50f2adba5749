from __future__ import annotations

import pytest

from tests.settings.faults import told


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PENSTOCK_LISTEN__PRT", "1", "environment PENSTOCK_LISTEN__PRT: no key is called listen.prt"),
        ("PENSTOCK_UPSTREAMS__X__URL", "1", "no key is called upstreams.x.url"),
        ("PENSTOCK_UPSTREAMS", "[{", "environment PENSTOCK_UPSTREAMS: does not fit its key"),
        ("PENSTOCK_LISTEN__PORT", "x", "environment PENSTOCK_LISTEN__PORT: listen.port: 'x' does not fit"),
        ("PENSTOCK_LISTEN", "x", "environment PENSTOCK_LISTEN: listen: 'x' does not fit; give a mapping"),
        ("PENSTOCK_SECRETS_DIR", "/nowhere", "environment PENSTOCK_SECRETS_DIR: /nowhere is no readable directory"),
    ],
)
def test_faults_in_the_environment_name_the_variable(name: str, value: str, message: str) -> None:
    assert message in told(None, {name: value})[0]
    with_whole = {"PENSTOCK_LISTEN": "x", "PENSTOCK_LISTEN__PORT": "1"}
    assert "does not fit its key" in told(None, with_whole)[0]
