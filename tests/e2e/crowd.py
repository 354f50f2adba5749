"""Many clients in one process, to be killed: `python -m tests.e2e.crowd PORT COUNT MARK`, a request on stdin.

Sends the request on COUNT connections, reads on each up to MARK (empty: nothing), says `ready`, and then holds all of
them until it is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Self

from tests.children import ROOT, environ
from tests.e2e.raw_client import RawClient


class Crowd:
    """`answered`: wait until each has got the first event of its stream."""

    def __init__(self, port: int, count: int, request: bytes, answered: bool) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.crowd", str(port), str(count), "data: " if answered else ""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
            env=environ(),
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request)
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def main(port: int, count: int, mark: bytes) -> None:
    request = sys.stdin.buffer.read()
    clients = [RawClient(port).send(request) for _ in range(count)]
    for client in clients:
        if mark:
            client.read_until(mark)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode())
