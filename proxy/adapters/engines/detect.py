"""Which engine an upstream is, from the pages that it answers.

They are asked one by one until they are conclusive; among those asked, the name of a metric outweighs the owner of a
model, and that a key of a JSON page. trtllm's own page comes before `/metrics`, because reading
that one takes its statistics away from other readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from proxy.adapters.engines.base import at

PAGES = ("/v1/models", "/prometheus/metrics", "/metrics", "/get_server_info", "/props", "/info", "/api/version")
FALLBACK = "openai"

METRIC = re.compile(r"^(vllm|sglang|trtllm|nv_trt_llm|dynamo_frontend|tgi|llamacpp)[:_]", re.MULTILINE)
ENGINE_OF_PREFIX = {
    "vllm": "vllm",
    "sglang": "sglang",
    "trtllm": "trtllm",
    "nv_trt_llm": "trtllm",
    "dynamo_frontend": "dynamo",
    "tgi": "tgi",
    "llamacpp": "llamacpp",
}
ENGINE_OF_OWNER = {"vllm": "vllm", "sglang": "sglang", "tensorrt_llm": "trtllm", "llamacpp": "llamacpp"}
KEY_OF_PAGE = {  # a key in the page's JSON that no other engine has there
    "/get_server_info": ("max_total_num_tokens", "sglang"),
    "/props": ("total_slots", "llamacpp"),
    "/info": ("max_concurrent_requests", "tgi"),
    "/api/version": ("version", "ollama"),
}


@dataclass(frozen=True, slots=True)
class Page:
    """What one path answered with status 200; any other status is an empty body."""

    body: bytes
    server: str = ""  # the header of that name


def fingerprint(pages: Mapping[str, Page]) -> str | None:
    """Name of the engine, or None while the pages asked so far do not tell."""
    for path in ("/prometheus/metrics", "/metrics"):
        if path in pages and (found := METRIC.search(pages[path].body.decode("utf-8", "replace"))):
            return ENGINE_OF_PREFIX[found[1]]
    if any(page.server.startswith("llama.cpp") for page in pages.values()):
        return "llamacpp"
    if "/v1/models" in pages:
        owner = at(document(pages["/v1/models"].body), "data", 0, "owned_by")
        if isinstance(owner, str) and owner in ENGINE_OF_OWNER:
            return ENGINE_OF_OWNER[owner]
    for path, (key, engine) in KEY_OF_PAGE.items():
        if path in pages and at(document(pages[path].body), key) is not None:
            return engine
    return FALLBACK if all(path in pages for path in PAGES) else None


def document(body: bytes) -> object:
    """The JSON in `body`, or None."""
    try:
        found: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found
