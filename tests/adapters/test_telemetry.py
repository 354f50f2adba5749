from __future__ import annotations

import asyncio
import json

import pytest

from proxy.adapters.fetch import Answer, FetchError
from proxy.adapters.telemetry import MODELS_MAX, Due, EngineReader, Listing, read_listing
from proxy.types import Telemetry

LISTING = Listing(("m",), ({"id": "m", "max_model_len": 8192},))
OWNED = b'{"data":[{"id":"m","owned_by":"%s"}]}'


class Pages:
    """Answers by table; an absent path is 404, a string is the reason of a failure."""

    def __init__(self, **pages: bytes | str | int) -> None:
        self.pages: dict[str, bytes | str | int] = {}
        self.asked: list[str] = []
        self.set(**pages)

    def set(self, **pages: bytes | str | int) -> None:
        self.pages.update({"/" + name.replace("__", "/"): page for name, page in pages.items()})

    async def get(self, path: str) -> Answer:
        self.asked.append(path)
        page = self.pages.get(path, 404)
        if isinstance(page, str):
            raise FetchError(page)
        return Answer(page, "", b"") if isinstance(page, int) else Answer(200, "", page)

    def reader(self, engine: str = "auto") -> EngineReader:
        return EngineReader(self.get, engine, 1.0, lambda: 1.0)


def turn(reader: EngineReader, now: float, listing: Listing | None = LISTING) -> Telemetry | None:
    return asyncio.run(reader.turn(now, listing))


def vllm_page(running: int = 1, preemptions: int = 0) -> bytes:
    return f"vllm:num_requests_running {running}\nvllm:num_preemptions_total {preemptions}\n".encode()


@pytest.mark.parametrize(
    ("data", "models", "context"),
    [
        ([{"id": "a", "max_model_len": 4096}, {"id": "b", "max_model_len": 8192}], ("a", "b"), 8192),
        ([{"id": "a"}, {"id": "a"}, {"id": ""}, {"id": 7}, "x", {"id": "a\nb"}, {"id": "c" * 300}], ("a",), None),
        ([], (), None),
        ([{"id": str(i)} for i in range(MODELS_MAX + 9)], tuple(str(i) for i in range(MODELS_MAX)), None),
    ],
)
def test_a_model_list_keeps_what_can_be_routed(data: object, models: tuple[str, ...], context: int | None) -> None:
    listing = read_listing(json.dumps({"object": "list", "data": data}).encode())
    assert listing is not None
    assert (listing.models, listing.context_tokens) == (models, context)
    assert tuple(str(entry["id"]) for entry in listing.raw) == models


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":{}}', b'{"data":null}', b"\xff"])
def test_what_is_no_model_list_is_none(body: bytes) -> None:
    assert read_listing(body) is None


def test_a_failing_page_is_asked_less_often_up_to_every_tenth_interval_and_at_once_again_after_success() -> None:
    due, waits = Due(2.0), []
    for ok in (True, False, False, False, False, False, True):
        due.done(ok, 100.0, 1.0)
        waits.append(due.at_s - 100.0)
    assert waits == [2, 4, 8, 16, 20, 20, 2]


def test_an_engine_is_found_then_read_with_the_list_filling_the_gaps() -> None:
    pages = Pages(v1__models=OWNED % b"me", metrics=vllm_page(running=3))
    reader = pages.reader()
    assert turn(reader, 5.0) == Telemetry(
        at_s=5.0, running=3, preemptions=0, context_tokens=8192, models=("m",), engine="vllm"
    )
    assert (reader.error, reader.read_at_s) == ("", 5.0)
    assert pages.asked == ["/v1/models", "/prometheus/metrics", "/metrics", "/v1/capacity", "/metrics"]
    assert turn(reader, 5.9) is None
    assert reader.due_s == 6.0


def test_live_values_and_capacity_of_two_pages_are_joined() -> None:
    pages = Pages(metrics=b"sglang:num_running_reqs 2\n", get_server_info=b'{"max_total_num_tokens":900}')
    found = turn(pages.reader("sglang"), 1.0, None)
    assert found == Telemetry(at_s=1.0, running=2, kv_tokens=900, engine="sglang")


