"""A client that reads too slowly teaches no time per token: its gaps are its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, token

STOP = token("stop")


@pytest.mark.parametrize("slow", [False, True])
def test_a_slow_reader_teaches_no_time_per_token(slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    taught: list[float | None] = []
    finished = shell.gate.finished

    def hear(*given: Any, **named: Any) -> None:
        taught.append(given[3])
        finished(*given, **named)

    monkeypatch.setattr(shell.gate, "finished", hear)
    exchange, _ = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()))
    if slow:
        exchange.client_paused(True)
        exchange.client_paused(False)
    shell.now += 1.0
    shell.answer(chunk(token()), chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert [one is None for one in taught] == [slow]
