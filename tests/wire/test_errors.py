"""Error bodies and events: both shapes, bounded and printable."""

from __future__ import annotations

import json

import pytest

from proxy.wire.errors import MESSAGE_CHARS_MAX, ErrorStyle, error_body, error_event


def test_openai_shape_has_all_four_fields() -> None:
    error = json.loads(error_body("queue_full", "rate_limit_error", "The queue is full."))["error"]
    assert error == {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}


def test_anthropic_shape() -> None:
    body = json.loads(error_body("x", "overloaded_error", "Busy.", None, "anthropic"))
    assert body == {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}


@pytest.mark.parametrize(("style", "name"), [("openai", ""), ("anthropic", "error")])
def test_an_error_event_stands_alone_after_a_cut_event(style: ErrorStyle, name: str) -> None:
    stream = b'data: {"cho' + error_event("upstream_error", "api_error", "Gone.", None, style)
    _, event, rest = stream.decode().split("\n\n")
    fields = dict(line.split(": ", 1) for line in event.splitlines())
    assert (fields.get("event", ""), rest) == (name, "")
    assert json.loads(fields["data"])["error"]["message"] == "Gone."


def test_a_message_is_printable_and_bounded() -> None:
    message = json.loads(error_body("c", "t", "a\r\n\x1b[2J" + "b" * 1000))["error"]["message"]
    assert message.startswith("a   [2J") and message.isprintable() and len(message) == MESSAGE_CHARS_MAX
