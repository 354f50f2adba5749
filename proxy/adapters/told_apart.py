"""What an exchange does that wants head, body and end of its answer told apart, however they came.

Not compiled: classes that are not derive from it.
"""

from __future__ import annotations

from abc import abstractmethod

from proxy.adapters.repeats import KnownAnswer


class ToldApart:
    """The shorter ways of `upstream_pool.Exchange`, led to `answer_body` or not taken."""

    __slots__ = ()

    @abstractmethod
    def answer_body(self, pieces: list[bytes], last: bool) -> None: ...

    def answer_chunk(self, framed: bytes, start: int) -> None:
        self.answer_body([framed[start:-2]], False)

    def takes_whole(self, known: KnownAnswer) -> bool:
        return False

    def answer_whole(self, known: KnownAnswer, body: bytes) -> None:
        raise AssertionError("a whole answer comes only to those who take it")
