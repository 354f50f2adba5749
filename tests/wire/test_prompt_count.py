from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.prompt_count import BODY_BYTES_MAX, PromptCount, read_prompt_count

VLLM = "This model's maximum context length is 8192 tokens. However, "
SENTENCES = {
    VLLM + "you requested 12034 tokens (9034 in the messages, 3000 in the completion). Please reduce": 9034,
    VLLM + "your request has 9034 input tokens. Please reduce the length of the input messages.": 9034,
    VLLM + "your messages resulted in 9034 tokens. Please reduce the length of the messages.": 9034,
    "this model's maximum context length is 8192 tokens, but the prompt contains 9034 input tokens": 9034,
    "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 8192 tokens "
    "and your request has 5034 input tokens (4000 > 8192 - 5034).": 5034,
    "You passed 9034 input tokens and requested 100 output tokens. However, the model's context length is only 8192 "
    "tokens, resulting in a maximum input length of 8092 tokens.": 9034,
    "The decoder prompt (length 9034) is longer than the maximum model length of 8192. Make sure": 9034,
    "Input prompt (9034 tokens) is too long and exceeds limit of 8192": 9034,
    "The input (9034 tokens) is longer than the model's context length (8192 tokens).": 9034,
    "Input length (9034 tokens) exceeds the maximum allowed length (8192 tokens). Use a shorter input": 9034,
    "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 12034 "
    "tokens: 9034 tokens from the input messages and 3000 tokens for the completion.": 9034,
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9034 `inputs` tokens and 20 "
    "`max_new_tokens`": 9034,
    "Input validation error: `inputs` must have less than 8192 tokens. Given: 9034": 9034,
    "request (9034 tokens) exceeds the available context size (8192 tokens), try increasing it": 9034,
    "input (9034 tokens) is larger than the max context size (8192 tokens). skipping": 9034,
    "Prompt length (9034) exceeds maximum input length (8192). Set log level to info": 9034,
    "prompt is too long: 9034 tokens > 8192 maximum": 9034,
    "BadRequestError: The input (9034 tokens) is longer than the model's context length (8192 tokens).": 9034,
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: {"error": {"message": text, "type": "BadRequestError", "param": None, "code": 400}},
        lambda text: {"object": "error", "message": text, "type": "BadRequestError", "code": 400},
        lambda text: {"error": text, "error_type": "validation"},
    ],
    ids=["openai", "flat", "TGI"],
)
def test_the_count_is_read_from_each_engines_sentence(sentence: str, wrap: object) -> None:
    assert callable(wrap)
    assert read_prompt_count(json.dumps(wrap(sentence)).encode()) == PromptCount(SENTENCES[sentence])


def test_a_count_that_stopped_at_the_bound_is_marked() -> None:
    text = VLLM + "you requested 100 output tokens and your prompt contains at least 8093 input tokens, for a total of"
    assert read_prompt_count(json.dumps({"error": {"message": text}}).encode()) == PromptCount(8093, at_least=True)


def test_llama_cpp_says_it_in_a_field() -> None:
    error = {"code": 400, "message": "the request exceeds the available context size, try increasing it"}
    error |= {"type": "exceed_context_size_error", "n_prompt_tokens": 9034, "n_ctx": 8192}
    assert read_prompt_count(json.dumps({"error": error}).encode()) == PromptCount(9034)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"error": {"message": VLLM + "you requested 200000 tokens."}}, id="no count of the prompt"),
        pytest.param(
            {"error": {"message": VLLM + "you requested 8000 output tokens and your prompt contains 78627 characters "
                       "(more than 14592 characters, which is the upper bound for 192 input tokens)."}},
            id="characters",
        ),
        pytest.param(
            {"error": {"message": "1 validation error: input_value='The input (7 tokens) is longer than'"}}, id="echo"
        ),
        pytest.param({"error": {"message": "a: b: c: prompt is too long: 5 tokens"}}, id="far from the start"),
        pytest.param({"error": {"message": "prompt is too long: 0 tokens"}}, id="zero"),
        pytest.param({"error": {"message": "prompt is too long: 999999999999 tokens"}}, id="absurd"),
        pytest.param({"error": {"message": 5}}, id="a number for a message"),
        pytest.param({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": -1}}, id="negative"),
        pytest.param({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": "9"}}, id="text"),
        pytest.param({"error": ["prompt is too long: 5 tokens"]}, id="list"),
        pytest.param(["prompt is too long: 5 tokens"], id="no mapping"),
        pytest.param({"error": {"message": "prompt is too long: 5 tokens", "pad": "x" * BODY_BYTES_MAX}}, id="long"),
    ],
)  # fmt: skip
def test_nothing_else_is_taken_for_a_count(document: object) -> None:
    assert read_prompt_count(json.dumps(document).encode()) is None


@settings(max_examples=150)
@given(st.sampled_from(sorted(SENTENCES)), st.randoms(use_true_random=False), st.binary(max_size=40))
def test_any_bytes_are_survived(sentence: str, rng: random.Random, junk: bytes) -> None:
    body = json.dumps({"error": {"message": sentence}}).encode()
    at = rng.randrange(len(body))
    found = read_prompt_count(body[:at] + junk + body[at + rng.randrange(3) :])
    assert found is None or found.tokens > 0
