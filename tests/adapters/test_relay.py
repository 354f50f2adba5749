from __future__ import annotations

import pytest

from proxy.adapters.forward import WAITING
from proxy.types import Outcome
from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, said, token

STOP = token("stop")
BUSY = said(b"busy", 429)
SILENT = Outcome.UPSTREAM_TIMEOUT


@pytest.mark.parametrize(("ttft_s", "gap_s", "good"), [(0.4, 0.04, True), (0.6, 0.04, False), (0.4, 0.06, False)])
def test_good_is_within_both_targets(ttft_s: float, gap_s: float, good: bool) -> None:
    shell = Shell()
    shell.ask(stream=True)
    shell.now += ttft_s
    shell.answer(STREAM_HEAD, chunk(token()))
    shell.now += gap_s
    shell.answer(chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert (shell.records[0].outcome, shell.records[0].good) == (Outcome.SUCCESS, good)


@pytest.mark.parametrize(
    ("stream", "quiet_s", "outcome"),
    [(True, 10.1, SILENT), (True, 9.9, None), (False, 20.1, SILENT), (False, 19.9, None)],
)
def test_the_cap_on_a_first_byte_depends_on_streaming(stream: bool, quiet_s: float, outcome: Outcome | None) -> None:
    shell = Shell()
    shell.ask(stream=stream)
    shell.now += quiet_s
    shell.gate.sweep()
    shell.settle()
    assert [record.outcome for record in shell.records] == ([outcome] if outcome else [])
    assert shell.clean() is bool(outcome)


def test_a_waiting_stream_is_kept_alive_by_comments_that_become_its_answer() -> None:
    shell = Shell(keepalive_s=5.0)
    held = shell.fill()
    exchange, sink = shell.ask(stream=True)
    shell.now += 4.9
    exchange.keep_waiting(shell.now)
    assert sink.acts == []
    for _ in range(2):
        shell.now += 5.0
        exchange.keep_waiting(shell.now)
        exchange.keep_waiting(shell.now)
    assert sink.head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    assert (sink.acts, sink.body) == (["begin chunked"], WAITING * 2)
    held[0].client_left()
    shell.settle()
    shell.now += 60.0
    exchange.keep_waiting(shell.now)
    shell.answer(STREAM_HEAD, chunk(token()), chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert sink.body == WAITING * 2 + token() + STOP + DONE
    assert (sink.acts, sink.overs) == (["begin chunked", "end"], 1)


@pytest.mark.parametrize(("stream", "keepalive_s"), [(True, 0.0), (False, 5.0)], ids=["off", "not a stream"])
def test_no_comments(stream: bool, keepalive_s: float) -> None:
    shell = Shell(keepalive_s=keepalive_s)
    shell.fill()
    exchange, sink = shell.ask(stream=stream)
    shell.now += 50.0
    exchange.keep_waiting(shell.now)
    assert (exchange.early, sink.acts) == (False, [])


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        ("queue timeout", Outcome.QUEUE_TIMEOUT),
        ("engine error", Outcome.UPSTREAM_ERROR),
        ("shed", Outcome.UPSTREAM_ERROR),
    ],
)
def test_after_a_comment_only_the_cut_can_tell_a_refusal(what: str, outcome: Outcome) -> None:
    shell = Shell(keepalive_s=5.0, queue_timeout_s=30.0)
    held = shell.fill()
    exchange, sink = shell.ask(stream=True)
    shell.now += 5.0
    exchange.keep_waiting(shell.now)
    if what == "queue timeout":
        shell.now += 30.0
        shell.gate.expire()
    else:
        held[0].client_left()
        shell.settle()
        shell.answer(said(status=500) if what == "engine error" else BUSY)
    assert sink.acts[0] == "begin chunked"
    assert isinstance(sink.acts[1], tuple)
    assert (len(sink.acts), sink.acts[1][0], sink.body, sink.overs) == (2, "cut", WAITING, 1)
    assert shell.records[-1].outcome is outcome
