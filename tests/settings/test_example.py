from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.settings import Settings, load
from proxy.settings.example import PLAN, TENANT, UPSTREAM, example, schema
from proxy.settings.tenants import Tenant
from proxy.settings.upstreams import Plan

FILE = Path(__file__).parents[2] / "config" / "penstock.yaml"


def test_the_shipped_file_is_the_example_and_loads_to_the_defaults() -> None:
    assert FILE.read_text(encoding="utf-8") == example()
    assert load(FILE, {}, {}) == Settings(upstreams=(UPSTREAM,))


def commented(first: str, last: str) -> Any:
    """What the comment lines between two words say once their marks are gone."""
    block = example()[example().index(first) :].split(last)[0]
    lines = [line.strip().removeprefix("# ") for line in block.splitlines()[1:]]
    return yaml.safe_load("\n".join(line for line in lines if not line.lstrip().startswith("# ")))


def test_every_key_stands_in_it_also_those_of_the_commented_parts() -> None:
    settings = load(FILE, {}, {})
    for model in (settings, settings.upstreams[0], settings.upstreams[0].limit, settings.classes[0], settings.tenants):
        assert model.model_fields_set == set(type(model).model_fields)
    plan = commented("# a plan:", "    target:")["plan"]
    assert (Plan(**plan), plan.keys()) == (PLAN, Plan.model_fields.keys())
    (tenant,) = commented("# an entry of the list", "\ntrust:")
    assert (Tenant(**tenant), tenant.keys()) == (TENANT, Tenant.model_fields.keys())


@pytest.mark.parametrize("path", ["properties/listen", "$defs/Upstream/properties/url", "$defs/Limit/properties/min"])
def test_the_schema_describes_the_keys(path: str) -> None:
    node = json.loads(schema())
    for part in path.split("/"):
        node = node[part]
    assert node["description"]
