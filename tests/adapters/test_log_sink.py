from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy.adapters.log_sink import BATCH_MAX, Sink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:  # a test closed it already
            continue


def read_all(reading: int, writing: int) -> bytes:
    os.close(writing)
    with closing(os.fdopen(reading, "rb", closefd=False)) as file:
        return file.read()


def test_every_line_arrives_in_order(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1])
    lines = [b"line %d" % number for number in range(BATCH_MAX * 2 + 1)]
    for line in lines:
        sink.put(line + b"\n")
    sink.close(5)
    assert read_all(*pipe).splitlines() == lines
    assert sink.take_dropped() == 0


def test_a_stalled_reader_costs_lines_that_are_counted_and_nothing_else(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1], ring_max=100)
    total = 5000
    for number in range(total):
        sink.put(b"%-1000d\n" % number)
    sink.close(0.05)  # gives up on the stalled output
    assert sink.take_dropped() > 0
    os.close(pipe[0])  # the blocked write fails, the rest is lost
    sink._worker.join(5)
    assert not sink._worker.is_alive()


def test_an_output_that_has_no_room_now_is_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([BlockingIOError(), BlockingIOError()])
    write = os.write

    def write_later(fd: int, data: memoryview) -> int:
        for refusal in refusals:
            raise refusal
        return write(fd, data)

    monkeypatch.setattr("proxy.adapters.log_sink.os.write", write_later)
    sink = Sink(pipe[1])
    sink.put(b"line\n")
    sink.close(5)
    assert read_all(*pipe) == b"line\n"
    assert sink.take_dropped() == 0


def test_a_full_ring_drops_only_what_does_not_fit(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1], ring_max=10)
    total = BATCH_MAX + 200
    for _ in range(total):
        sink.put(b"line\n")
    sink.close(5)
    written = read_all(*pipe).count(b"\n")
    assert 10 <= written < total
    assert written + sink.take_dropped() == total


def test_what_is_put_after_the_end_is_counted_once(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1])
    sink.close(5)
    sink.close(5)
    sink.put(b"late\n")
    assert (sink.take_dropped(), sink.take_dropped()) == (1, 0)


def test_a_line_that_was_torn_by_a_full_disk_is_ended_before_the_next(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(fd: int, data: memoryview) -> int:
        if not written:
            written.append(bytes(data[:3]))
            return 3
        if len(written) == 1:
            written.append(b"")
            raise OSError(28, "No space left on device")
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr("proxy.adapters.log_sink.os.write", write)
    monkeypatch.setattr("proxy.adapters.log_sink.BATCH_MAX", 2)
    sink = Sink(pipe[1])
    for line in (b"first\n", b"second\n", b"third\n"):
        sink.put(line)
    sink.close(5)
    assert written == [b"fir", b"", b"\nthird\n"]
    assert sink.take_dropped() == 2
