"""What is read of a JSON request body, and its size as an engine will feel it.

Size: prompt ≈ bytes of text / 4 (English prose in common vocabularies), floor = bytes of text / 16, a bound that no
natural text falls below. The whole body counts as text, because roles, tool schemas and keys become tokens too; only
embedded media is left out and counted per item. Media is every string that begins with `data:` and every string of at
least 512 bytes under a key `data` (Anthropic's base64 sources, OpenAI's `input_audio`).

Output: cap = max_tokens * choices, choices = max(n, best_of) * number of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.types import WorkEstimate, new_tuple
from proxy.wire.errors import invalid_value
from proxy.wire.routes import Route

BYTES_PER_TOKEN: Final = 4
BYTES_PER_TOKEN_MAX: Final = 16
IMAGE_TOKENS: Final = 1000  # a 1 megapixel image takes 700 to 1,500 tokens in common vision models
AUDIO_TOKENS: Final = 1500  # about one minute at 25 tokens per second
MEDIA_BYTES_MIN: Final = 512  # shorter strings under `data` count as text
MEDIA_BODY_BYTES_MIN: Final = 4096  # media in smaller bodies counts as text: it cannot amount to much
TEXT_CHARS_MAX: Final = 256  # longest model name or service tier

TOKEN_CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# A body without any of these takes the short way.
RARE_KEYS: Final = frozenset({"priority", "service_tier", "n", "best_of", "prompt", "background", "store"})
KEYS: Final = RARE_KEYS | {"model", "stream", *TOKEN_CAPS}


@dataclass(frozen=True, slots=True)
class PrioritySpan:
    """Byte offsets in the body: cutting [cut_start, cut_end) removes the key and its comma; the value alone is
    [value_start, value_end)."""

    cut_start: int
    cut_end: int
    value_start: int
    value_end: int


@dataclass(slots=True, init=False)
class RequestFacts:
    """The part of a request body that decides where, when and how it runs. `model` is empty when the body has none.

    `priority` is the engine-style integer; `odd_class` says that a value meant to choose the class has no usable type.
    `retryable` allows a second execution after a stale connection.
    """

    model: str
    stream: bool
    estimate: WorkEstimate
    retryable: bool
    priority: int | None
    priority_span: PrioritySpan | None
    service_tier: str | None
    odd_class: bool

    def __init__(
        self,
        model: str,
        stream: bool,
        estimate: WorkEstimate,
        retryable: bool,
        priority: int | None = None,
        priority_span: PrioritySpan | None = None,
        service_tier: str | None = None,
        odd_class: bool = False,
    ) -> None:
        self.model, self.stream, self.estimate, self.retryable = model, stream, estimate, retryable
        self.priority, self.priority_span = priority, priority_span
        self.service_tier, self.odd_class = service_tier, odd_class


@dataclass(slots=True)
class Media:
    """Embedded media of a body: bytes that are not text, and how many items of each sort."""

    media_bytes: int = 0
    images: int = 0
    audios: int = 0


def build_facts(
    values: dict[str, object],
    body_bytes: int,
    media: Media | None,
    prompts: int,
    span: PrioritySpan | None,
    route: Route,
    max_choices: int,
) -> RequestFacts:
    """Facts from the values of `KEYS` found at the top level (others are ignored). BadRequest names the bad field."""
    model = values.get("model", "")
    if not isinstance(model, str) or len(model) > TEXT_CHARS_MAX:
        if model is not None:
            raise invalid_value("model", f"model must be a string of at most {TEXT_CHARS_MAX} characters.")
        model = ""
    stream = values.get("stream", False)
    if stream is not True and stream is not False:
        stream = _flag("stream", stream) or False
    cap = _token_cap(values)
    tokens = 0
    if media is not None:
        body_bytes -= media.media_bytes
        tokens = media.images * IMAGE_TOKENS + media.audios * AUDIO_TOKENS
    tokens += body_bytes // BYTES_PER_TOKEN
    floor = body_bytes // BYTES_PER_TOKEN_MAX
    if RARE_KEYS.isdisjoint(values):
        retryable = route.retryable and not route.stores
        return RequestFacts(model, stream, new_tuple(WorkEstimate, (tokens, floor, cap, 1)), retryable)
    choices = _choices(values, prompts, max_choices)
    estimate = WorkEstimate(tokens, floor, None if cap is None else cap * choices, choices)
    facts = RequestFacts(model, stream, estimate, _retryable(values, route), None, span)
    _read_class(values, facts)
    return facts


def _flag(key: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise invalid_value(key, f"{key} must be true or false.")


def _count(key: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise invalid_value(key, f"{key} must be a whole number above 0.")


def _choices(values: dict[str, object], prompts: int, max_choices: int) -> int:
    count = _count("n", values.get("n")) or 1
    best_of = _count("best_of", values.get("best_of")) or 1
    choices = max(count, best_of) * prompts
    if choices > max_choices:
        key = "n" if count * prompts == choices and count > 1 else "best_of" if best_of > 1 else "prompt"
        raise invalid_value(key, f"{key} asks for more than {max_choices} choices in one request.")
    return choices


def _token_cap(values: dict[str, object]) -> int | None:
    """The largest of the caps given, since engines differ in which of two wins."""
    cap = 0
    for key in TOKEN_CAPS:
        if key in values:
            value = _count(key, values[key])
            if value is not None and value > cap:
                cap = value
    return cap or None


def _retryable(values: dict[str, object], route: Route) -> bool:
    store = _flag("store", values.get("store"))
    if _flag("background", values.get("background")) and route.stores:
        raise invalid_value("background", "background is not supported: the connection would end before the work.")
    return route.retryable and not (route.stores if store is None else store)


def _read_class(values: dict[str, object], facts: RequestFacts) -> None:
    priority = values.get("priority")
    if isinstance(priority, int) and not isinstance(priority, bool):
        facts.priority = priority
    elif priority is not None:
        facts.odd_class = True
    tier = values.get("service_tier")
    if isinstance(tier, str) and len(tier) <= TEXT_CHARS_MAX:
        facts.service_tier = tier
    elif tier is not None:
        facts.odd_class = True


def strip_priority(pieces: Sequence[bytes], span: PrioritySpan, replacement: int | None = None) -> list[bytes]:
    """The body without its priority, or with `replacement` in its place; still valid JSON, otherwise byte-identical.

    `pieces` are the consecutive parts of the whole body, the result again.
    """
    start, end = (span.cut_start, span.cut_end) if replacement is None else (span.value_start, span.value_end)
    result: list[bytes] = []
    offset = 0
    inserted = b"" if replacement is None else b"%d" % replacement
    for piece in pieces:
        if offset + len(piece) <= start or offset >= end:
            result.append(piece)
        else:
            result.append(piece[: max(0, start - offset)])
            result.append(inserted)
            inserted = b""
            result.append(piece[max(0, end - offset) :])
        offset += len(piece)
    return [piece for piece in result if piece]
