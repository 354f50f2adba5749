"""How many tokens an engine counted in a prompt that it refused for its length.

Only the engine's own sentence is believed: the document must be JSON with a message that begins as one of the known
sentences does, so that a prompt which a validation error repeats can say nothing. Wordings (sources of the projects):

    vLLM       This model's maximum context length is 8192 tokens. However, you requested 9591 tokens (7591 in the
               messages, 2000 in the completion) | your request has 9000 input tokens | your prompt contains at least
               8193 input tokens | You passed 9000 input tokens and | The decoder prompt (length 9000) is longer than
    SGLang     The input (9000 tokens) is longer than | You requested a total of 9500 tokens: 9000 tokens from the
               input messages and | Input length (9000 tokens) exceeds
    TGI        `inputs` must have less than 8192 tokens. Given: 9000 | Given: 8000 `inputs` tokens and
    llama.cpp  {"type": "exceed_context_size_error", "n_prompt_tokens": 9000} | request (9000 tokens) exceeds
    TensorRT   Prompt length (9000) exceeds maximum input length
    OpenAI     However, your messages resulted in 9000 tokens; Anthropic  prompt is too long: 9000 tokens >

"at least" comes from engines that stop counting at their bound. A bound given in characters is no count.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

STATUSES = frozenset({400, 413, 422})
BODY_BYTES_MAX = 16_384
MESSAGE_CHARS_MAX = 600
TOKENS_MAX = 100_000_000

_OPENING = re.compile(
    r"(?:<?\w[\w ]{0,40}>?: ){0,2}"
    r"(?:this model's maximum context length is \d|'?max_(?:completion_)?tokens'? |you passed \d+ input tokens"
    r"|the (?:decoder |encoder )?(?:prompt|input) \(|input (?:prompt|length) \(|prompt length \("
    r"|requested token count exceeds|`inputs` |the request exceeds the available context|(?:request|input) \(\d"
    r"|prompt is too long: \d)",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"(?<!upper bound for )(?:(at least )|\b)(\d{1,12})"
    r"(?: input tokens| in the messages| tokens from the input messages| `inputs` tokens)"
    r"|()(?:(?:prompt|input|request|input length|prompt length) \((?:length )?|messages resulted in "
    r"|`inputs` must have less than \d+ tokens\. given: |prompt is too long: )(\d{1,12})\b",
    re.IGNORECASE,
)


class PromptCount(NamedTuple):
    """`at_least`: the engine stopped counting there."""

    tokens: int
    at_least: bool = False


def read_prompt_count(body: bytes) -> PromptCount | None:
    """The count in an error document; None where it is about something else or tells none."""
    if len(body) > BODY_BYTES_MAX:
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    error = document.get("error", document)
    if isinstance(error, str):
        return _in_message(error)
    if not isinstance(error, dict):
        return None
    if error.get("type") == "exceed_context_size_error":
        tokens = error.get("n_prompt_tokens")
        if isinstance(tokens, int) and 0 < tokens <= TOKENS_MAX:
            return PromptCount(tokens)
    message = error.get("message")
    return _in_message(message) if isinstance(message, str) else None


def _in_message(message: str) -> PromptCount | None:
    message = message[:MESSAGE_CHARS_MAX]
    if _OPENING.match(message) is None or (found := _COUNT.search(message)) is None:
        return None
    tokens = int(found[2] or found[4])
    return PromptCount(tokens, found[1] is not None) if 0 < tokens <= TOKENS_MAX else None
