from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from proxy.settings import upstreams
from proxy.settings.upstreams import Limit, Memory, Plan, SeedLaw, Upstream, UpstreamTls


def test_an_upstream_needs_a_name_and_an_address() -> None:
    one = Upstream(name="a", url="http://127.0.0.1:8000")
    assert (one.engine, one.models, one.weight, one.shared_by, one.api_key) == ("auto", "auto", 1.0, 1, None)
    assert one.limit == Limit(mode="adaptive", law="model", initial=8, min=1, max=None)
    assert one.seed_law == SeedLaw(interval=10, increase=1.5, decrease=0.7, deadband=0.8)
    assert (one.memory, one.tls) == (Memory(source="auto", tokens=None, seats=None, plan=None), UpstreamTls())


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("Limit", {"initial": 0}, "initial"),
        ("Limit", {"law": "vegas"}, "law"),
        ("SeedLaw", {"increase": 1.0}, "increase"),
        ("SeedLaw", {"decrease": 1.0}, "decrease"),
        ("Plan", {"model": "", "accelerator": "h100"}, "model"),
        ("Plan", {"model": "m", "accelerator": "h100", "fraction": 1.1}, "fraction"),
        ("Memory", {"source": "guess"}, "source"),
        ("Memory", {"tokens": 0}, "tokens"),
        ("Upstream", {"name": "a", "url": "ftp://a"}, "url"),
        ("Upstream", {"name": "a", "url": "http://a", "engine": "other"}, "engine"),
        ("Upstream", {"name": "a"}, "url"),
        ("Upstream", {"url": "http://a"}, "name"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(section: str, values: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        getattr(upstreams, section).model_validate(values)
    assert [error["loc"][0] for error in caught.value.errors()] == [key]


def test_a_key_is_not_shown() -> None:
    assert "sk-planted" not in repr(Upstream(name="a", url="http://a", api_key=SecretStr("sk-planted")))


def test_a_plan_has_the_defaults_of_the_command() -> None:
    plan = Plan(model="m", accelerator="h100")
    assert (plan.count, plan.tp, plan.kv_dtype, plan.fraction) == (1, None, "auto", 0.9)
