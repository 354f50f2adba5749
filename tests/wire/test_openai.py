"""Whole bodies: facts, refusals, sizes."""

from __future__ import annotations

import json

import pytest

from proxy.types import WorkEstimate
from proxy.wire.errors import BadRequest
from proxy.wire.facts import AUDIO_TOKENS, IMAGE_TOKENS, RequestFacts
from proxy.wire.openai import read_body
from proxy.wire.routes import ROUTES

CHAT = ROUTES[b"/v1/chat/completions"]
RESPONSES = ROUTES[b"/v1/responses"]


def facts_of(body: bytes | dict[str, object], path: bytes = b"/v1/chat/completions") -> RequestFacts:
    return read_body(body if isinstance(body, bytes) else json.dumps(body).encode(), ROUTES[path])


def test_a_usual_chat() -> None:
    body = b'{"model":"m","stream":true,"max_tokens":16,"messages":[{"role":"user","content":"hello"}]}'
    assert facts_of(body) == RequestFacts("m", True, WorkEstimate(len(body) // 4, len(body) // 16, 16), True)


def test_an_empty_object_has_defaults() -> None:
    assert facts_of(b"{}") == RequestFacts("", False, WorkEstimate(), True)
    assert facts_of(b'{"model":null,"stream":null,"n":null,"max_tokens":null}').model == ""


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b'"x"', b"{", b'{"a":1,}', b"{'a':1}", b'{"a":NaN}', b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":1}{"a":1}', "{}".encode("utf-16"), b'{"a":"\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000,
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)  # fmt: skip
def test_not_a_json_object(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        facts_of(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"mod\\u0065l":"a","model":"b"}', "model"),
        (b'{"model":"a", "x":"\\u0022", "model":"b"}', "model"),
        (b'{"mod\\u0065l":"a","m\\u006Fdel":"b"}', "model"),
        (b'{"n":1,"x":"n","n":1}', "n"),
        (b'{"priority":1,"priority":2}', "priority"),
        (b'{"stream":{"a":[1]},"stream":true}', "stream"),
        (b'{"prompt":"a","prompt":["b"]}', "prompt"),
    ],
)
def test_duplicates_of_keys_that_are_read(body: bytes, key: str) -> None:
    with pytest.raises(BadRequest) as refused:
        facts_of(body)
    assert refused.value.code == "invalid_json" and key in refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","tools":[{"model":"b"}]}',
        b'{"model":"a","x":"model"}',
        b'{"x":1,"x":2,"model":"a"}',
        b'{"mod\\u0065l":"a"}',
        b'{ "model" : "a" , "user":"caf\\u00e9 \\u0041" }',
        b'{"model":"a","messages":[{"content":"say \\"model\\""}]}',
    ],
)
def test_other_repeats_are_fine(body: bytes) -> None:
    assert facts_of(body).model == "a"


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"model": 1}, "model"), ({"model": ["a"]}, "model"), ({"model": "m" * 257}, "model"),
        ({"model": "m" * 5000, "priority": 1}, "model"), ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"),
        ({"n": 0}, "n"), ({"n": True}, "n"), ({"n": 1.5}, "n"), ({"n": "2"}, "n"), ({"n": 129}, "n"),
        ({"best_of": 129}, "best_of"), ({"n": 2, "prompt": ["a"] * 65}, "n"), ({"prompt": ["a"] * 129}, "prompt"),
        ({"best_of": 2, "prompt": ["a"] * 65}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": "5"}, "max_tokens"), ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"), ({"max_output_tokens": []}, "max_output_tokens"),
        ({"store": 1}, "store"), ({"background": "x"}, "background"), ({"max_tokens": 10**30}, "max_tokens"),
    ],
)  # fmt: skip
def test_bad_values_name_their_key(document: dict[str, object], key: str) -> None:
    with pytest.raises(BadRequest) as refused:
        facts_of(document)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "invalid_value", key)


@pytest.mark.parametrize(
    ("document", "choices", "cap"),
    [
        ({"n": 4, "max_tokens": 10}, 4, 40),
        ({"n": 2, "best_of": 3, "max_tokens": 10}, 3, 30),
        ({"prompt": ["a", "b"], "n": 2, "max_tokens": 10}, 4, 40),
        ({"prompt": [1, 2, 3], "max_tokens": 10}, 1, 10),
        ({"prompt": [[1, 2], [3]]}, 2, None),
        ({"prompt": []}, 1, None),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 1, 20),
        ({"max_output_tokens": 7}, 1, 7),
    ],
)
def test_choices_and_cap(document: dict[str, object], choices: int, cap: int | None) -> None:
    estimate = facts_of(document, b"/v1/completions").estimate
    assert (estimate.choices, estimate.output_cap) == (choices, cap)


