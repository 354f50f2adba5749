from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.settings import ConfigError, load
from proxy.settings.root import Settings
from tests.settings.faults import Write, told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: {}\nlisten: {}", "penstock.yaml:2: listen: stands twice, first at penstock.yaml:1; keep one"),
        ("a: [", "penstock.yaml:2: not YAML: "),
        ("a: !!python/name:os.system x", "penstock.yaml:1: not YAML: could not determine a constructor"),
        ("- a", "penstock.yaml:1: the configuration is no mapping"),
        ("? [a]\n: b", "penstock.yaml:1: the file: a key is no plain word"),
    ],
)  # fmt: skip
def test_what_is_no_plain_mapping_is_refused_with_its_line(text: str, message: str, write: Write) -> None:
    lines = told(write(text))
    assert len(lines) == 1
    assert message in lines[0]


def test_aliases_do_not_multiply_without_bound(write: Write) -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)]
    assert told(write("\n".join(rows))) == [
        "penstock.yaml: not YAML: more than 1000000 values (aliases count each time); correct the file"
    ]


words = st.sampled_from([*Settings.model_fields, "name", "url", "limit", "list", "keys", "file", "min", "0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=values.map(yaml.safe_dump) | st.text(max_size=60), name=words, value=st.text(max_size=20))
def test_whatever_stands_in_the_sources_gives_settings_or_a_told_fault(
    text: str, name: str, value: str, write: Write
) -> None:
    with contextlib.suppress(ConfigError):
        load(write(text.encode("utf-8", "replace").decode()), {}, {f"PENSTOCK_UPSTREAMS__0__{name.upper()}": value})
