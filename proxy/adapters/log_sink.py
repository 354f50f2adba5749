"""A bounded ring of log lines and the thread that writes them: `put` never waits, whatever becomes of the output.

Lines are made by those who put: a writer that makes them takes the interpreter from the event loop for as long. Each
batch is one `os.write`. A full ring, a closed pipe or a full disk cost lines, which are counted, never requests.
"""

from __future__ import annotations

import os
import select
import threading
from queue import SimpleQueue
from typing import Final

RING_MAX: Final = 10_000  # lines; some 5 MB, half a second at 20,000 requests a second
BATCH_MAX = 512  # lines; near the 64 KiB that a pipe takes at once
GATHER_S: Final = 0.02  # how long a batch gathers before it is written
WRITABLE_WAIT_MS: Final = 100


class Sink:
    """Takes lines with their newlines, from any thread."""

    def __init__(self, fd: int, ring_max: int = RING_MAX) -> None:
        self._fd = fd
        self._ring: SimpleQueue[bytes] = SimpleQueue()  # in C: neither side runs Python for a lock
        self._ring_max = ring_max
        self._refused = 0  # written by those who put
        self._lost = 0  # written by the writer
        self._told = 0
        self._torn = False  # the last write ended inside a line
        self._closed = False
        self._gathering = threading.Lock()  # held until the end: to wait for it is a pause that the end cuts short
        self._gathering.acquire()
        self._worker = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._worker.start()

    def put(self, line: bytes) -> None:
        """Take the line, or count it as dropped."""
        if self._closed or self._ring.qsize() >= self._ring_max:
            self._refused += 1
            return
        self._ring.put(line)

    def take_dropped(self) -> int:
        """Lines lost since the last call."""
        total = self._refused + self._lost
        new, self._told = total - self._told, total
        return new

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s` seconds; later lines are dropped."""
        if not self._closed:
            self._closed = True
            self._gathering.release()
            self._ring.put(b"")  # wakes the writer
        self._worker.join(timeout_s)

    def _run(self) -> None:
        while not (self._closed and not self._ring.qsize()):
            lines = [self._ring.get()]
            self._gathering.acquire(timeout=GATHER_S)
            lines += self._taken(BATCH_MAX - 1)
            while lines:
                self._write(b"".join(lines))
                lines = self._taken(BATCH_MAX)

    def _taken(self, most: int) -> list[bytes]:
        ring = self._ring
        return [ring.get_nowait() for _ in range(min(ring.qsize(), most))]

    def _write(self, batch: bytes) -> None:
        rest = memoryview(b"\n" + batch if self._torn else batch)
        while rest:
            try:
                written = os.write(self._fd, rest)
            except BlockingIOError:
                self._await_room()
                continue
            except OSError:
                self._lost += bytes(rest).count(b"\n")
                return
            self._torn = rest[written - 1] != ord("\n")
            rest = rest[written:]

    def _await_room(self) -> None:
        """Standard output may have been made non-blocking by whoever shares it."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(WRITABLE_WAIT_MS)