def test_an_engine_without_metrics_is_read_from_its_load_page() -> None:
    pages = Pages(metrics=404, server_info=b'{"max_running_requests":8}')
    pages.pages["/v1/loads?include=core,queues,memory"] = b'{"loads":[{"num_running_reqs":2}]}'
    reader = pages.reader("sglang")
    assert turn(reader, 1.0, None) == Telemetry(at_s=1.0, running=2, running_cap=8, engine="sglang")
    pages.asked.clear()
    assert turn(reader, 2.0, None) is not None
    assert pages.asked == ["/v1/loads?include=core,queues,memory"]


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("timeout", "timeout"),
        ("answer above 1 MiB", "answer above 1 MiB"),
        (404, "status 404"),
        (b"<html>hello</html>", "nothing readable"),
        (b"vllm:num_requests_running NaN\n", "nothing readable"),
        (b"", "nothing readable"),
    ],
)
def test_a_dead_page_lets_the_last_reading_grow_old(page: bytes | str | int, error: str) -> None:
    pages = Pages(metrics=vllm_page())
    reader = pages.reader("vllm")
    assert turn(reader, 1.0) is not None
    pages.set(metrics=page)
    assert turn(reader, 2.0) is None
    assert (reader.error, reader.read_at_s, reader.due_s) == (error, 1.0, 4.0)
    assert reader.joined(3.0, None) == Telemetry(at_s=3.0, engine="vllm")
    pages.set(metrics=vllm_page(running=7))
    found = turn(reader, 4.0)
    assert found is not None
    assert (found.running, reader.error) == (7, "")


@pytest.mark.parametrize(("counter", "again"), [(4, []), (9, []), (3, ["/v1/capacity"])])
def test_capacity_is_read_anew_when_a_counter_went_back(counter: int, again: list[str]) -> None:
    pages = Pages(metrics=vllm_page(preemptions=4), v1__capacity=b'{"engines":[{"max_num_seqs":8}]}')
    reader = pages.reader("vllm")
    turn(reader, 1.0)
    pages.set(metrics=vllm_page(preemptions=counter), v1__capacity=b'{"engines":[{"max_num_seqs":16}]}')
    turn(reader, 2.0)
    pages.asked.clear()
    found = turn(reader, 3.0)
    assert found is not None
    assert pages.asked == [*again, "/metrics"]
    assert found.running_cap == (16 if again else 8)


def test_an_engine_that_does_not_answer_is_looked_for_again_later() -> None:
    pages = Pages(v1__models=OWNED % b"me", metrics="timeout")
    reader = pages.reader()
    assert turn(reader, 1.0) is None
    assert (reader.engine, reader.error, reader.due_s) == (None, "timeout", 3.0)
    assert reader.joined(1.0, None) == Telemetry(at_s=1.0)
    assert turn(reader, 2.9) is None
    assert len(pages.asked) == 3
    pages.set(metrics=vllm_page())
    assert turn(reader, 3.0) is not None


def test_after_a_restart_another_engine_is_recognised() -> None:
    pages = Pages(v1__models=OWNED % b"vllm", metrics=vllm_page())
    reader = pages.reader()
    turn(reader, 1.0)
    pages.set(v1__models=OWNED % b"sglang", metrics=b"sglang:num_running_reqs 2\n")
    reader.restarted()
    found = turn(reader, 1.1)
    assert found is not None
    assert (found.engine, found.running) == ("sglang", 2)


def test_an_engine_with_neither_page_is_never_asked() -> None:
    pages = Pages()
    reader = pages.reader("openai")
    assert turn(reader, 1.0) is None
    assert (reader.due_s, pages.asked) == (float("inf"), [])


@pytest.mark.parametrize(
    ("page", "error", "read_at_s"), [(b'{"models":[{"context_length":4096}]}', "", 1.0), (404, "status 404", None)]
)
def test_an_engine_with_only_an_info_page_tells_its_state_by_it(
    page: bytes | int, error: str, read_at_s: float | None
) -> None:
    reader = Pages(api__ps=page).reader("ollama")
    assert (turn(reader, 1.0, None) is None) is bool(error)
    assert (reader.error, reader.read_at_s) == (error, read_at_s)