def test_background_is_refused_where_it_outlives_the_connection() -> None:
    with pytest.raises(BadRequest) as refused:
        facts_of({"background": True}, b"/v1/responses")
    assert refused.value.param == "background"
    assert facts_of({"background": True}).retryable
    assert not facts_of({"background": False}, b"/v1/responses").retryable


@pytest.mark.parametrize(
    ("path", "document", "retryable"),
    [
        (b"/v1/responses", {}, False),
        (b"/v1/responses", {"store": True}, False),
        (b"/v1/responses", {"store": False}, True),
        (b"/v1/chat/completions", {}, True),
        (b"/v1/chat/completions", {"store": True}, False),
        (b"/v1/audio/speech", {}, False),
        (b"/v1/audio/speech", {"store": False}, False),
    ],
)
def test_what_may_run_twice(path: bytes, document: dict[str, object], retryable: bool) -> None:
    assert facts_of(document, path).retryable is retryable


@pytest.mark.parametrize(
    ("document", "priority", "tier", "odd"),
    [
        ({"priority": -3}, -3, None, False),
        ({"priority": None}, None, None, False),
        ({"priority": "high"}, None, None, True),
        ({"priority": True}, None, None, True),
        ({"priority": 10**30}, None, None, True),
        ({"service_tier": "flex"}, None, "flex", False),
        ({"service_tier": 5}, None, None, True),
        ({"service_tier": "x" * 300}, None, None, True),
        ({"service_tier": "x" * 5000, "priority": 1}, 1, None, True),
    ],
)
def test_values_that_choose_a_class_are_never_an_error(
    document: dict[str, object], priority: int | None, tier: str | None, odd: bool
) -> None:
    facts = facts_of(document)
    assert (facts.priority, facts.service_tier, facts.odd_class) == (priority, tier, odd)
    assert (facts.priority_span is not None) is ("priority" in document)


BASE64 = "QUJD" * 2000


@pytest.mark.parametrize(
    ("part", "media_bytes", "tokens"),
    [
        ({"image_url": {"url": "data:image/png;base64," + BASE64}}, 8022, IMAGE_TOKENS),
        ({"audio_url": {"url": "data:audio/wav;base64," + BASE64}}, 8022, AUDIO_TOKENS),
        ({"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}, 8000, AUDIO_TOKENS),
        ({"type": "image", "source": {"type": "base64", "data": BASE64}}, 8000, IMAGE_TOKENS),
        ({"data": "short", "text": BASE64}, 0, 0),
        ({"text": BASE64, "x": "data"}, 0, 0),
        ({"data": [BASE64]}, 0, 0),
    ],
)
def test_media_is_counted_by_item(part: dict[str, object], media_bytes: int, tokens: int) -> None:
    body = json.dumps({"messages": [{"content": [part]}]}).encode()
    text_bytes = len(body) - media_bytes
    assert facts_of(body).estimate == WorkEstimate(text_bytes // 4 + tokens, text_bytes // 16)


@pytest.mark.parametrize("document", [{"messages": "data:,"}, {"messages": ["data:,"]}, {"input": "data:,"}])
def test_media_is_looked_for_in_bodies_of_any_shape(document: dict[str, object]) -> None:
    body = json.dumps(document | {"data": BASE64}).encode()
    assert facts_of(body).estimate.prompt_floor < 10


def test_text_that_speaks_of_media_is_text() -> None:
    body = json.dumps({"messages": [{"content": BASE64 + '{"data:image/png;base64,": 1}'}, {"role": "a"}]}).encode()
    assert facts_of(body).estimate == WorkEstimate(len(body) // 4, len(body) // 16)


def test_media_in_a_small_body_counts_as_text() -> None:
    body = b'{"messages":[{"url":"data:image/png;base64,QUJD"}]}'
    assert facts_of(body).estimate == WorkEstimate(len(body) // 4, len(body) // 16)


@pytest.mark.parametrize("depth", [200, 300, 1023])
def test_deep_nesting_that_is_valid_is_accepted(depth: int) -> None:
    body = b'{"model":"m","a":' + b"[" * depth + b"]" * depth + b"}"
    assert facts_of(body).model == "m"
    with pytest.raises(BadRequest):
        facts_of(b'{"model":"n",' + body[1:])
