"""What exchanges share, and what they need of a client's connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from proxy.adapters.gate import Gate
from proxy.adapters.inbound import Inbound
from proxy.adapters.records import RequestRecord
from proxy.native import mypyc_attr
from proxy.types import Outcome, Refuse
from proxy.wire.answer import AnswerWriter


@dataclass(frozen=True, slots=True)
class Caps:
    """How long an upstream may be silent, in seconds, and the latency targets that make a request good."""

    ttft_s: float = 300.0
    itl_s: float = 60.0
    response_s: float = 900.0
    good_ttft_s: float = 0.5
    good_tpot_s: float = 0.05

    def met(self, record: RequestRecord, streamed: bool) -> bool:
        """Whether a success was within the targets; only a stream shows its time to the first token."""
        in_time = record.engine_ttft_s is None or not streamed or record.engine_ttft_s <= self.good_ttft_s
        return in_time and (record.tpot_s is None or record.tpot_s <= self.good_tpot_s)


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink(ABC):
    """The client's connection, as an exchange sees it. No protocol: compiled, those are called by name."""

    __slots__ = ("http10",)

    http10: bool

    @abstractmethod
    def begin(self, head: bytes, chunked: bool, first: bytes) -> None: ...
    @abstractmethod
    def relay(self, data: bytes) -> None: ...
    @abstractmethod
    def relay_framed(self, framed: bytes, start: int) -> None: ...
    @abstractmethod
    def end(self, rest: bytes) -> None: ...
    @abstractmethod
    def cut(self, outcome: Outcome | None) -> None: ...
    @abstractmethod
    def refuse(self, inbound: Inbound, refusal: Refuse) -> int: ...
    @abstractmethod
    def set_reading(self, on: bool) -> None: ...
    @abstractmethod
    def over(self) -> None: ...


@dataclass(slots=True)
class Relay:
    """What all exchanges share."""

    gate: Gate
    writer: AnswerWriter
    caps: Callable[[str], Caps]
    record: Callable[[RequestRecord], None]
    keepalive_s: float = 0.0  # between SSE comments to a stream that waits; 0: none
