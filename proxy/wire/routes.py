"""The public routes: an exact allow-list on the raw path. What is not here does not exist (404).

Exact bytes, because two readers of one path disagree sooner or later: percent-encoding, dots and double slashes are
never resolved here, they simply match nothing. Paths are those of OpenAI's API reference, Anthropic's messages API, and
the pooling and tokenizer routes of vLLM, SGLang and llama.cpp, with and without `/v1` where engines have both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.types import Work
from proxy.wire.errors import BadRequest, ErrorStyle

POST: Final = frozenset({b"POST"})
READ: Final = frozenset({b"GET", b"HEAD"})


@dataclass(frozen=True, slots=True)
class Route:
    """One public path and how its traffic is read.

    `token_mark` occurs once in each streamed event that carries output; `terminal` is what the last event of a stream
    contains (empty: the stream has no such event). `retryable` allows a second execution after a stale connection;
    `stores` marks routes whose results are kept by the engine unless the request says `store: false`.
    """

    path: str
    methods: frozenset[bytes]
    work: Work
    streams: bool = False
    error_style: ErrorStyle = "openai"
    token_mark: bytes = b'delta"'
    terminal: bytes = b""
    retryable: bool = False
    stores: bool = False
    multipart: bool = False
    local: bool = False  # answered from what is known of the upstreams, never forwarded

    @property
    def allow(self) -> bytes:
        """Value of the Allow header of a 405."""
        return b", ".join(sorted(self.methods))


def _generate(path: str, mark: bytes, terminal: bytes, style: ErrorStyle = "openai", stores: bool = False) -> Route:
    return Route(path, POST, Work.GENERATE, True, style, mark, terminal, retryable=True, stores=stores)


def _embed(path: str) -> Route:
    return Route(path, POST, Work.EMBED)


def _audio(path: str, multipart: bool) -> Route:
    return Route(path, POST, Work.AUDIO, streams=True, multipart=multipart)


def _light(path: str, style: ErrorStyle = "openai") -> Route:
    return Route(path, POST, Work.LIGHT, error_style=style)


# JSON text cannot hold an unescaped quote, so a mark that ends in one is never matched inside generated text.
_TABLE = (
    _generate("/v1/chat/completions", b'"delta":', b"[DONE]"),
    _generate("/v1/completions", b'"text":', b"[DONE]"),
    _generate("/v1/responses", b'.delta"', b"response.", stores=True),
    _generate("/v1/messages", b'content_block_delta"', b"message_stop", "anthropic"),
    *(_embed(path) for path in ("/v1/embeddings", "/embeddings", "/v2/embed", "/v1/pooling", "/pooling")),
    *(_embed(path) for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score")),
    *(_embed(path) for path in ("/v1/classify", "/classify", "/v1/moderations")),
    _audio("/v1/audio/transcriptions", multipart=True),
    _audio("/v1/audio/translations", multipart=True),
    _audio("/v1/audio/speech", multipart=False),
    *(_light(path) for path in ("/v1/tokenize", "/tokenize", "/v1/detokenize", "/detokenize")),
    _light("/v1/messages/count_tokens", "anthropic"),
    Route("/v1/models", READ, Work.LIGHT, local=True),
)

ROUTES: Final[dict[bytes, Route]] = {route.path.encode(): route for route in _TABLE}

MODEL_PREFIX: Final = b"/v1/models/"  # the only path with a variable part: the rest is a model's name
MODEL_ROUTE: Final = Route("/v1/models/{model}", READ, Work.LIGHT, local=True)

_TARGET: Final = re.compile(rb"(/[!-~]*?)(\?[!-~]*)?")


def find_route(path: bytes) -> Route | None:
    """The route of a raw path, without its query."""
    route = ROUTES.get(path)
    if route is None and len(path) > len(MODEL_PREFIX) and path.startswith(MODEL_PREFIX):
        return MODEL_ROUTE
    return route


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Raw path, and query with its question mark (or empty). BadRequest for absolute form, `*`, and odd bytes."""
    if target in ROUTES:
        return target, b""
    match = _TARGET.fullmatch(target)
    if match is None or b"#" in target:
        raise BadRequest(400, "invalid_value", "The request target must be a path of printable ASCII.")
    return match[1], match[2] or b""
