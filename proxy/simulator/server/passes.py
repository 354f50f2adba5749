"""Answers of the routes that generate no text: embeddings, rerank, score, transcription, tokens.

A token is four bytes of UTF-8 text; its id is those bytes as a number behind a leading 1, so that ids give the text
back. Vectors and scores are constant or decreasing: they mean nothing.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from proxy.simulator.server.bodies import Asked, invalid, whole_number

DIMENSIONS_MAX = 4096


def passes_usage(asked: Asked) -> dict[str, int]:
    return {"prompt_tokens": asked.prompt_tokens, "total_tokens": asked.prompt_tokens}


def embeddings(body: dict[str, Any], asked: Asked, model: str) -> dict[str, Any]:
    dimensions = whole_number(body, "dimensions", 64, 1, DIMENSIONS_MAX)
    vector: list[float] | str = [dimensions**-0.5] * dimensions
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(asked.pieces))]
    return {"object": "list", "data": data, "model": model, "usage": passes_usage(asked)}


def rerank(documents: list[object], body: dict[str, Any], asked: Asked, model: str) -> dict[str, Any]:
    kept = documents[: whole_number(body, "top_n", len(documents), 0) or len(documents)]
    results = [
        {"index": index, "document": document_of(document), "relevance_score": 1 / (1 + index)}
        for index, document in enumerate(kept)
    ]
    return {"id": "rerank-sim", "model": model, "results": results, "usage": passes_usage(asked)}


def document_of(document: object) -> object:
    return {"text": document} if isinstance(document, str) else document


def score(asked: Asked, model: str) -> dict[str, Any]:
    data = [{"object": "score", "index": index, "score": 1 / (1 + index)} for index in range(len(asked.pieces))]
    return {"object": "list", "data": data, "model": model, "usage": passes_usage(asked)}


def score_pairs(left: list[object], right: list[object]) -> list[object]:
    """One query against many texts, or texts pairwise."""
    if len(left) not in (1, len(right)):
        raise invalid("text_1", "one text, or as many as text_2")
    return [[query, text] for query, text in zip(left * (len(right) // len(left)), right, strict=True)]


def encode(text: str) -> list[int]:
    raw = text.encode("utf-8", "replace")
    return [int.from_bytes(b"\x01" + raw[at : at + 4], "big") for at in range(0, len(raw), 4)]


def decode(tokens: list[object]) -> str:
    parts = []
    for token in tokens:
        if not isinstance(token, int) or not 0x100 <= token < 0x2_0000_0000:
            raise invalid("tokens", "ids that /tokenize gave")
        parts.append(token.to_bytes(5, "big").lstrip(b"\0")[1:])
    return b"".join(parts).decode("utf-8", "replace")
