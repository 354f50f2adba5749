from __future__ import annotations

import time

import pytest

from proxy.server.own_head import own_lines


def test_the_date_follows_the_clock_by_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for now in (784_111_777.0, 784_111_777.9, 784_111_778.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        seen.append(own_lines())
    assert b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in seen[0]
    assert seen[0] is seen[1]
    assert b"08:49:38" in seen[2]
    assert b"cache-control: no-store\r\n" in seen[2]
