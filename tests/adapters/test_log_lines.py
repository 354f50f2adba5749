from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.adapters.log_lines import (
    ITEMS_MAX,
    REDACTED,
    TEXT_MAX,
    error_fields,
    error_name,
    json_line,
    request_fields,
    safe_fields,
    text_line,
)
from proxy.adapters.records import RequestRecord
from proxy.types import Outcome, Phase
from proxy.wire.trace_context import TraceContext

RECORD = RequestRecord("r-1", "/v1/completions", Outcome.CLIENT_GONE, 499, 1.23456789, gone_phase=Phase.QUEUED)


class LeakyError(Exception):
    def __repr__(self) -> str:
        return "headers: Bearer secret-key"

    __str__ = __repr__


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("limit", 3, 3),
        ("ok", True, True),
        ("none", None, None),
        ("prompt_tokens", 12, 12),
        ("token", "abc", REDACTED),
        ("api_key", "abc", REDACTED),
        ("Authorization", "Bearer abc", REDACTED),
        ("detail", "sent Bearer abc.def, then", f"sent {REDACTED}, then"),
        ("detail", "key sk-abc123 refused", f"key {REDACTED} refused"),
        ("text", "x" * 5000, "x" * TEXT_MAX),
        ("path", PurePosixPath("a/b"), "a/b"),
        ("error", LeakyError("x"), "LeakyError"),
        ("thing", object(), "object"),
        ("many", list(range(100)), list(range(ITEMS_MAX))),
        (
            "nested",
            {"password": "x", "a": (LeakyError(), {"b": [1]})},
            {"password": REDACTED, "a": ["LeakyError", "dict"]},
        ),
    ],
)
def test_only_plain_values_pass_and_secrets_never(name: str, value: Any, shown: Any) -> None:
    assert safe_fields({name: value}) == {name: shown}


def test_an_error_is_told_by_type_cause_and_place() -> None:
    try:
        try:
            raise ConnectionResetError(104, "Connection reset by peer", "secret")
        except ConnectionResetError as reset:
            raise LeakyError("secret") from reset
    except LeakyError as error:
        fields = error_fields(error)
    assert fields["error"] == "LeakyError"
    assert fields["cause"] == "ConnectionResetError: Connection reset by peer"
    assert fields["frames"][0].startswith("test_log_lines.py:")
    assert error_name(OSError("no number")) == "OSError"
    assert error_fields(LeakyError()) == {"error": "LeakyError"}


def test_a_request_line_leaves_out_what_does_not_apply() -> None:
    fields = request_fields(RECORD)
    assert fields["duration_s"] == 1.234568
    assert fields["gone_phase"] == "queued"
    assert fields["outcome"] == "client_gone"
    assert not {"tenant", "ttft_s", "clamped", "usage_problem", "client_attempt"} & fields.keys()


@pytest.mark.parametrize(
    ("field", "value", "name", "shown"),
    [
        ("path", "", "path", None),
        ("tenant", "acme", "tenant", "acme"),
        ("class_name", "high", "class", "high"),
        ("model", "llama", "model", "llama"),
        ("upstream", "vllm-0", "upstream", "vllm-0"),
        ("queue_s", 0.0, "queue_s", 0.0),
        ("ttft_s", 0.12345678, "ttft_s", 0.123457),
        ("engine_ttft_s", 0.0, "engine_ttft_s", 0.0),
        ("tpot_s", 0.01, "tpot_s", 0.01),
        ("abort_s", 0.0, "abort_s", 0.0),
        ("client_attempt", 2, "client_attempt", 2),
        ("clamped", True, "clamped", True),
        ("unknown_priority", True, "unknown_priority", True),
        ("usage_problem", "negative", "usage_problem", "negative"),
        ("trace", TraceContext(1, None, 2, 3, True), "trace_id", "0" * 31 + "1"),
    ],
)
def test_a_request_line_has_what_applies(field: str, value: object, name: str, shown: object) -> None:
    success = RequestRecord("r-1", "/v1/completions", Outcome.SUCCESS, 200, 1.0)
    assert request_fields(replace(success, **{field: value})).get(name) == shown  # type: ignore[arg-type]


def test_lines_have_time_level_and_fields() -> None:
    line = json_line(0.5, logging.WARNING, {"event": "hello", "n": 1})
    assert orjson.loads(line) == {"time": "1970-01-01T00:00:00.500Z", "level": "warning", "event": "hello", "n": 1}
    assert text_line(0.5, logging.INFO, {"event": "hello", "n": 1, "s": "a b", "e": ""}) == (
        b'1970-01-01T00:00:00.500Z info    hello n=1 s="a b" e=""\n'
    )


FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=())), st.integers(), FINITE, st.lists(st.text(), max_size=3)
)


@settings(max_examples=80)
@given(st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), VALUES, max_size=4))
def test_whatever_comes_is_one_line_that_a_parser_accepts(fields: dict[str, Any]) -> None:
    line = json_line(1.0, logging.INFO, safe_fields(fields))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    json.loads(line)
    line = text_line(1.0, logging.INFO, safe_fields(fields))
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line


@pytest.mark.parametrize("value", ["\x1b[2J", "a\nb", "\ud800", 2**80])
def test_control_signs_surrogates_and_huge_numbers_do_not_break_a_line(value: object) -> None:
    for line in (json_line(1.0, logging.INFO, {"value": value}), text_line(1.0, logging.INFO, {"value": value})):
        assert line.count(b"\n") == 1
        assert b"\x1b" not in line
        line.decode("utf-8")
