"""A client that reads too slowly teaches no time per token: its gaps are its own."""

from __future__ import annotations

import pytest

from proxy.admission.limits import LimitConfig, SeedLawConfig
from tests.adapters.shell import DONE, LAST_CHUNK, STREAM_HEAD, Shell, chunk, token

STOP = token("stop")
HASTY = LimitConfig(law="seed", seed_law=SeedLawConfig(interval=1), initial=4)  # one late request lowers it


@pytest.mark.parametrize("slow", [False, True])
def test_a_slow_reader_teaches_no_time_per_token(slow: bool) -> None:
    shell = Shell(limit=HASTY)
    exchange, _ = shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()))
    if slow:
        exchange.client_paused(True)
        exchange.client_paused(False)
    shell.now += 1.0
    shell.answer(chunk(token()))
    shell.gate.tick()
    shell.answer(chunk(STOP), chunk(DONE), LAST_CHUNK)
    assert shell.clean()
    assert (shell.dispatcher.snapshot(shell.now).upstreams[0].limit == HASTY.initial) is slow
