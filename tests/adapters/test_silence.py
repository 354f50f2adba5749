from __future__ import annotations

import pytest

from proxy.adapters.silence import CHATTER_S
from proxy.types import Outcome
from tests.adapters.shell import DONE, STREAM_HEAD, Shell, chunk, token
from tests.counting import lines_executed

COMMENT = chunk(b": still here\n\n")


@pytest.mark.parametrize(
    ("stream", "pieces", "quiet_s", "ends"),
    [
        pytest.param(True, (), 10.0, None, id="a first token that may still come"),
        pytest.param(True, (), 10.1, Outcome.UPSTREAM_TIMEOUT, id="a first token too late"),
        pytest.param(False, (), 20.0, None, id="a whole answer that may still come"),
        pytest.param(False, (), 20.1, Outcome.UPSTREAM_TIMEOUT, id="a whole answer too late"),
        pytest.param(True, (STREAM_HEAD, chunk(token())), 5.0, None, id="a next token that may still come"),
        pytest.param(True, (STREAM_HEAD, chunk(token())), 5.1, Outcome.UPSTREAM_TIMEOUT, id="a next token too late"),
    ],
)
def test_caps_on_silence(stream: bool, pieces: tuple[bytes, ...], quiet_s: float, ends: Outcome | None) -> None:
    shell = Shell()
    shell.ask(stream=stream)
    shell.answer(*pieces)
    shell.now += quiet_s
    shell.gate.sweep()
    assert [record.outcome for record in shell.records] == ([] if ends is None else [ends])


def test_comments_after_the_end_hold_no_seat() -> None:
    shell = Shell()
    shell.ask(stream=True)
    shell.answer(STREAM_HEAD, chunk(token()), chunk(token("stop")) + chunk(DONE))
    for _ in range(6):
        shell.now += CHATTER_S / 5
        shell.answer(COMMENT)
        shell.gate.sweep()
        if shell.records:
            break
    assert [record.outcome for record in shell.records] == [Outcome.SUCCESS]
    assert shell.clean()


def test_a_quiet_stream_is_passed_over_in_few_steps() -> None:
    shell = Shell()
    shell.ask(stream=True)
    shell.answer(STREAM_HEAD, *[chunk(token()) for _ in range(100)])
    shell.now += 2.0
    shell.gate.sweep()
    assert lines_executed(shell.gate.sweep) <= 40
