from __future__ import annotations

import pytest

from proxy.wire.chunks import chunk_start
from tests.adapters.shell import chunk


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 4095, 4096, 8191])
def test_one_whole_chunk_is_known_by_its_size(size: int) -> None:
    content = b"x" * size
    whole = b"%x\r\n%b\r\n" % (size, content)
    start = chunk_start(whole)
    assert whole[start:-2] == content and start == len(b"%x\r\n" % size)
    for other in (
        whole[:-1], whole + b"\n", whole[:-2] + b"xx", b"0" + whole, whole + whole,
        b"%x\r\n%b\r\n" % (size + 1, content), b"%x;a=b\r\n%b\r\n" % (size, content),
    ):  # fmt: skip
        assert chunk_start(other) == 0


@pytest.mark.parametrize(
    "data", [b"", b"0\r\n\r\n", b"1\r\n\r\n", b"x" * 300, chunk(b"x" * 8192), chunk(b"x" * 70_000)]
)
def test_what_is_no_whole_chunk_or_too_large_a_one(data: bytes) -> None:
    assert chunk_start(data) == 0
