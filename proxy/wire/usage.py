"""How an answer ended and what it used, from its last bytes alone; and the count of events that carry output.

The data path adds each piece as it passes and looks at it again only at the end. Finish marks: a non-null
`finish_reason` or `[DONE]` (chat, completions), `response.completed`, `.incomplete` or `.failed` (responses),
`message_stop` (messages). Usage counts are those of OpenAI (`prompt_tokens`, `completion_tokens`), of its Responses API
and of Anthropic (`input_tokens`, `output_tokens`; there cached input is counted apart from `input_tokens`).

JSON text holds no unescaped quote and no raw line end, so quoted marks and line starts cannot come from generated text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from proxy.types import Usage, Work, new_tuple
from proxy.wire.routes import Route

TAIL_BYTES: Final = 32_768  # kept of the end: one usage object and the last events, with room for long ones
PIECES_BYTES_MAX: Final = 65_536  # kept until it is cut down to the tail again
RECENT_BYTES: Final = 9_216  # kept instead by a running stream, a whole chunk and more: its end is short
RECENT_BYTES_MAX: Final = 18_432
HEAD_BYTES: Final = 4_096  # kept of the beginning: Anthropic reports input tokens in the first event
WINDOW_BYTES: Final = 4_096  # looked at first
SHORT_BYTES: Final = 640  # and before that, for an end as most engines write it: counts, then the terminal event
CUT: Final = b" "  # stands for what was cut: the tail must not look like the start of a line
LINE_END: Final = 10
FRAME_BYTES_MAX: Final = 8  # of a chunk that is kept with its frame
LAST_BYTES: Final = 64  # and here a short terminal event is usually found
DONE: Final = b"[DONE]"
LAST_EVENT: Final = b"\ndata: [DONE]\n\n"  # as most engines write it
TOKENS_MAX: Final = 1_000_000_000  # above this a count is an error, not a measurement

_CONTENT: Final = b'"content":"'
_OUTPUT: Final = re.compile(  # a non-empty piece of output in a chat or completion event
    rb'"(?:content|reasoning|reasoning_content|text|arguments|name|refusal)"[ ]?:[ ]?"(?!")'
)
_FINISH: Final = re.compile(rb'"finish_reason"[ ]?:[ ]?"([a-z_]+)"')
_DONE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_RESPONSE_END: Final = re.compile(
    rb'(?:^|[\r\n])(?:event: ?|data: ?\{"type": ?")response\.(?:(completed|incomplete)|failed|cancelled)'
)
_MESSAGE_END: Final = re.compile(rb'(?:^|[\r\n])(?:event: ?|data: ?\{"type": ?")message_stop')
_ERROR: Final = re.compile(rb'(?:^|[\r\n])(?:event: ?error[\r\n]|data: ?\{"(?:error": ?[{"]|type": ?"error"))')
_USAGE: Final = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(\{(?:[^{}]++|\{[^{}]*+\})*\})')

_COUNT_KEYS: Final = frozenset({"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"})

_CACHE_KEYS: Final = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})


@dataclass(slots=True, init=False)
class StreamEnd:
    """`finished`: a finish mark or the terminal event came. `usage_problem`: why reported counts were not used."""

    finished: bool
    error: bool
    usage: Usage | None
    usage_problem: str | None

    def __init__(
        self, finished: bool, error: bool = False, usage: Usage | None = None, usage_problem: str | None = None
    ) -> None:
        self.finished, self.error, self.usage, self.usage_problem = finished, error, usage, usage_problem


class StreamTail:
    """The last bytes of one answer body."""

    # fmt: off
    __slots__ = (
        "_ended", "_failed", "_framed", "_head", "_keep", "_mark", "_most", "_pieces", "_quiet", "_same", "_size",
        "_wary", "_watched", "encoded", "started",
    )
    # fmt: on

    def __init__(self) -> None:
        self.encoded = False  # with a content coding: nothing in it can be read here
        self._pieces: list[bytes] = []
        self._framed: list[bytes] = []  # chunks after them, as they came: most are never looked at again
        self._size = 0
        self._keep, self._most = TAIL_BYTES, PIECES_BYTES_MAX
        self._same = b""  # how the last event began, up to its mark
        self._head = b""
        self._watched = False  # a terminal event can be longer than the tail: it repeats a whole response
        self._ended = False  # a terminal event began in what is no longer kept
        self._failed = False  # and it was that of a failed response
        self._wary = False  # an error may have passed: whole events without that word have not
        self.started = False
        self._mark = b""  # of an event with output; known from the start
        self._quiet = False  # an event without output has passed

    def add(self, piece: bytes) -> None:
        """One more piece of the body; amortised constant time, bounded memory."""
        if self.started and len(piece) <= RECENT_BYTES:
            self._add_framed(b"\n" + piece + b"\r\n")  # a frame of any size: what is before is not unframed for it
            self._wary = self._wary or not _is_harmless(piece)
            return
        if self._framed:
            self._unframe()
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._most:
            self._trim()

    def _add_framed(self, framed: bytes) -> None:
        self._framed.append(framed)
        self._size += len(framed)
        if self._size > self._most:
            self._drop_chunks()

    def add_chunk(self, framed: bytes, start: int) -> int:
        """`count` and `add` of one chunk with its frame, whose content begins at `start`, in a stream that has started.

        What begins like the last event and has no further line, the empty one apart, is one event with output, too.
        """
        self._add_framed(framed)
        same = self._same
        rest = start + len(same)
        if same and framed[start:rest] == same and LINE_END not in framed[rest:-4]:
            return 1
        mark = self._mark
        events = framed.count(mark, start)
        self._wary = self._wary or not _is_harmless(framed[start:-2])
        if events == 1:
            self._same = framed[start : framed.find(mark, start) + len(mark)]
        return events

    def _unframe(self) -> None:
        self._pieces += [framed[framed.find(b"\n") + 1 : -2] for framed in self._framed]
        self._framed.clear()

    def _drop_chunks(self) -> None:
        """Forget the oldest without a look at them, unless a terminal event is watched for."""
        if self._watched:
            self._trim()
            return
        at, kept = len(self._framed), 1
        while at > 0 and kept < self._keep:
            at -= 1
            kept += len(self._framed[at])
        earlier = b""
        if kept < self._keep:
            earlier = b"".join(self._pieces)[kept - self._keep :]
        self._framed = self._framed[at:]
        self._pieces, self._size = [CUT, earlier], kept + len(earlier)

    def _trim(self) -> None:
        joined = self._join()
        if not self._head:
            self._head = joined[:HEAD_BYTES]
        if self._watched and not self._ended and (match := _RESPONSE_END.search(joined)):
            self._ended, self._failed = True, match[1] is None
        self._pieces = [CUT, joined[1 - self._keep :]]
        self._size = self._keep

    def count(self, piece: bytes, route: Route | None) -> int:
        """Events with output in one piece; 0 until the first output, so that a role alone is not a first token.

        A mark cut by a piece's end is missed: at most one event for each cut.
        """
        if route is None:
            return 0
        events = piece.count(route.token_mark)
        if self.started:
            return events
        self._watched = route.stores
        if not events:
            return 0
        if self._quiet or route.error_style == "anthropic" or route.stores:
            self._start(route, piece)
            return events
        if events == 1 and _is_output(piece, route.token_mark):
            self._start(route, piece)
            return 1
        if (first := _OUTPUT.search(piece)) is None:
            self._quiet = True
            return 0
        self._start(route, piece)
        return 1 + piece.count(route.token_mark, first.end())  # without the role that came in the same piece

    def _start(self, route: Route, piece: bytes) -> None:
        self.started, self._mark = True, route.token_mark
        begun = self._join() + piece
        self._head, self._wary = begun[:HEAD_BYTES], begun.rfind(b"error") >= 0
        if not route.stores:
            self._keep, self._most = RECENT_BYTES, RECENT_BYTES_MAX

    def closed(self, route: Route | None) -> bool:
        """Whether the terminal event itself has come, after which nothing is due. Asked of all that is quiet, again and
        again: first for bytes that such an event has, at a fraction of what the pattern costs."""
        if route is None or not route.terminal:
            return False
        tail = self._join()
        start = max(0, len(tail) - WINDOW_BYTES)
        return self._ended or (
            tail.find(route.terminal, start) >= 0 and _terminal(route).search(tail, start) is not None
        )

    def verdict(self, route: Route | None, streamed: bool) -> StreamEnd:
        """The end of the body: of an event stream, or of one JSON document."""
        if route is None or route.work is Work.LIGHT:
            return StreamEnd(finished=True)
        if self.encoded:
            return StreamEnd(finished=True, usage_problem="encoded")
        if not streamed:
            usage, problem = _last_usage(self._join(), self._head)
            return StreamEnd(True, False, usage, problem)
        if (end := self._usual_end(route)) is not None:
            return end
        tail = self._join() if route.stores else self._window(WINDOW_BYTES)
        start = max(0, len(tail) - WINDOW_BYTES)
        ends = self._ended or _ends(tail, start, route)
        if not ends and self._framed:
            ends = _ends(self._join(), 0, route)
        # `rfind` takes three quarters of the time of `find` for more than one sign.
        error = self._failed or (tail.rfind(b"error", start) >= 0 and _ERROR.search(tail, start) is not None)
        if route.stores and not error:
            match = _RESPONSE_END.search(tail)
            error = match is not None and match[1] is None
        usage, problem = _last_usage(tail if route.stores else tail[start:], self._head or tail[:HEAD_BYTES])
        return StreamEnd(ends, error, usage, problem)

    def _usual_end(self, route: Route) -> StreamEnd | None:
        """The end of a stream without an error whose last bytes are its counts and the terminal event. None: it ends
        in another way."""
        if route.terminal != DONE or self._wary or not self._framed:
            return None
        tail = self._window(SHORT_BYTES)
        if not tail.endswith(LAST_EVENT) or (found := _flat_usage(tail)) is None:
            return None
        return StreamEnd(True, False, *read_usage(found))

    def _window(self, least: int) -> bytes:
        """The end of what is kept, `least` bytes of it where there is as much in whole chunks."""
        framed, at, size = self._framed, len(self._framed), 0
        while at > 0 and size <= least:
            at -= 1
            size += len(framed[at]) - FRAME_BYTES_MAX
        if at == 0:
            return self._join()
        last = [one[one.find(b"\n") + 1 : -2] for one in framed[at:]]
        return CUT + b"".join(last)

    def kept(self) -> bytes:
        """The whole body, or its end where it is longer than what is kept."""
        return self._join()

    def _join(self) -> bytes:
        if self._framed:
            self._unframe()
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""


def _is_harmless(piece: bytes) -> bool:
    """Whether no error event can be in whole pieces like this one."""
    return piece.endswith(b"\n\n") and piece.rfind(b"error") < 0


def _is_output(event: bytes, mark: bytes) -> bool:
    """What `_OUTPUT` finds after the mark in one event as most engines write it."""
    at = event.find(_CONTENT)
    return at > 0 and event[at + len(_CONTENT) : at + len(_CONTENT) + 1] not in (b'"', b"") and event.find(mark, at) < 0


def _terminal(route: Route) -> re.Pattern[bytes]:
    if route.stores:
        return _RESPONSE_END
    return _MESSAGE_END if route.error_style == "anthropic" else _DONE


def _ends(tail: bytes, start: int, route: Route) -> bool:
    """Looks near the end first: at the last event, then at the window, then everywhere. Positions instead of slices,
    so that `^` means the start of the stream alone."""
    if tail.endswith(LAST_EVENT) and route.terminal == DONE:
        return True
    terminal = _terminal(route)
    if terminal.search(tail, max(0, len(tail) - LAST_BYTES)):
        return True
    marks = (terminal, _FINISH) if route.terminal == DONE else (terminal,)
    return any(mark.search(tail, position) for position in sorted({start, 0}, reverse=True) for mark in marks)


def _usages(text: bytes) -> Iterator[object]:
    """Usage objects from the last to the first, four at most; null does not count."""
    end = len(text)
    for _ in range(4):
        start = text.rfind(b'"usage"', 0, end)
        if start < 0:
            return
        match = _USAGE.match(text, start)
        if match is not None:
            yield _object(match[1])
        end = start


def _object(text: bytes) -> object:
    """None where it is not JSON."""
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _last_usage(text: bytes, head: bytes) -> tuple[Usage | None, str | None]:
    for found in _usages(text):
        if not isinstance(found, dict):
            return None, "malformed"
        if not _COUNT_KEYS.isdisjoint(found):
            if "output_tokens" in found and "input_tokens" not in found:
                early = [usage for usage in _usages(head) if isinstance(usage, dict) and "input_tokens" in usage]
                found = early[0] | found if early else found
            return read_usage(found)
    return None, None


def usage_of(body: bytes, route: Route) -> tuple[Usage | None, str | None]:
    """Counts of a whole JSON answer, or why they cannot be used; nothing for work that is not counted."""
    if route.work is Work.LIGHT:
        return None, None
    if len(body) > PIECES_BYTES_MAX:
        return _last_usage(b" " + body[1 - TAIL_BYTES :], body[:HEAD_BYTES])
    found = _flat_usage(body)
    return _last_usage(body, b"") if found is None else read_usage(found)


def _flat_usage(text: bytes) -> dict[str, object] | None:
    """What `_last_usage` finds first, without a pattern, where it counts a prompt and holds no further object."""
    key = text.rfind(b'"usage"')
    start = text.find(b"{", key) if key >= 0 else -1
    end = text.find(b"}", start) if start > 0 else -1
    flat = text[start : end + 1] if end > 0 else b""
    if not flat or flat.find(b"{", 1) >= 0 or text[key + 7 : start].strip(b" \t\r\n") != b":":
        return None
    found = _object(flat)
    return found if isinstance(found, dict) and "prompt_tokens" in found else None


def read_usage(found: dict[str, object]) -> tuple[Usage | None, str | None]:
    """Counts of one usage object, or the reason why they cannot be used: `type`, `negative` or `range`."""
    prompt = found.get("prompt_tokens")
    output = found.get("completion_tokens")
    details = found.get("prompt_tokens_details")
    if (
        details is None
        and prompt.__class__ is output.__class__ is int
        and 0 <= prompt <= TOKENS_MAX
        and 0 <= output <= TOKENS_MAX
        and _CACHE_KEYS.isdisjoint(found)
    ):
        return new_tuple(Usage, (prompt, output, 0)), None
    if prompt is None:
        prompt = found.get("input_tokens")
        details = found.get("input_tokens_details")
    if output is None:
        output = found.get("output_tokens")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    created: object = None
    if not _CACHE_KEYS.isdisjoint(found):
        cached, created = found.get("cache_read_input_tokens"), found.get("cache_creation_input_tokens")
    counts: list[int] = []
    for value in (prompt, output, cached, created):
        if value.__class__ is int and 0 <= value <= TOKENS_MAX:
            counts.append(value)
        elif value is None:
            counts.append(0)
        else:
            return None, _problem(value)
    prompt_tokens, output_tokens, cached_tokens, created_tokens = counts
    if not _CACHE_KEYS.isdisjoint(found):
        prompt_tokens += cached_tokens + created_tokens
    return Usage(prompt_tokens, output_tokens, min(cached_tokens, prompt_tokens)), None


def _problem(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "type"
    if value < 0:
        return "negative"
    return "range" if value > TOKENS_MAX else "type"
