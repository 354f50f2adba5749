from __future__ import annotations

import pytest

from proxy.adapters.engines.detect import PAGES, Page, document, fingerprint

MODELS, TRT, METRICS, SGLANG, PROPS, INFO, VERSION = PAGES
SILENT = {path: Page(b"") for path in PAGES}


def listing(owner: str) -> Page:
    return Page(b'{"object":"list","data":[{"id":"m","owned_by":"%s"}]}' % owner.encode())


@pytest.mark.parametrize(
    ("pages", "engine"),
    [
        ({MODELS: listing("vllm")}, "vllm"),
        ({MODELS: listing("sglang")}, "sglang"),
        ({MODELS: listing("tensorrt_llm")}, "trtllm"),
        ({MODELS: listing("llamacpp")}, "llamacpp"),
        ({MODELS: listing("nvidia")}, None),
        ({MODELS: Page(b"{}", server="llama.cpp")}, "llamacpp"),
        ({MODELS: listing("me"), TRT: Page(b""), METRICS: Page(b"# HELP\nvllm:num_requests_running 1\n")}, "vllm"),
        ({MODELS: listing("vllm"), METRICS: Page(b"sglang:num_running_reqs 1\n")}, "sglang"),
        ({METRICS: Page(b"sglang_num_running_reqs 1\n")}, "sglang"),
        ({METRICS: Page(b"dynamo_frontend_queued_requests 1\n")}, "dynamo"),
        ({METRICS: Page(b"tgi_queue_size 1\n")}, "tgi"),
        ({METRICS: Page(b"llamacpp:requests_deferred 1\n")}, "llamacpp"),
        ({METRICS: Page(b"nv_trt_llm_request_metrics 1\n")}, "trtllm"),
        ({TRT: Page(b"trtllm_num_requests_running 1\n")}, "trtllm"),
        ({METRICS: Page(b"my_vllm:thing 1\n\xff")}, None),
        ({MODELS: Page(b"<html>"), SGLANG: Page(b'{"max_total_num_tokens": 5}')}, "sglang"),
        ({PROPS: Page(b'{"total_slots": 4}')}, "llamacpp"),
        ({INFO: Page(b'{"max_concurrent_requests": 128}')}, "tgi"),
        ({VERSION: Page(b'{"version": "0.6"}')}, "ollama"),
        ({path: page for path, page in SILENT.items() if path != VERSION}, None),
        (SILENT, "openai"),
        ({**SILENT, MODELS: listing("someone")}, "openai"),
    ],
)  # fmt: skip
def test_pages_tell_the_engine(pages: dict[str, Page], engine: str | None) -> None:
    assert fingerprint(pages) == engine


def test_a_body_that_is_not_json_is_no_document() -> None:
    assert document(b'{"a":1}') == {"a": 1}
    assert [document(body) for body in (b"<html>", b"[" * 100_000, b"NaN", b"")] == [None] * 4
