"""Plans against figures that engines printed, stage by stage.

Of the coefficients only vLLM's sampler peak comes from rows of the table (those of split `fit`, together); `test` rows
gave none. Rows whose log leaves out a flag that decides the budget count in stage 1 alone.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.files import load_accelerator
from proxy.planning.accelerators import GIB
from proxy.planning.capacity import CapacityPlan
from proxy.planning.fields import PlanError
from tests.planning.support import planned

Row = dict[str, str]
TABLE = Path(__file__).parent / "printed_figures.csv"
ROWS: list[Row] = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
# The log leaves max_num_seqs or the accounting of its time unprinted: the error there is the flag's, not the formula's.
UNPRINTED_FLAGS = {"V13", "V18", "V22", "V24", "V26", "V44"}
WHOLE = ("tp", "max_model_len", "max_num_batched_tokens", "max_num_seqs")


def request(row: Row, *more: str) -> dict[str, Any]:
    given: dict[str, Any] = {"engine": row["engine"], "engine_version": row["version"]}
    given |= {name: int(row[name]) for name in WHOLE if row[name]}
    given |= {name: float(row[name]) for name in ("fraction", *more) if row[name]}
    given |= {name: row[name] for name in ("weight_dtype", "kv_dtype") if row[name] in KNOWN_TYPES}
    return given


KNOWN_TYPES = {"bf16", "fp16", "fp8", "int8", "int4", "nf4", "mxfp4"}


def known(row: Row) -> bool:
    try:
        return bool(load_accelerator(row["gpu"]))
    except PlanError:
        return False


def plan_of(row: Row, *more: str) -> CapacityPlan:
    return planned(row["model"], row["gpu"] if known(row) else "h100", **request(row, *more))


def named(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row["id"] for row in rows])


@named([row for row in ROWS if row["token_bytes"] and row["level"] != "M"])
def test_stage_1_bytes_per_token_are_exact(row: Row) -> None:
    assert plan_of(row).token_bytes == int(row["token_bytes"])


def with_budget() -> Iterator[Row]:
    for row in ROWS:
        if row["level"] == "A" and row["kv_gib"] and row["weights_gib"] and row["id"] not in UNPRINTED_FLAGS:
            yield row


@named([row for row in with_budget() if row["engine"] == "vllm"])
def test_stage_2_vllm_budget(row: Row) -> None:
    truth = float(row["kv_gib"])
    error = abs(plan_of(row, "gpu_memory_gib", "weights_gib").kv_bytes / GIB - truth)
    # One log of a 0.6 development build books 1.79 GiB outside torch where its neighbours book 0.1.
    assert error <= (1.75 if row["id"] == "V11" else max(0.5, 0.03 * truth))


@named([row for row in with_budget() if row["engine"] == "sglang"])
def test_stage_2_sglang_budget(row: Row) -> None:
    assert plan_of(row, "gpu_memory_gib", "weights_gib").kv_bytes / GIB == pytest.approx(float(row["kv_gib"]), rel=0.01)


def test_stage_2_tensorrt_fraction_is_of_free_memory() -> None:
    plan = planned("llama-3.1-8b", "rtx-5090", engine="trtllm", fraction=0.9, free_memory_gib=17.83, kv_dtype="fp8")
    assert plan.kv_bytes / GIB == pytest.approx(16.05, rel=0.005)
    assert plan.kv_tokens == pytest.approx(263008, rel=0.005)


def test_stage_3_from_config_and_card_alone() -> None:
    errors, inside = [], []
    for row in ROWS:
        if row["kv_gib"] and row["fraction"] and row["id"] not in UNPRINTED_FLAGS and known(row):
            plan = plan_of(row)
            truth = float(row["kv_gib"])
            errors.append(abs(plan.kv_bytes / GIB - truth) / truth)
            inside.append(plan.budget.low <= truth * GIB <= plan.budget.high)
    errors.sort()
    assert statistics.median(errors) <= 0.05, errors
    assert errors[int(0.9 * len(errors))] <= 0.15, errors
    assert statistics.mean(inside) >= 0.9


def test_stage_4_measured_tensorrt_sequences() -> None:
    errors = []
    for row in ROWS:
        if row["level"] == "M":
            truth = float(row["max_concurrency"])
            errors.append(abs(plan_of(row, "gpu_memory_gib").seats.worst_case - truth) / truth)
    assert len(errors) > 10
    assert statistics.mean(errors) <= 0.05
    assert max(errors) <= 0.10
