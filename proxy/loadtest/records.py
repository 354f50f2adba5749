"""One request of a load test, from the moment it was due to its end. Times are seconds since the test began.

TTFT = first output - due; time per output token (TPOT) = (last output - first output) / (output tokens - 1); end to
end = end - due. *Due* is the time of the arrival process, not when the generator came round to sending: else a stall of
generator or endpoint would hide the very requests that suffered (coordinated omission; G. Tene, "How NOT to measure
latency", 2013). In a closed loop a request is due when it is sent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

EMPTY_EVENTS = 2  # a finish mark without text, and a first event that only names the role


class Ending(StrEnum):
    """How a request ended. One each."""

    SUCCESS = "success"
    STATUS = "status"  # answered with another status than 200
    CONNECT = "connect"  # no connection: refused, unreachable, TLS
    RESET = "reset"  # the connection ended before the answer did
    TIMEOUT = "timeout"  # longer than the whole request may take
    SILENCE = "silence"  # no byte for longer than allowed
    STREAM_ERROR = "stream_error"  # the stream itself told of an error
    TRUNCATED = "truncated"  # the stream ended without its finish mark
    GARBAGE = "garbage"  # not HTTP, not an event stream, not the API's JSON
    EMPTY = "empty"  # a proper answer without any output
    GENERATOR = "generator"  # our own fault: out of file descriptors
    INTERRUPTED = "interrupted"  # the test was ended first; no failure of the endpoint


@dataclass(slots=True)
class Record:
    """`output_tokens` counts what `tokens_from` says: the endpoint's usage, or events where usage is not credible."""

    index: int
    flow: str
    due_s: float
    sent_s: float
    prompt_asked: int
    output_asked: int
    streaming: bool = True
    warmup: bool = False
    ending: Ending = Ending.INTERRUPTED
    status: int = 0
    first_s: float | None = None
    last_s: float | None = None
    ended_s: float = 0.0
    events: int = 0  # stream events with output
    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_from: str = ""  # usage | events
    usage_problem: str = ""
    gap_max_s: float = 0.0  # longest wait between two outputs
    queue_s: float | None = None  # own waiting time, where the endpoint tells
    reconnects: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.ending is Ending.SUCCESS

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def tpot_s(self) -> float | None:
        if self.first_s is None or self.last_s is None or self.output_tokens < 2 or self.events < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        return self.ended_s - self.due_s

    def document(self) -> dict[str, object]:
        """As one line of the records file: the fields, then what follows from them."""
        whole = asdict(self) | {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in whole.items()}


def judge_usage(told: int | None, problem: str | None, events: int, asked: int) -> tuple[int, str, str]:
    """Output tokens, where they come from, and what is wrong with the usage that the endpoint told.

    An event carries at least one token, but for the one that only says why the stream ends; no engine gives more than
    it was asked for. A count outside of these bounds lies.
    """
    if problem is not None:
        return events, "events", f"malformed ({problem})"
    if told is None:
        return events, "events", "missing"
    if told < events - EMPTY_EVENTS:
        return events, "events", "below the events that came"
    if told > asked:
        return events, "events", "above what was asked for"
    return told, "usage", ""
