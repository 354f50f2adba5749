"""What a request asks for: model, prompt size, output length, form of the answer. Wrong values become a `RefusedError`.

Prompt tokens are estimated as ceil(UTF-8 bytes of text / 4); a token id counts as one, an image as `IMAGE_TOKENS`.
Output length is drawn from the profile, held between `min_tokens` and the cap; reaching the cap is finish reason
"length", anything shorter "stop". `ignore_eos` runs to the cap. Sampling settings and stop strings have no effect.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.simulator.profiles import EngineProfile
from proxy.simulator.server.loop import Piece

IMAGE_TOKENS = 256
CHOICES_MAX = 128
INPUTS_MAX = 2048
TEXT_KEYS = ("content", "text", "input_text", "arguments", "output")


class RefusedError(Exception):
    """An error answer; the route decides whether it has OpenAI's or Anthropic's shape."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self, anthropic: bool) -> bytes:
        kind = "invalid_request_error" if self.status < 500 else "api_error"
        if anthropic:
            kind = "not_found_error" if self.status == 404 else kind
            return orjson.dumps({"type": "error", "error": {"type": kind, "message": self.message}})
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


def seeded(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311  # step noise and output lengths guard no secret


def invalid(key: str, what: str) -> RefusedError:
    return RefusedError(400, "invalid_value", f"{key} must be {what}", key)


@dataclass(frozen=True, slots=True)
class Asked:
    """One inference request. `pieces` holds (prompt tokens, output tokens, finish reason) of each choice in order."""

    stream: bool
    include_usage: bool
    priority: int
    pieces: tuple[Piece, ...]
    prompt_tokens: int  # of the request: each prompt once, however many choices it has

    @property
    def output_tokens(self) -> int:
        return sum(piece.output_tokens for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Field:
    """Where a route keeps its prompt and its cap."""

    prompt: tuple[str, ...]
    cap: tuple[str, ...]
    cap_default: int | None = None
    cap_required: bool = False
    choices: bool = False  # whether `n` is read


CHAT = Field(("messages",), ("max_completion_tokens", "max_tokens"), choices=True)
COMPLETIONS = Field(("prompt",), ("max_tokens",), cap_default=16, choices=True)
RESPONSES = Field(("input", "instructions"), ("max_output_tokens",))
MESSAGES = Field(("messages", "system"), ("max_tokens",), cap_required=True)
SPEECH = Field(("input",), ())


def parse(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "invalid_json", "the body must be a JSON object")
    return value


def whole_number(body: dict[str, Any], key: str, default: int, low: int, high: int | None = None) -> int:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        raise invalid(key, f"a whole number of at least {low}" + (f" and at most {high}" if high is not None else ""))
    return value


def flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise invalid(key, "true or false")
    return bool(value)


def text_bytes(value: object) -> int:
    """Bytes of prompt text in a string, a list of token ids, or any nesting of messages and parts."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, int):
        return 4
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    if isinstance(value, dict):
        image = 4 * IMAGE_TOKENS if str(value.get("type", "")).endswith(("image_url", "image")) else 0
        return image + sum(text_bytes(value[key]) for key in TEXT_KEYS if key in value)
    return 0


def tokens_of(value: object) -> int:
    return max(1, -(-text_bytes(value) // 4))


def texts(body: dict[str, Any], key: str) -> list[object]:
    """A string, a list of strings, a list of token ids or a list of such lists, as separate inputs."""
    value = body.get(key)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value or len(value) > INPUTS_MAX:
        raise invalid(key, f"text, or a list of 1 to {INPUTS_MAX} of them")
    return [value] if isinstance(value[0], int) else list(value)


def read_passes(body: dict[str, Any], inputs: list[object], profile: EngineProfile) -> Asked:
    """One forward pass per input, nothing generated."""
    pieces = []
    for value in inputs:
        prompt = tokens_of(value)
        fit(prompt, profile)
        pieces.append(Piece(prompt, 0))
    priority = whole_number(body, "priority", 0, -(2**31))
    return Asked(False, False, priority, tuple(pieces), sum(piece.prompt_tokens for piece in pieces))


def read_generation(body: dict[str, Any], field: Field, profile: EngineProfile, rng: random.Random) -> Asked:
    if field.prompt[0] not in body:
        raise invalid(field.prompt[0], "given")
    prompts = texts(body, "prompt") if field is COMPLETIONS else [[body[key] for key in field.prompt if key in body]]
    choices = whole_number(body, "n", 1, 1, CHOICES_MAX) if field.choices else 1
    if (seed := body.get("seed")) is not None:
        rng = seeded(repr(seed))
    options = body.get("stream_options") or {}
    pieces = []
    for prompt in map(tokens_of, prompts):
        cap = read_cap(body, field, prompt, profile)
        pieces += [Piece(prompt, *draw(body, cap, profile, rng)) for _ in range(choices)]
    return Asked(
        stream=flag(body, "stream"),
        include_usage=isinstance(options, dict) and flag(options, "include_usage"),
        priority=whole_number(body, "priority", 0, -(2**31)),
        pieces=tuple(pieces),
        prompt_tokens=sum(map(tokens_of, prompts)),
    )


def fit(tokens: int, profile: EngineProfile) -> None:
    if tokens > profile.request_tokens_max:
        raise RefusedError(
            400,
            "context_length_exceeded",
            f"this model's maximum context length is {profile.request_tokens_max} tokens; you asked for {tokens}",
        )


def read_cap(body: dict[str, Any], field: Field, prompt_tokens: int, profile: EngineProfile) -> int:
    """Output tokens at most; the room that the prompt leaves where the client gives none."""
    fit(prompt_tokens + 1, profile)
    room = profile.request_tokens_max - prompt_tokens
    for key in field.cap:
        if body.get(key) is not None:
            cap = whole_number(body, key, 0, 1)
            fit(prompt_tokens + cap, profile)
            return cap
    if field.cap_required:
        raise invalid(field.cap[0], "given")
    return min(room, field.cap_default or room)


def draw(body: dict[str, Any], cap: int, profile: EngineProfile, rng: random.Random) -> tuple[int, str]:
    least = whole_number(body, "min_tokens", 0, 0, cap)
    drawn = cap if flag(body, "ignore_eos") else max(least, profile.draw_output_tokens(rng))
    return (drawn, "stop") if drawn < cap else (cap, "length")
