from __future__ import annotations

import json
import random

import pytest

from proxy.loadtest.prompts import OPTIONAL, TEXT_WORDS, WORDS, Prompts, fields
from proxy.loadtest.workload import Flow, Shot


def test_words_count_alike_for_readers_of_bytes_and_of_words() -> None:
    assert {len(word) for word in WORDS} == {3}
    prompts = Prompts(random.Random(1))
    for tokens in (1, 2, 777, TEXT_WORDS + 5, 2 * TEXT_WORDS + 1):
        text = prompts.text(tokens)
        assert (len(text.split()), -(-len(text.encode()) // 4)) == (tokens, tokens)


def test_prompts_differ_from_the_first_word_but_for_the_shared_prefix() -> None:
    prompts = Prompts(random.Random(1))
    texts = [prompts.text(40, prefix_tokens=10) for _ in range(200)]
    assert len({text[:39] for text in texts}) == 1
    assert len({text[40:72] for text in texts}) > 190
    assert len(prompts.text(4, prefix_tokens=10).split()) == 4


@pytest.mark.parametrize(
    ("flow", "left_out", "expected"),
    [
        (
            Flow("f"),
            (),
            {
                "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 9,
                "stream_options": {"include_usage": True}, "ignore_eos": True,
            },
        ),
        (
            Flow("f"),
            OPTIONAL,
            {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_completion_tokens": 9},
        ),
        (
            Flow("f", api="completions", stream=False, ignore_eos=False, model="own"),
            (),
            {"model": "own", "prompt": "hi", "stream": False, "max_tokens": 9},
        ),
    ],
)  # fmt: skip
def test_bodies(flow: Flow, left_out: tuple[str, ...], expected: dict[str, object]) -> None:
    assert fields(flow, "m", "hi", 9, left_out) == expected


def test_a_body_has_the_size_of_its_shot() -> None:
    body = json.loads(Prompts(random.Random(1)).body(Shot(0, 0.0, Flow("f"), 33, 44), "m"))
    assert (len(body["messages"][0]["content"].split()), body["max_tokens"]) == (33, 44)
