"""Engines that cannot be reached, lie about themselves, fail while their probe is fine, or go and come back."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import settings, upstream
from tests.e2e.harness import ProxyProcess, assert_clean, running
from tests.e2e.raw_client import Answer, RawClient, chat, is_refusal, post
from tests.e2e.scripted_upstream import (
    STREAM_HEAD,
    Do,
    ScriptedUpstream,
    answer,
    chunk,
    token,
    wait_for,
    whole_stream,
)

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"
WATCHFUL = {"interval_s": 0.1, "timeout_s": 0.3, "fail_after": 2, "pass_after": 2}
LISTED = answer('{"object":"list","data":[{"id":"m"}]}')
NOT_READY = answer("loading", 503)


def ask(proxy: ProxyProcess, model: str = "m", *headers: str) -> Answer:
    with RawClient(proxy.port) as client:
        return client.send(post(chat(model), headers=headers)).answer()


@dataclass
class Watched:
    proxy: ProxyProcess
    live: ScriptedUpstream
    grey: ScriptedUpstream


def tls(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem", CERTIFICATES / "key.pem")
    return context


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    live, grey = ScriptedUpstream(), ScriptedUpstream()
    expired, misnamed = ScriptedUpstream(tls=tls("expired")), ScriptedUpstream(tls=tls("valid"), host="127.0.0.2")
    config = settings(
        upstream("live", live.url, seats=1) | {"engine": "vllm"},
        upstream("grey", grey.url, "grey"),
        upstream("tls", expired.url, "tls", tls={"ca": str(CERTIFICATES / "expired.pem")}),
        upstream(
            "misnamed", f"https://127.0.0.2:{misnamed.port}", "misnamed", tls={"ca": str(CERTIFICATES / "valid.pem")}
        ),
        upstream("nowhere", "http://no-such-host.invalid:9", "nowhere"),
        probe=WATCHFUL,
        telemetry={"interval_s": 0.1, "max_age_s": 0.5},
        breaker={"min_requests": 5, "open_s": 0.5},
        routing={"itl_timeout_s": 5, "ttft_timeout_s": 5, "response_timeout_s": 5},
    )
    with running(tmp_path_factory.mktemp("watched"), config) as proxy:
        yield Watched(proxy, live, grey)
    for one in (live, grey, expired, misnamed):
        one.close()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param("nowhere", "name does not resolve", id="U03 no such name"),
        pytest.param("tls", "certificate expired", id="U04 expired certificate"),
        pytest.param("misnamed", "certificate for another address", id="U04 wrong name"),
    ],
)
def test_an_upstream_that_cannot_be_reached_is_named_with_its_reason(watched: Watched, model: str, reason: str) -> None:
    wait_for(lambda: watched.proxy.upstream(model)["healthy"] is False, "its probe has failed", 20.0)
    found = ask(watched.proxy, model)
    is_refusal(found, 503, "server_is_overloaded")
    assert "retry-after" in found.headers
    wait_for(lambda: any(reason in line and f'"{model}"' in line for line in watched.proxy.log().splitlines()), reason)


JUNK = [
    pytest.param(answer("{}", 404), id="404"),
    pytest.param(answer("<html>"), id="HTML"),
    pytest.param(answer("vllm:num_requests_running NaN\nvllm:kv_cache_usage_perc -3\n"), id="NaN"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * 2_000_000, id="1 GB"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", id="never ends"),
    pytest.param(answer("vllm:num_preemptions_total 5\n"), id="counter"),
    pytest.param(answer("vllm:num_preemptions_total 1\n"), id="counter went back"),
]


@pytest.mark.parametrize("page", JUNK)
def test_u20_junk_telemetry_disturbs_no_traffic(watched: Watched, page: bytes) -> None:
    asked = watched.live.asked.count("/metrics")
    watched.live.pages["/metrics"] = page
    wait_for(lambda: watched.live.asked.count("/metrics") > asked, "it is read")
    assert [ask(watched.proxy).status for _ in range(3)] == [200] * 3
    assert watched.proxy.upstream("live")["healthy"] is True


def test_u21_a_grey_engine_is_left_alone_and_tried_again_with_one_request(watched: Watched) -> None:
    proxy, grey = watched.proxy, watched.grey
    grey.reset(answer("{}", 500))
    statuses = [ask(proxy, "grey").status for _ in range(8)]
    assert statuses == [500] * 5 + [503] * 3
    assert (proxy.upstream("grey")["breaker"], proxy.upstream("grey")["healthy"]) == ("open", True)
    grey.reset(Do.HOLD, answer())
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(2)]
        wait_for(lambda: ask_once(clients[0], "grey", grey), "the breaker lets one through", 3.0)
        clients[1].send(post(chat("grey")))
        time.sleep(0.1)
        assert len(grey.calls) == 1
        grey.release.set()
        assert clients[0].answer().status == 200
        assert clients[1].answer().status in (200, 503)  # it waits for the verdict, or is refused before it
    assert ask(proxy, "grey").status == 200
    assert_clean(proxy)


def ask_once(client: RawClient, model: str, target: ScriptedUpstream) -> bool:
    """Send, and say whether it reached the upstream; else read the refusal."""
    client.send(post(chat(model)))
    time.sleep(0.05)
    if target.calls:
        return True
    assert client.answer().status == 503
    return False


def test_u22_u26_a_failing_probe_cuts_nothing_that_runs_and_refuses_the_thousand_that_wait_at_once(
    watched: Watched,
) -> None:
    proxy, live = watched.proxy, watched.live
    live.reset(STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :])
    request = post(chat(stream=True))
    with ExitStack() as stack:
        runs, *waiting = (stack.enter_context(RawClient(proxy.port)) for _ in range(1001))
        runs.send(request).read_until(b"data: ")
        for client in waiting:
            client.send(request)
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == len(waiting), "the others wait")
        live.pages["/v1/models"] = NOT_READY
        wait_for(lambda: proxy.upstream("live")["healthy"] is False, "two misses")
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == 0, "none waits", 1.0)
        for client in waiting:
            found = client.answer()
            is_refusal(found, 503, "server_is_overloaded")
            assert 1 <= int(found.headers["retry-after"]) <= 60
        live.release.set()
        whole = runs.answer()
        assert (whole.status, whole.complete) == (200, True)
    live.reset()
    live.pages["/v1/models"] = LISTED
    wait_for(lambda: ask(proxy).status == 200, "it is healthy again", 3.0)
    assert_clean(proxy)


def test_u25_requests_for_a_model_that_disappears_are_ended(watched: Watched) -> None:
    proxy, live = watched.proxy, watched.live
    live.reset(Do.HOLD, answer())
    live.list_models("m", "vanishing")
    wait_for(lambda: "vanishing" in proxy.upstream("live")["models"], "it is listed")
    with ExitStack() as stack:
        runs, *waiting = (stack.enter_context(RawClient(proxy.port)) for _ in range(4))
        runs.send(post(chat("vanishing")))
        live.wait_calls(1)
        for client in waiting:
            client.send(post(chat("vanishing")))
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == len(waiting), "three wait")
        live.list_models("m")
        for client in waiting:
            assert client.answer().status in (404, 503)
        live.release.set()
        assert runs.answer().status == 200
    assert ask(proxy, "vanishing").status == 404


def test_u01_u02_an_upstream_that_refuses_or_stays_silent_is_replaced_by_the_other(tmp_path: Path) -> None:
    first, second = ScriptedUpstream(backlog=0), ScriptedUpstream()
    config = settings(upstream("first", first.url, "m"), upstream("second", second.url, "m"))
    with running(tmp_path, config) as proxy:
        first.stall()
        started_s = time.monotonic()
        assert [ask(proxy).status for _ in range(4)] == [200] * 4
        assert time.monotonic() - started_s < 3.0
        first.close()
        assert [ask(proxy).status for _ in range(4)] == [200] * 4
        assert len(second.calls) == 8
        proxy.wait_metric(0, "penstock_in_flight", upstream="first")
        assert proxy.metric("penstock_upstream_retries_total", upstream="first", reason="connect") >= 1
        second.close()
        wait_for(lambda: ask(proxy).status == 502, "idle connections are gone")
        is_refusal(ask(proxy), 502, "upstream_error")


def test_u01_after_so_many_refusals_the_upstream_is_left_alone(tmp_path: Path) -> None:
    engine = ScriptedUpstream()
    config = settings(upstream("one", engine.url, "m"), breaker={"min_requests": 4, "open_s": 60, "window_s": 60})
    with running(tmp_path, config) as proxy:
        engine.refuse()
        assert [ask(proxy).status for _ in range(6)] == [502] * 4 + [503] * 2
        assert proxy.upstream("one")["breaker"] == "open"
        assert proxy.stop(2.0) == 0, "idle, it ends at once"
    engine.close()


def test_p01_running_streams_end_whole_and_waiting_requests_are_told_when_the_process_ends(tmp_path: Path) -> None:
    engine = ScriptedUpstream(script=(STREAM_HEAD + chunk(token()), Do.HOLD, whole_stream()[len(STREAM_HEAD) :]))
    config = settings(upstream("one", engine.url, "m", seats=1), routing={"itl_timeout_s": 5})
    with running(tmp_path, config) as proxy, RawClient(proxy.port) as runs, RawClient(proxy.port) as waits:
        runs.send(post(chat(stream=True))).read_until(b"data: ")
        waits.send(post(chat()))
        wait_for(lambda: proxy.state()["classes"][1]["queued"] == 1, "one waits")
        proxy.process.terminate()
        refused = waits.answer()
        is_refusal(refused, 503, "shutting_down")
        assert (refused.headers["connection"], "retry-after" in refused.headers) == ("close", True)
        engine.release.set()
        whole = runs.answer()
        assert (whole.status, whole.complete) == (200, True)
        assert proxy.stop() == 0
        engine.close()


def test_p01_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    engine = ScriptedUpstream(script=(STREAM_HEAD + chunk(token()), Do.HOLD))
    config = settings(upstream("one", engine.url, "m"), routing={"itl_timeout_s": 60}, listen={"drain_timeout_s": 60})
    with running(tmp_path, config) as proxy, RawClient(proxy.port) as runs:
        runs.send(post(chat(stream=True))).read_until(b"data: ")
        proxy.process.terminate()
        wait_for(lambda: "draining" in proxy.log(), "it drains")
        started_s = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - started_s < 1.5
        engine.calls[0].wait_gone()
        engine.close()


def test_u28_preemptions_lower_the_limit_with_their_reason(tmp_path: Path) -> None:
    engine = ScriptedUpstream(script=(STREAM_HEAD + chunk(token()), Do.HOLD))
    one = upstream("one", engine.url, "m") | {"engine": "vllm", "limit": {"initial": 8}}
    config = settings(one, routing={"itl_timeout_s": 60}, telemetry={"interval_s": 0.1})
    with running(tmp_path, config) as proxy, ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(RawClient(proxy.port))
            client.send(post(chat(stream=True), headers=["x-priority: high"])).read_until(b"data: ")

        def preempted() -> bool:
            count = 3 * engine.asked.count("/metrics")
            engine.pages["/metrics"] = answer(
                f"vllm:num_requests_running 8\nvllm:num_requests_waiting 4\nvllm:kv_cache_usage_perc 0.99\n"
                f"vllm:num_preemptions_total {count}\n"
            )
            return any(change["reason"] == "preemption" for change in proxy.state()["limit_changes"])

        wait_for(preempted, "a cut for preemption")
        assert proxy.upstream("one")["limit"] < 8
        engine.release.set()
    engine.close()
