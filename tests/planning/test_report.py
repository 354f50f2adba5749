"""The documented JSON, the table and the explanation."""

from __future__ import annotations

import json

from proxy.planning.advice import advise
from proxy.planning.report import (
    as_json,
    budget_rows,
    capacity_rows,
    explain_lines,
    largest_batch,
    memory_json,
    memory_of_batch,
    memory_rows,
    plain,
    roofline_rows,
)
from proxy.planning.shapes import read_shape
from tests.planning.support import config, planned

PLAN = planned("llama-3.1-8b", max_model_len=8192, max_num_seqs=256, itl_ms=20.0, ttft_ms=300.0)
GIB = 2**30


def test_json_has_the_documented_keys_and_adds_up() -> None:
    document = json.loads(json.dumps(as_json(PLAN)))
    assert document["kv_bytes_per_token_per_rank"] == 131072
    assert document["kv_bytes"] == sum(line["bytes"] for line in document["budget"])
    assert set(document["seats"]) == {"worst_case", "typical", "latency_adjusted", "conservative", "slo"}
    assert document["band"]["low"] < document["kv_bytes"] < document["band"]["high"]
    assert document["band_tokens"]["low"] < document["kv_tokens"] < document["band_tokens"]["high"]
    assert {line["provenance"] for line in document["budget"]} == {"from-file", "exact", "estimated"}
    assert (document["bound"], document["recommended"]) == (PLAN.bound, PLAN.recommended)
    assert document["weights_bytes"] == PLAN.shape.counted.total * 2
    assert document["roofline"]["ridge"] == 295.22


def test_a_plan_without_parameters_has_no_roofline() -> None:
    shape = read_shape(config(head_dim=64, hidden_size=None, num_attention_heads=None))
    plan = planned(shape, weights_gib=1.0, ttft_ms=1.0)
    assert as_json(plan)["roofline"] is None
    assert capacity_rows(plan)[-1][0] == "recommended"


def test_rows() -> None:
    assert budget_rows(PLAN)[-1][:2] == ("= KV cache", f"{PLAN.kv_bytes / GIB:.2f}")
    names = [row[0] for row in capacity_rows(PLAN)]
    assert names[-3:] == ["seats, latency target", "recommended", "longest prompt"]
    assert [row[0] for row in capacity_rows(planned())][-2:] == ["seats, conservative", "recommended"]
    batches = [int(row[0]) for row in roofline_rows(PLAN)[1:]]
    assert batches == sorted(set(batches))
    assert PLAN.recommended in batches


def test_the_most_requests_within_a_memory_limit() -> None:
    most = largest_batch(PLAN, 40 * GIB)
    assert memory_of_batch(PLAN, most) <= 40 * GIB < memory_of_batch(PLAN, most + 1)
    assert largest_batch(PLAN, 10 * GIB) == 0
    assert largest_batch(PLAN, 10**15) == PLAN.seats.typical
    rows = memory_rows(PLAN, 40.0)
    assert rows[-1][:2] == ("most", str(most))
    assert [row[2] for row in rows if row[0] in ("16", "1024")] == ["", "does not fit"]
    assert [row[0] for row in memory_rows(PLAN, None)][-1] == str(PLAN.seats.typical)
    listed = memory_json(PLAN)
    assert listed[0] == {"batch": 1, "bytes": memory_of_batch(PLAN, 1)}
    assert listed[-1]["batch"] == PLAN.seats.typical
    assert memory_json(planned("llama-3.1-405b")) == []


def test_the_explanation_puts_the_numbers_into_the_formula() -> None:
    text = "\n".join(explain_lines(PLAN, advise(PLAN)))
    assert "32 full layers x ceil(8 KV heads / tp 1) x (128 + 128) x bf16" in text
    assert "= 131,072 B" in text
    assert f"= {PLAN.kv_bytes / GIB:.2f} GiB" in text
    assert "fp8: 1.5-2x, 1/2, below 1 %" in text
    assert "advice (rule of thumb): quantization" in text
    mixed = "\n".join(explain_lines(planned("qwen3.5-27b", "h200"), []))
    assert "48 recurrent layers keep" in mixed
    latent = "\n".join(explain_lines(planned("deepseek-v3.2", "h200", tp=8), []))
    assert "latent 576 + indexer 128" in latent
    coder = read_shape(config(is_encoder_decoder=True, max_source_positions=99))
    assert "at most 99 tokens (fixed, not counted)" in "\n".join(explain_lines(planned(coder), []))


def test_figures_in_full() -> None:
    assert (plain(1437500.0), plain(57.5), plain(0.0)) == ("1,437,500", "57.5", "0")
