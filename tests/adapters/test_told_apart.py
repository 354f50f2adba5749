from __future__ import annotations

import pytest

from proxy.adapters.repeats import remember
from proxy.adapters.told_apart import ToldApart


class Heard(ToldApart):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def answer_body(self, pieces: list[bytes], last: bool) -> None:
        self.pieces += pieces


def test_a_chunk_is_a_piece_of_the_body_and_no_answer_is_taken_whole() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
    known = remember(answer, [b"ab"], b"OK", [(b"Content-Length", b"2")])
    assert known is not None
    heard = Heard()
    heard.answer_chunk(b"2\r\nab\r\n", 3)
    assert (heard.pieces, heard.takes_whole(known)) == ([b"ab"], False)
    with pytest.raises(AssertionError):
        heard.answer_whole(known, b"ab")
