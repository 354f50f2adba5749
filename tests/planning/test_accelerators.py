"""The table of accelerators, spelling, and the facts derived from it."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.adapters.files import load_accelerator, load_accelerators
from proxy.planning.accelerators import find_accelerator
from proxy.planning.fields import PlanError


def test_every_entry_reads_and_alias_names_one_card() -> None:
    table = load_accelerators()
    aliases = [alias for entry in table.values() for alias in entry["aliases"]]
    assert len(aliases) == len(set(aliases))
    for name in (*table, *aliases):
        card = load_accelerator(name)
        assert 0.9 * card.nominal_gb < card.usable_gib * 1.074 < 1.08 * card.nominal_gb or card.vendor == "amd"


@pytest.mark.parametrize(
    ("name", "expected", "ridge"),
    [
        ("Tesla T4", "t4", 203),
        ("A100 80GB", "a100-80gb", 153),
        ("nvidia h100_SXM", "h100-sxm", 295),
        ("H200", "h200", 206),
    ],
)
def test_names_and_ridges(name: str, expected: str, ridge: int) -> None:
    card = load_accelerator(name)
    assert (card.name, round(card.ridge())) == (expected, ridge)


def test_a_precision_without_units_runs_at_16_bit() -> None:
    card = load_accelerator("a100")
    assert card.flops("fp8") == card.flops("bf16") == 312e12


def test_refusals() -> None:
    with pytest.raises(PlanError, match="did you mean: h100-"):
        load_accelerator("h1000")
    with pytest.raises(PlanError, match="did you mean: t4, "):
        load_accelerator("")
    broken: dict[str, Any] = {"x": {"usable_gib": 1}}
    with pytest.raises(PlanError, match=r"x: tflops\.fp16 is missing"):
        find_accelerator(broken, "x")
