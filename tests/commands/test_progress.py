from __future__ import annotations

import asyncio
import io
import os
import signal

from proxy.commands.progress import ProgressLine, interruptible
from proxy.loadtest.client.runner import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_bar_rate_latency_and_errors() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line(Progress(0.5, 10.0, 5, 3, 0, 2, None))
    line.title = "2 of 3: "
    line(Progress(2.5, 10.0, 50, 40, 1, 9, 0.25))
    line.clear()
    first, second = stream.getvalue().split("\r\x1b[K")[1:3]
    assert first == "[#.......................] 0/10 s, 0.0 req/s, 2 under way, TTFT -, 3 ended, 0 failed"
    assert second.startswith("2 of 3: [######..................] 2/10 s, 16.0 req/s, 9 under way, TTFT 250 ms")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_last_answers_the_end_and_runs_without_end_are_told() -> None:
    line = ProgressLine(Terminal())
    assert "last answers, " in line.line(Progress(11.0, 10.0, 5, 3, 0, 2, None))
    assert line.line(Progress(1.0, 1e6, 5, 3, 0, 2, None)).startswith("1 s, 0.3 req/s")
    line.ending = True
    assert "ending, " in line.line(Progress(1.0, 10.0, 5, 3, 0, 2, None))


def test_a_pipe_sees_nothing() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line(Progress(0.5, 10.0, 5, 3, 0, 2, None))
    line.clear()
    assert stream.getvalue() == ""


def test_the_first_interrupt_asks_and_the_second_is_the_usual_one() -> None:
    async def scenario() -> tuple[bool, list[str], object]:
        told: list[str] = []
        async with interruptible(lambda: told.append("ending")) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            async with asyncio.timeout(5):
                await stop.wait()
            return stop.is_set(), told, signal.getsignal(signal.SIGINT)

    was_set, told, after = asyncio.run(scenario())
    assert (was_set, told) == (True, ["ending"])
    assert after is signal.default_int_handler
