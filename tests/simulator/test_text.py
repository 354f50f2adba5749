from __future__ import annotations

import pytest

from proxy.simulator.server.text import framed, text_of, word


@pytest.mark.parametrize("tokens", [0, 1, 7, 8, 9, 100])
def test_a_text_is_its_words_in_order(tokens: int) -> None:
    assert text_of(tokens) == "".join(map(word, range(tokens)))


def test_the_text_says_that_it_is_simulated() -> None:
    assert text_of(8) == "This text is simulated: no model wrote it. "


@pytest.mark.parametrize(("size", "frame"), [(3, b"3\r\nxxx\r\n"), (26, b"1a\r\n" + b"x" * 26 + b"\r\n")])
def test_chunks_are_framed_for_http_1_1_only(size: int, frame: bytes) -> None:
    assert framed(b"x" * size, chunked=True) == frame
    assert framed(b"x" * size, chunked=False) == b"x" * size
