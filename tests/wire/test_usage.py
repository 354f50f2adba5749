"""The end of an answer, from its last bytes: finish marks, errors, usage, and counting on the way."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.types import Usage
from proxy.wire import usage as usage_module
from proxy.wire.routes import ROUTES, Route
from proxy.wire.usage import (
    PIECES_BYTES_MAX,
    RECENT_BYTES,
    RECENT_BYTES_MAX,
    WINDOW_BYTES,
    StreamEnd,
    StreamTail,
    _last_usage,
    usage_of,
)
from tests.wire.documents import split

CHAT = ROUTES[b"/v1/chat/completions"]
COMPLETIONS = ROUTES[b"/v1/completions"]
RESPONSES = ROUTES[b"/v1/responses"]
MESSAGES = ROUTES[b"/v1/messages"]
EMBEDDINGS = ROUTES[b"/v1/embeddings"]


def event(document: object, name: str = "") -> bytes:
    line = f"event: {name}\n".encode() if name else b""
    return line + b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def delta(content: str | None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return event({"choices": [choice], **more})


DONE = b"data: [DONE]\n\n"
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
TEXT_DELTA = event({"type": "response.output_text.delta", "delta": "a"}, "response.output_text.delta")
BLOCK_DELTA = event(
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, "content_block_delta"
)
START = event({"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}, "message_start")
STOP = event({"type": "message_delta", "usage": {"output_tokens": 9}}, "message_delta") + event(
    {"type": "message_stop"}, "message_stop"
)


def response(kind: str, filler: int = 0) -> bytes:
    document = {"response": {"x": "y" * filler, "usage": {"input_tokens": 4, "output_tokens": 6}}, "type": kind}
    return event(document, kind)


def verdict(body: bytes, route: Route | None = CHAT, streamed: bool = True, cuts: list[int] | None = None) -> StreamEnd:
    tail = StreamTail()
    for piece in split(body, cuts or []):
        tail.count(piece, route)
        tail.add(piece)
    return tail.verdict(route, streamed)


LONG = delta("word " * 100) * 300

ENDS = [
    (CHAT, delta("a") + delta(None, "stop") + USAGE + DONE, StreamEnd(True, usage=Usage(3, 2))),
    (CHAT, LONG + delta(None, "stop") + USAGE + DONE, StreamEnd(True, usage=Usage(3, 2))),
    (CHAT, delta("a") + delta(None, "length"), StreamEnd(True)),
    (CHAT, delta(None, "stop") + b": ping\n\n" * 900, StreamEnd(True)),
    (CHAT, delta("a", usage=None) + DONE, StreamEnd(True)),
    (CHAT, USAGE + delta("a", usage=None) * 3 + DONE, StreamEnd(True, usage=Usage(3, 2))),
    (CHAT, USAGE + delta("a", usage=None) * 4 + DONE, StreamEnd(True)),
    (CHAT, delta("a"), StreamEnd(False)),
    (CHAT, b"", StreamEnd(False)),
    (CHAT, delta("\n\ndata: [DONE]\n\n"), StreamEnd(False)),
    (CHAT, delta('"finish_reason":"stop","usage":{"prompt_tokens":9}'), StreamEnd(False)),
    (CHAT, delta("a") + event({"error": {"message": "x"}}) + DONE, StreamEnd(True, error=True)),
    (CHAT, delta("an error", error=None) + DONE, StreamEnd(True)),
    (COMPLETIONS, event({"choices": [{"text": "a", "finish_reason": "stop"}]}), StreamEnd(True)),
    (RESPONSES, TEXT_DELTA + response("response.completed"), StreamEnd(True, usage=Usage(4, 6))),
    (RESPONSES, TEXT_DELTA + response("response.completed", 90_000), StreamEnd(True, usage=Usage(4, 6))),
    (RESPONSES, TEXT_DELTA + response("response.failed"), StreamEnd(True, True, Usage(4, 6))),
    (RESPONSES, TEXT_DELTA + response("response.failed", 90_000), StreamEnd(True, True, Usage(4, 6))),
    (RESPONSES, TEXT_DELTA * 500, StreamEnd(False)),
    (MESSAGES, START + BLOCK_DELTA + STOP, StreamEnd(True, usage=Usage(5, 9))),
    (MESSAGES, START + BLOCK_DELTA * 900 + STOP, StreamEnd(True, usage=Usage(5, 9))),
    (MESSAGES, START + BLOCK_DELTA, StreamEnd(False, usage=Usage(5, 1))),
    (MESSAGES, BLOCK_DELTA + STOP, StreamEnd(True, usage=Usage(0, 9))),
    (MESSAGES, BLOCK_DELTA + event({"type": "error", "error": {}}, "error"), StreamEnd(False, error=True)),
]


def test_a_cut_through_the_mark_of_the_only_output_does_not_hide_a_long_end() -> None:
    body = TEXT_DELTA + response("response.completed", 90_000)
    assert verdict(body, RESPONSES, True, [body.index(b'.delta"') + 3]).finished


@pytest.mark.parametrize(("route", "body", "expected"), ENDS)
def test_streams(route: Route, body: bytes, expected: StreamEnd) -> None:
    assert verdict(body, route) == expected


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ENDS), st.lists(st.integers(0, 999_999), max_size=6))
def test_any_pieces_end_the_same(case: tuple[Route, bytes, StreamEnd], cuts: list[int]) -> None:
    route, body, expected = case
    assert verdict(body, route, True, cuts) == expected


@pytest.mark.parametrize(
    ("usage", "expected", "problem"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7), None),
        ({"prompt_tokens": 7, "completion_tokens": None}, Usage(7), None),
        (
            {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(7, 1, 4),
            None,
        ),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(7, 0, 7), None),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, Usage(7), None),
        ({"input_tokens": 7, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}, Usage(7, 2, 3), None),
        ({"input_tokens": 7, "output_tokens": 2, "cache_read_input_tokens": 5}, Usage(12, 2, 5), None),
        ({"input_tokens": 7, "output_tokens": 2, "cache_creation_input_tokens": 5}, Usage(12, 2, 0), None),
        ({"seconds": 3}, None, None),
        (None, None, None),
        ({"prompt_tokens": -1}, None, "negative"),
        ({"prompt_tokens": 1e300}, None, "range"),
        ({"prompt_tokens": 10**12}, None, "range"),
        ({"prompt_tokens": "9"}, None, "type"),
        ({"prompt_tokens": True}, None, "type"),
        ({"prompt_tokens": 1.5}, None, "type"),
        ({"prompt_tokens": 1, "completion_tokens": []}, None, "type"),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}, None, "negative"),
    ],
)
def test_usage_of_a_whole_answer(usage: object, expected: Usage | None, problem: str | None) -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": '"usage": {"prompt_tokens": 99}'}}], "usage": usage}
    ).encode()
    assert verdict(body, CHAT, streamed=False) == StreamEnd(True, False, expected, problem)


WORDS = [
    '"usage"',
    '"usage":{',
    "{",
    "}",
    ":",
    " ",
    "\n",
    ",",
    '"prompt_tokens":7',
    '"completion_tokens":2',
    '"x":{}',
    "}}",
]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map("".join))
def test_the_short_way_to_a_usage_reads_what_the_pattern_reads(text: str) -> None:
    body = text.encode()
    assert usage_of(body, CHAT) == _last_usage(body, b"")


def test_usage_that_is_no_json_is_a_problem() -> None:
    assert verdict(b'{"usage":{"prompt_tokens":1,}}', CHAT, False).usage_problem == "malformed"


def test_usage_is_found_behind_long_vectors_and_other_objects_of_that_name() -> None:
    body = json.dumps({"data": [0.5] * 40_000, "usage": {"prompt_tokens": 8}, "tools": [{"usage": {"type": "x"}}]})
    assert verdict(body.encode(), EMBEDDINGS, False, [9, 70_000, 150_000]).usage == Usage(8)


def test_light_and_unknown_routes_just_end() -> None:
    assert verdict(b"x", None) == verdict(b"x", ROUTES[b"/tokenize"], False) == StreamEnd(True)


@pytest.mark.parametrize(
    ("route", "pieces", "counts"),
    [
        (CHAT, [delta(""), delta("a"), delta("b") * 3, USAGE, DONE], [0, 1, 3, 0, 0]),
        (CHAT, [delta("") + delta("a") * 2, delta("b")], [2, 1]),
        (CHAT, [b": ping\n\n", delta("a")], [0, 1]),
        (CHAT, [delta(None), event({"choices": [{"delta": {"odd": 1}}]})], [0, 1]),
        (CHAT, [event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]})], [1]),
        (COMPLETIONS, [event({"choices": [{"text": "a"}]})], [1]),
        (RESPONSES, [event({"type": "response.created"}), TEXT_DELTA, response("response.completed")], [0, 1, 0]),
        (MESSAGES, [START, BLOCK_DELTA * 2, STOP], [0, 2, 0]),
        (None, [delta("a")], [0]),
    ],
)
def test_events_with_output(route: Route | None, pieces: list[bytes], counts: list[int]) -> None:
    tail = StreamTail()
    assert [tail.count(piece, route) for piece in pieces] == counts


@given(st.lists(st.integers(0, 9999), max_size=5))
def test_each_cut_hides_one_event_at_most(cuts: list[int]) -> None:
    tail = StreamTail()
    tail.count(delta("a"), CHAT)
    stream = delta("b") * 20
    assert 20 - len(cuts) <= sum(tail.count(piece, CHAT) for piece in split(stream, cuts)) <= 20


@pytest.mark.parametrize(
    ("route", "body", "closed"),
    [
        (CHAT, delta("a") + DONE, True),
        (CHAT, delta("a", "stop"), False),
        (RESPONSES, TEXT_DELTA + response("response.completed", 90_000), True),
        (MESSAGES, STOP, True),
        (EMBEDDINGS, DONE, False),
        (None, DONE, False),
    ],
)
def test_closed_means_the_terminal_event_itself(route: Route | None, body: bytes, closed: bool) -> None:
    tail = StreamTail()
    for piece in split(body, [500, 40_000, 80_000]):
        tail.count(piece, route)
        tail.add(piece)
    assert tail.closed(route) is closed


EVENTS = st.sampled_from(
    [delta("a"), delta("bc"), delta("long " * 400), delta("a") * 2, delta("a") + b": ping\n\n", b": ping\n\n",
     delta("a")[:-1], delta("a").replace(b"\n", b"\r\n"), delta(None, "stop"), BLOCK_DELTA, BLOCK_DELTA * 2, TEXT_DELTA,
     b"\n\n", USAGE, b'data: {"error": {}}\n\n', b"data: [DONE]", b"x" * 4000, b"data: [DONE]" + b"x" * 4085,
     b'data: {"er', b'ror": {}}\n\n', b"event: error\n", b"event: er", b"ror\ndata: {}\n\n", DONE, delta("an error")]
)  # fmt: skip
LAST = st.sampled_from([USAGE + DONE, DONE, STOP, response("response.completed"), response("response.failed"), b""])


@settings(max_examples=1000)
@example(CHAT, [(b'data: {"error": {}}\n\n', True), (delta("long " * 300), True)], USAGE + DONE)
@example(CHAT, [(b"event: er", True), (b"ror\ndata: {}\n\n", True), (delta("long " * 300), True)], USAGE + DONE)
@given(st.sampled_from([CHAT, MESSAGES, RESPONSES]), st.lists(st.tuples(EVENTS, st.booleans()), max_size=40), LAST)
def test_chunks_with_their_frame_tell_what_their_content_tells(
    route: Route, events: list[tuple[bytes, bool]], last: bytes
) -> None:
    framed, plain = StreamTail(), StreamTail()
    first = {CHAT: delta("a"), MESSAGES: START + BLOCK_DELTA, RESPONSES: TEXT_DELTA}[route]
    for content, as_chunk in [(first, False), *events, (last, True)]:
        expected = plain.count(content, route)
        plain.add(content)
        if as_chunk:
            frame = b"%x\r\n" % len(content)
            assert framed.add_chunk(frame + content + b"\r\n", len(frame)) == expected
        else:
            assert framed.count(content, route) == expected
            framed.add(content)
    plain._join()  # looked at whole, where the other looks at its end first
    assert framed.verdict(route, True) == plain.verdict(route, True)
    assert framed.closed(route) == plain.closed(route)


@pytest.mark.source
@pytest.mark.parametrize(
    ("events", "searched"),
    [((USAGE, DONE), False), ((USAGE + DONE,), False), ((DONE,), True), ((delta("error\n"), USAGE, DONE), True)],
)
def test_the_usual_end_is_told_without_a_search(
    events: tuple[bytes, ...], searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[bytes] = []
    whole = usage_module._last_usage

    def last_usage(text: bytes, head: bytes) -> tuple[Usage | None, str | None]:
        searches.append(text)
        return whole(text, head)

    monkeypatch.setattr(usage_module, "_last_usage", last_usage)
    tail = StreamTail()
    for content in (delta("a"), *[delta("word " * 10)] * 50, *events):
        tail.count(content, CHAT)
        tail.add(content)
    assert tail.verdict(CHAT, True) == StreamEnd(True, usage=Usage(3, 2) if USAGE in b"".join(events) else None)
    assert bool(searches) is searched


def test_where_the_end_begins_to_be_looked_at_is_no_line_start() -> None:
    tail = StreamTail()
    for content in (delta("a"), b"x", b"data: [DONE]" + b"x" * WINDOW_BYTES):
        tail.count(content, CHAT)
        tail.add(content)
    assert not tail.verdict(CHAT, True).finished


def test_a_running_stream_keeps_little_of_itself() -> None:
    tail = StreamTail()
    tail.count(START + BLOCK_DELTA, MESSAGES)
    tail.add(b"x" * 15_000)
    for size in [200] * 500 + [8_000] * 20 + [1_000] * 50:
        content = event({"type": "content_block_delta", "delta": "w" * size}, "content_block_delta")
        frame = b"%x\r\n" % len(content)
        assert tail.add_chunk(frame + content + b"\r\n", len(frame)) == 1
        assert RECENT_BYTES <= sum(map(len, tail._pieces + tail._framed)) == tail._size <= RECENT_BYTES_MAX
    tail.add(STOP)
    assert tail.verdict(MESSAGES, True) == StreamEnd(True, usage=Usage(5, 9))


def test_a_terminal_event_in_many_chunks_is_seen_where_it_begins() -> None:
    tail = StreamTail()
    tail.count(TEXT_DELTA, RESPONSES)
    tail.add(TEXT_DELTA)
    for piece in split(response("response.failed", 90_000), list(range(0, 90_000, 8_000))):
        frame = b"%x\r\n" % len(piece)
        tail.add_chunk(frame + piece + b"\r\n", len(frame))
    assert tail.verdict(RESPONSES, True) == StreamEnd(True, True, Usage(4, 6))


def test_the_tail_is_bounded_and_a_cut_is_no_line_start() -> None:
    tail = StreamTail()
    for _ in range(50):
        tail.add(b"x" * 10_000)
        assert sum(map(len, tail._pieces)) <= PIECES_BYTES_MAX
    spoof = b"data: [DONE]" + b"." * (32_767 - 12)
    tail.add(b"y" * PIECES_BYTES_MAX + spoof)
    assert not tail.verdict(CHAT, True).finished


def test_an_encoded_body_is_not_read() -> None:
    tail = StreamTail()
    tail.encoded = True
    tail.add(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}')
    assert tail.verdict(ROUTES[b"/v1/chat/completions"], False) == StreamEnd(True, usage_problem="encoded")
