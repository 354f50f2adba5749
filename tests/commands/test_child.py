from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from proxy.commands import child as child_module
from proxy.commands.base import CommandError
from proxy.commands.child import Child

ANNOUNCED = r"^simulated engine \S+ at (\S+)$"
SIMULATE = ["simulate", "--port=0", "--speed=1000"]
PARENT = f"""
from proxy.commands.child import Child
with Child({SIMULATE!r}) as child:
    print(child.pid, child.read_until({ANNOUNCED!r}), flush=True)
    input()
"""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
            return bool(json.load(answer)["data"])
    except OSError:
        return False


def test_a_child_tells_its_address_and_ends_with_the_block() -> None:
    with Child(SIMULATE) as child:
        url = child.read_until(ANNOUNCED)
        assert answers(url)
    assert not answers(url)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent:
        pid, url = parent.stdout.readline().decode().split()
        descriptor = os.pidfd_open(int(pid))
        try:
            assert answers(url)
            parent.send_signal(signal.SIGKILL)
            assert select.select([descriptor], [], [], 10)[0], "the child is still there"
        finally:
            os.close(descriptor)


def test_a_child_that_fails_or_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Child(["simulate", "--profile=none"]) as child, pytest.raises(CommandError, match="as a child, ended"):
        child.read_until(ANNOUNCED)
    monkeypatch.setattr(child_module, "START_S", 0.0)
    with Child(SIMULATE) as child, pytest.raises(CommandError, match="is too slow"):
        child.read_until("never")


def test_a_child_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "STOP_S", 0.0)
    with Child(SIMULATE) as child:
        url = child.read_until(ANNOUNCED)
    assert not answers(url)
