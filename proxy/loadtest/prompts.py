"""Request bodies of a wanted size, without a tokenizer.

A prompt of N tokens is N common words of three letters and a space each: one token a word in the vocabularies of
today's models, and four bytes a token for those that count bytes. Every prompt is a piece of one long random text, so
that no two begin alike and a prefix cache has nothing to reuse beyond the prefix that the flow asks for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection

from proxy.loadtest.workload import Flow, Shot

WORDS_TEXT = (
    "the and for are but not you all any can had her was one our out day get has him his how man new now old see "
    "two way who boy did its let put say she too use sea sun sky red big cup dog cat car bus map pen box run sit"
)
WORDS = WORDS_TEXT.split()
TEXT_WORDS = 100_000
WORD_CHARS = 4
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
OPTIONAL = ("ignore_eos", "stream_options", "max_tokens")  # what an endpoint may refuse, and a test can do without


class Prompts:
    """Makes bodies. The same `rng` gives the same prompts."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._text = "".join(word + " " for word in rng.choices(WORDS, k=TEXT_WORDS))

    def text(self, tokens: int, prefix_tokens: int = 0) -> str:
        """`tokens` words, the first `prefix_tokens` of them the same each time."""
        prefix = self._piece(0, min(prefix_tokens, tokens))
        start = self._rng.randrange(TEXT_WORDS)
        return (prefix + self._piece(start, max(0, tokens - prefix_tokens)))[:-1]

    def _piece(self, start: int, tokens: int) -> str:
        first, size = start * WORD_CHARS, tokens * WORD_CHARS
        piece = self._text[first : first + size]
        if len(piece) < size:
            left = size - len(piece)
            piece += self._text * (left // len(self._text)) + self._text[: left % len(self._text)]
        return piece

    def body(self, shot: Shot, model: str, left_out: Collection[str] = ()) -> bytes:
        """JSON of one request; `left_out` names optional fields that this endpoint refuses."""
        text = self.text(max(1, shot.prompt_tokens), shot.flow.prefix_tokens)
        return json.dumps(fields(shot.flow, model, text, shot.output_tokens, left_out)).encode()


def fields(flow: Flow, model: str, text: str, output_tokens: int, left_out: Collection[str] = ()) -> dict[str, object]:
    """The request body of one prompt."""
    prompt = {"messages": [{"role": "user", "content": text}]} if flow.api == "chat" else {"prompt": text}
    body: dict[str, object] = {"model": flow.model or model, **prompt, "stream": flow.stream}
    cap = "max_completion_tokens" if "max_tokens" in left_out else "max_tokens"
    body[cap] = output_tokens
    if flow.stream and "stream_options" not in left_out:
        body["stream_options"] = {"include_usage": True}
    if flow.ignore_eos and "ignore_eos" not in left_out:
        body["ignore_eos"] = True
    return body
