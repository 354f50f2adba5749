from __future__ import annotations

import dataclasses
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.server import bodies
from proxy.simulator.server.bodies import Asked, Field, RefusedError
from tests.simulator.serving import PROFILE


def read(field: Field = bodies.CHAT, **body: Any) -> Asked:
    prompt = {"prompt": "hello"} if field is bodies.COMPLETIONS else {"messages": "hello"}
    return bodies.read_generation(prompt | body, field, PROFILE, random.Random(1))


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("", 1),
        ("12345", 2),
        ("äöü", 2),
        ([1, 2, 3], 3),
        ([{"role": "user", "content": "12345678"}], 2),
        (
            [{"content": [{"type": "text", "text": "1234"}, {"type": "image_url", "image_url": {"url": "x" * 999}}]}],
            257,
        ),
        (["1234", None, 1.5], 1),
    ],
)
def test_prompt_tokens_follow_from_the_bytes_of_text(value: object, tokens: int) -> None:
    assert bodies.tokens_of(value) == tokens


@pytest.mark.parametrize(
    ("body", "field", "lengths"),
    [
        ({"max_tokens": 5, "ignore_eos": True}, bodies.CHAT, [(5, "length")]),
        ({"max_completion_tokens": 4, "max_tokens": 5, "ignore_eos": True, "n": 2}, bodies.CHAT, [(4, "length")] * 2),
        ({"ignore_eos": True}, bodies.CHAT, [(998, "length")]),
        ({"ignore_eos": True}, bodies.COMPLETIONS, [(16, "length")]),
        ({"ignore_eos": True, "prompt": ["a", "b"], "n": 2}, bodies.COMPLETIONS, [(16, "length")] * 4),
        ({"max_tokens": 900, "min_tokens": 899}, bodies.CHAT, [(899, "stop")]),
        ({"max_tokens": 3, "n": 9}, bodies.MESSAGES, [(3, "length")]),
    ],
)
def test_output_lengths_obey_caps(body: dict[str, Any], field: Field, lengths: list[tuple[int, str]]) -> None:
    asked = read(field, **body)
    assert [(piece.output_tokens, piece.reason) for piece in asked.pieces] == lengths
    assert asked.output_tokens == sum(tokens for tokens, _ in lengths)


def test_the_seed_of_a_request_decides_its_lengths_and_unasked_ones_vary() -> None:
    lengths = [piece.output_tokens for piece in read(n=20).pieces]
    assert len(set(lengths)) > 5 and all(piece.reason == "stop" for piece in read(n=20).pieces)
    assert read(n=20, seed=7).pieces == read(n=20, seed=7).pieces != read(n=20, seed=8).pieces


def test_the_form_of_the_answer_is_read() -> None:
    plain = read()
    assert (plain.stream, plain.include_usage, plain.priority) == (False, False, 0)
    asked = read(stream=True, stream_options={"include_usage": True}, priority=-3)
    assert (asked.stream, asked.include_usage, asked.priority) == (True, True, -3)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": "9"}, "invalid_value", "max_tokens"),
        ({"max_tokens": True}, "invalid_value", "max_tokens"),
        ({"n": 129}, "invalid_value", "n"),
        ({"min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"priority": "high"}, "invalid_value", "priority"),
        ({"max_tokens": 999}, "context_length_exceeded", None),
        ({"messages": "x" * 4000}, "context_length_exceeded", None),
    ],
)
def test_wrong_values_are_refused_by_name(body: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        read(**body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(
    ("field", "body", "param"),
    [
        (bodies.CHAT, {}, "messages"),
        (bodies.MESSAGES, {"messages": []}, "max_tokens"),
        (bodies.COMPLETIONS, {"prompt": []}, "prompt"),
        (bodies.COMPLETIONS, {"prompt": 5}, "prompt"),
        (bodies.COMPLETIONS, {"prompt": ["x"] * 2049}, "prompt"),
    ],
)
def test_what_a_route_needs_must_be_there(field: Field, body: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedError, match=param):
        bodies.read_generation(body, field, PROFILE, random.Random(1))


def test_token_ids_are_one_prompt_and_lists_of_them_several() -> None:
    assert bodies.texts({"input": [1, 2]}, "input") == [[1, 2]]
    assert bodies.texts({"input": [[1], [2]]}, "input") == [[1], [2]]


def test_forward_passes_generate_nothing_and_must_fit() -> None:
    asked = bodies.read_passes({}, ["a" * 40, "b"], PROFILE)
    assert [(piece.prompt_tokens, piece.output_tokens) for piece in asked.pieces] == [(10, 0), (1, 0)]
    assert asked.prompt_tokens == 11
    with pytest.raises(RefusedError, match="maximum context length is 1000"):
        bodies.read_passes({}, ["a" * 4001], PROFILE)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b""])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        bodies.parse(body)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("status", "openai_type", "anthropic_type"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (404, "invalid_request_error", "not_found_error"),
        (503, "api_error", "api_error"),
    ],
)
def test_errors_have_the_shape_of_their_route(status: int, openai_type: str, anthropic_type: str) -> None:
    error = RefusedError(status, "c", "m", "p")
    expected = {"message": "m", "type": openai_type, "param": "p", "code": "c"}
    assert orjson.loads(error.body(anthropic=False)) == {"error": expected}
    assert orjson.loads(error.body(anthropic=True)) == {
        "type": "error",
        "error": {"type": anthropic_type, "message": "m"},
    }


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda kids: st.lists(kids, max_size=3))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "n", "max_tokens", "min_tokens", "stream", "priority"]), JSON))
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    small = dataclasses.replace(PROFILE, context_tokens=64)
    try:
        asked = bodies.read_generation(body, bodies.COMPLETIONS, small, random.Random(1))
    except RefusedError:
        return
    assert all(1 <= piece.prompt_tokens + piece.output_tokens <= 64 for piece in asked.pieces)
