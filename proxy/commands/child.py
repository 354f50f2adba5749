"""Another `penstock` command as a child process that ends with this one, however this one ends."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import proxy
from proxy.commands.base import CommandError

START_S = 30.0  # a cold start on a busy machine
STOP_S = 10.0
PIECE_BYTES = 65_536


class Child:
    """Runs `penstock ARGUMENTS --follow-stdin`. Its standard input is a pipe that nobody writes to: it closes when
    this process is gone, even killed, and that ends the child. It has a session of its own, so Ctrl-C reaches only us.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        package = str(Path(proxy.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._name = arguments[0]
        self._seen = b""
        self._process = subprocess.Popen(  # noqa: S603  # our own command with arguments that are already checked
            # -P: the working directory may hold another package called proxy
            [sys.executable, "-P", "-m", "proxy", *arguments, "--follow-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**(os.environ if environ is None else environ), "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_until(self, pattern: str) -> str:
        """The first group of `pattern` in what the child prints. CommandError when it ends or is silent too long."""
        assert self._process.stdout is not None
        fd, deadline_s = self._process.stdout.fileno(), time.monotonic() + START_S
        while True:
            found = re.search(pattern, self._seen.decode("utf-8", "replace"), re.MULTILINE)
            if found:
                return found[1]
            left_s = deadline_s - time.monotonic()
            ready = select.select([fd], [], [], max(0.0, left_s))[0]
            piece = os.read(fd, PIECE_BYTES) if ready else b""
            if not piece:
                raise CommandError(f"penstock {self._name}, started as a child, {'ended' if ready else 'is too slow'}")
            self._seen += piece
