"""Error bodies and events in the two shapes that clients of inference servers understand.

OpenAI: `{"error": {"message", "type", "param", "code"}}` (openai-openapi, schema `ErrorResponse`: all four required).
Anthropic: `{"type": "error", "error": {"type", "message"}}`. Inside a stream both travel as one event: the openai
client raises on any event whose object has a truthy `error`.
"""

from __future__ import annotations

from typing import Final, Literal

import orjson

ErrorStyle = Literal["openai", "anthropic"]

MESSAGE_CHARS_MAX: Final = 300  # a message is for a person; nothing useful is longer


class BadRequest(Exception):  # noqa: N818 - it is called as the ending is called
    """The client's request is refused before it becomes a ticket; `code` and `param` go into the error body."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


class BadAnswer(Exception):  # noqa: N818 - the counterpart of BadRequest
    """The upstream's response head cannot be passed on; the client gets 502."""


def invalid_value(param: str, message: str) -> BadRequest:
    return BadRequest(400, "invalid_value", message, param)


def invalid_json(message: str) -> BadRequest:
    return BadRequest(400, "invalid_json", message)


def invalid_header(name: str, message: str) -> BadRequest:
    """`name` is one of the names that this package reads, never the client's spelling."""
    return BadRequest(400, "invalid_header", f"Header {name} {message}.", None)


def _printable(message: str) -> str:
    if not message.isprintable():
        message = "".join(character if character.isprintable() else " " for character in message)
    return message[:MESSAGE_CHARS_MAX]


def error_object(code: str, kind: str, message: str, param: str | None, style: ErrorStyle) -> dict[str, object]:
    """The error as a JSON object; `kind` is the error's `type` in its style."""
    text = _printable(message)
    if style == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": text}}
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def error_body(code: str, kind: str, message: str, param: str | None = None, style: ErrorStyle = "openai") -> bytes:
    """The body of a refusal."""
    return orjson.dumps(error_object(code, kind, message, param, style))


def error_event(code: str, kind: str, message: str, param: str | None = None, style: ErrorStyle = "openai") -> bytes:
    """The last event of a stream that fails after its first byte, with the blank line that ends it.

    It starts with a newline pair so that it stands alone even after an event that was cut in the middle.
    """
    body = error_body(code, kind, message, param, style)
    if style == "anthropic":
        return b"\n\nevent: error\ndata: " + body + b"\n\n"
    return b"\n\ndata: " + body + b"\n\n"
