from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from proxy.dispatcher import Dispatcher, DispatcherConfig, UpstreamConfig
from proxy.server.catalog import Catalog
from proxy.types import Telemetry
from tests.dispatcher.world import CLASSES


def make(**models: tuple[str, ...] | None) -> Catalog:
    upstreams = tuple(UpstreamConfig(name, models=served) for name, served in models.items())
    return Catalog(Dispatcher(DispatcherConfig(CLASSES, upstreams), 0.0, Random(1)), lambda: 0.0)


def listing(catalog: Catalog, model: str | None = None) -> Any:
    found = catalog.listing(model)
    return None if found is None else orjson.loads(found)


def test_entries_of_all_upstreams_are_merged_as_they_were_told() -> None:
    catalog = make(a=("m", "n"), b=("m", "o"))
    catalog.listed("b", [{"id": "m", "by": "b"}, {"id": "o", "max_model_len": 7}, {"no": "id"}])
    catalog.listed("a", [{"id": "m", "by": "a"}, {"id": "not served"}])
    entries = listing(catalog)
    assert entries["object"] == "list"
    made = {"id": "n", "object": "model", "created": 0, "owned_by": "a"}
    assert entries["data"] == [{"id": "m", "by": "a"}, made, {"id": "o", "max_model_len": 7}]
    assert listing(catalog, "o") == {"id": "o", "max_model_len": 7}
    assert listing(catalog, "not served") is None
    catalog.forget({"b"})
    assert listing(catalog, "m") == {"id": "m", "by": "b"}


@pytest.mark.parametrize(("models", "sole"), [(("m",), "m"), (("m", "n"), ""), (None, "")])
def test_the_only_model_is_the_default(models: tuple[str, ...] | None, sole: str) -> None:
    assert make(a=models).sole_model() == sole


def test_a_model_is_known_once_it_is_listed_and_any_is_until_then() -> None:
    catalog = make(a=None)
    assert catalog.knows("anything")
    catalog.dispatcher.telemetry("a", Telemetry(at_s=0.0, models=("m",)), 0.0)
    assert (catalog.knows("m"), catalog.knows("anything")) == (True, False)
    assert [entry["id"] for entry in listing(catalog)["data"]] == ["m"]


def test_retry_after_comes_from_the_drain_rate() -> None:
    assert 1 <= make(a=("m",)).retry_after_s() <= 60
