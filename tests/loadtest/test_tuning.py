from __future__ import annotations

from pathlib import Path

import pytest

from proxy.loadtest.blocks import as_markdown
from proxy.loadtest.search import Aim, Search
from proxy.loadtest.tuning import FLAGS, flags, memory_words, penstock_config, tune_blocks, tune_document
from proxy.settings import load
from tests.loadtest.test_search import AIM, breaking_above, point, searched


def text(search: Search, aim: Aim = AIM, engine: str = "vllm", hourly: float | None = None) -> str:
    return as_markdown("T", tune_blocks("http://h", aim, search, engine, ["WARNING slow"], hourly))


def test_the_answer_has_flags_configuration_use_cases_and_evidence() -> None:
    found = text(searched(breaking_above(20)), hourly=3.6)
    for words in (
        "- A concurrency of 18 keeps ITL 50 ms, TTFT 500 ms for 95% of requests: 180.0 output tokens/s",
        "- The target breaks at 24: only 50.0% of requests within the target",
        "vllm serve MODEL --max-num-seqs 18\n",
        "limit: {mode: adaptive, initial: 18, max: 23}",
        "| balanced | 18 | 180 tokens/s within the target, with headroom |",
        "| 18 | confirm | 180.0 |", "| 5.556 | holds |", "- WARNING slow",
    ):  # fmt: skip
        assert words in found
    assert "sglang" not in found


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (searched(breaking_above(0)), "No setting keeps ITL 50 ms"),
        (searched(breaking_above(10_000, lambda n: min(n, 16))), "Beyond it throughput no longer grows"),
        (searched(breaking_above(10_000), Aim(50, 500, concurrency_max=4)), "Nothing broke up to"),
        (
            searched(lambda n: point(n, n, kv_mean=0.3, good_ratio=float(n < 9))),
            "below 40%: latency bounds",
        ),
        (Search(AIM), "Not finished: no setting is confirmed yet"),
    ],
)
def test_other_endings_are_said(search: Search, words: str) -> None:
    assert words in text(search)


@pytest.mark.parametrize(("kv_mean", "words"), [(0.39, "below 40%"), (0.5, "within 40% to 70%")])
def test_memory_in_words(kv_mean: float, words: str) -> None:
    assert words in memory_words(kv_mean)


def test_flags_of_the_engine_found_or_of_all() -> None:
    assert flags("sglang", 8) == {
        "sglang": "python -m sglang.launch_server --model-path MODEL --max-running-requests 8"
    }
    assert flags("openai", 8).keys() == FLAGS.keys()


def test_the_configuration_is_one_that_penstock_accepts(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(penstock_config("http://127.0.0.1:8000", Aim(37.5, 400, 0.9), 18))
    settings = load(path, {}, {})
    assert (settings.target.itl_ms, settings.target.ttft_ms, settings.target.attainment) == (37.5, 400, 0.9)
    assert (settings.upstreams[0].limit.initial, settings.upstreams[0].limit.max) == (18, 23)


def test_the_file_holds_every_trial() -> None:
    search = searched(breaking_above(20))
    document = tune_document({"url": "http://h"}, AIM, search, "vllm", False)
    assert document["recommended_concurrency"] == 18
    assert [one["concurrency"] for one in document["trials"]] == [1, 2, 4, 8, 16, 32, 24, 18]
    assert [one["held"] for one in document["trials"]] == [True] * 5 + [False, False, True]
    nothing = tune_document({}, AIM, searched(breaking_above(0)), "", True)
    assert (nothing["recommended_concurrency"], nothing["flags"], nothing["interrupted"]) == (None, {}, True)
