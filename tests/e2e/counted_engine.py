"""An upstream in a process of its own that writes the id of every request it gets to a file, so that it can be killed.

`python -m tests.e2e.counted_engine PORT FILE`: a request for a stream gets two tokens and the end, spread over 20 ms;
any other one gets its own id back.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.children import ROOT, environ
from tests.e2e.harness import free_port
from tests.e2e.scripted_upstream import (
    DONE,
    HOST,
    LAST_CHUNK,
    STREAM_HEAD,
    Call,
    ScriptedUpstream,
    Wait,
    answer,
    chunk,
    token,
)

STREAM = (STREAM_HEAD, chunk(token()), Wait(0.02), chunk(token(finish="stop")) + chunk(DONE) + LAST_CHUNK)


class CountedEngine:
    """The process as its test sees it; ids survive restarts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port, self.path = free_port(), folder / f"{name}.ids"
        self.path.touch()
        self.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.counted_engine", str(self.port), str(self.path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environ())
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.process.stdout.close()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
        self.process.wait()

    def ids(self) -> list[str]:
        return self.path.read_text().split()


class _Calls(list[Call]):
    """Writes down each call before anything is answered."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)

    def append(self, call: Call) -> None:
        found = re.search(r"^x-request-id: (\S+)", call.head, re.IGNORECASE | re.MULTILINE)
        assert found
        self.file.write(found[1].encode() + b"\n")
        call.head = found[1]


class _Engine(ScriptedUpstream):
    def script_of(self, call: Call) -> tuple[bytes | Wait, ...]:
        return STREAM if b'"stream": true' in call.body else (answer(f'{{"id":"{call.head}"}}'),)


def main(port: int, path: Path) -> None:
    _Engine(port=port, calls=_Calls(path))  # calls are written down from the first moment that it listens
    print("ready", flush=True)
    while os.getppid() != 1:  # its test is gone
        time.sleep(0.2)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
