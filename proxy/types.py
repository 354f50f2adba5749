"""Floor 0: the words that every other module uses. Times are seconds of a monotonic clock, sizes are tokens or bytes.

A `Ticket` lives through `TicketState`: NEW -> (QUEUED ->) RUNNING -> ENDED. Its only writer is the dispatcher, apart
from `generated_tokens`, which the shell trues up once per tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple


class Outcome(StrEnum):
    """How a request ended: the log field, the metric label and `x-penstock-reason`. One per request."""

    SUCCESS = "success"
    UPSTREAM_STATUS = "upstream_status"  # the engine's own 4xx/5xx, passed through
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    DISPLACED = "displaced"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_UPSTREAM = "no_upstream"
    SHUTTING_DOWN = "shutting_down"
    TOO_LARGE_FOR_ENGINE = "too_large_for_engine"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    AUTH = "auth"
    BAD_REQUEST = "bad_request"
    HEAD_TIMEOUT = "head_timeout"
    BODY_TIMEOUT = "body_timeout"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    INTERNAL_ERROR = "internal_error"


class Phase(StrEnum):
    """Where a request was when its client left."""

    UPLOAD = "upload"
    QUEUED = "queued"
    WAITING = "waiting"
    STREAMING = "streaming"


# Makes a NamedTuple of one tuple: its own constructor is a Python function and costs three times as much.
new_tuple: Final = tuple.__new__


class Work(StrEnum):
    """What kind of work a route asks of the engine; it decides which latency signal a request gives."""

    GENERATE = "generate"  # tokens come out one by one: inter-token latency and TTFT
    EMBED = "embed"  # one forward pass: embeddings, rerank, score, classification
    AUDIO = "audio"  # multipart in or bytes out: transcription, speech
    LIGHT = "light"  # tokenize and the like: no permit, no ledger


GENERATE: Final = Work.GENERATE  # compiled, a constant is at hand; a member of an enumeration is looked up by name


class TicketState(StrEnum):
    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


NEW: Final = TicketState.NEW
QUEUED: Final = TicketState.QUEUED
RUNNING: Final = TicketState.RUNNING
ENDED: Final = TicketState.ENDED


class Failure(StrEnum):
    """Why one try at an upstream failed, before the first response byte; the label of retries."""

    CONNECT = "connect"  # nothing was sent
    LOCAL = "local"  # this machine could not open a connection; nothing was sent, and the upstream has no part in it
    SHED = "shed"  # the engine's own 429/503 before work
    STALE = "stale"  # reset with no response byte on a reused connection
    RESET = "reset"  # reset with no response byte on a fresh connection: never retried
    TIMEOUT = "timeout"  # silent past its cap: never retried


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"


class WorkEstimate(NamedTuple):
    """Size of a request before it runs.

    `prompt_tokens` is the estimate, `prompt_floor` a lower bound (text bytes / 16) that alone may justify a refusal,
    `output_cap` the client's max_tokens times the number of choices (None: not given).
    """

    prompt_tokens: int = 0
    prompt_floor: int = 0
    output_cap: int | None = None
    choices: int = 1


class Usage(NamedTuple):
    """Token counts that the engine reported (all >= 0)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True, eq=False, init=False)
class Ticket:
    """One request on its way through the dispatcher."""

    id: int
    tenant: str
    class_index: int  # 0 is the highest class
    model: str
    work: Work
    streaming: bool
    estimate: WorkEstimate
    body_bytes: int
    arrived_s: float
    deadline_s: float | None  # absolute; the class's queue timeout is added by the dispatcher
    retryable: bool  # False where a second execution could do harm (stored responses, files)
    prefix_hash: int  # of the prompt's beginning, for prefix affinity; 0: unknown
    client: Any  # the shell's own object; the dispatcher never looks inside

    # From here on written by the dispatcher.
    state: TicketState
    expires_s: float  # absolute queue expiry: min(deadline, arrived + class timeout)
    upstream: str  # name of the upstream that runs it, or ran it last
    tried: tuple[str, ...]  # upstreams that failed it, in order
    dispatched_s: float
    first_token_s: float | None
    generated_tokens: int  # trued up by the shell once per tick
    reserved_tokens: float
    epoch: int  # the sizer's epoch at dispatch: later samples may judge the limit it set
    cost: float  # charged to the flow at dispatch

    def __init__(
        self,
        id: int,  # noqa: A002 - the field's name
        tenant: str,
        class_index: int,
        model: str,
        work: Work,
        streaming: bool,
        estimate: WorkEstimate,
        body_bytes: int,
        arrived_s: float,
        deadline_s: float | None = None,
        retryable: bool = True,
        prefix_hash: int = 0,
        client: Any = None,
    ) -> None:
        self.id, self.tenant, self.class_index, self.model = id, tenant, class_index, model
        self.work, self.streaming, self.estimate, self.body_bytes = work, streaming, estimate, body_bytes
        self.arrived_s, self.deadline_s, self.retryable = arrived_s, deadline_s, retryable
        self.prefix_hash, self.client = prefix_hash, client
        self.state, self.upstream, self.tried, self.first_token_s = NEW, "", (), None
        self.expires_s = self.dispatched_s = self.reserved_tokens = self.cost = 0.0
        self.generated_tokens = self.epoch = 0


class Sample(NamedTuple):
    """One finished, successful request, as the sizer sees it. The clock starts at dispatch, never at arrival."""

    work: Work
    streaming: bool
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: float | None  # dispatch to first token; None when not streamed
    tpot_s: float | None  # (last - first) / (output - 1), None when output < 2 or not streamed
    duration_s: float  # dispatch to end
    epoch: int
    prefill_out_tokens: float = 0.0  # outstanding prefill at this upstream when it was dispatched


@dataclass(frozen=True, slots=True)
class Reading:
    """What the shell (or the simulator in its place) measured at one upstream since the last tick.

    `gap_s` sums the gaps between successive tokens of all live streams (time while we made the upstream wait is left
    out, the first token has no gap); `tokens` counts the tokens these gaps produced. `progress` holds the tokens
    generated so far by each running ticket.
    """

    gap_s: float = 0.0
    tokens: float = 0.0
    progress: tuple[tuple[Ticket, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What an engine told about itself in one scrape (None: it does not tell). `at_s` is when it was read.

    `preemptions` counts since the engine started; `kv_usage` is 0..1; `running_cap` is its own limit of sequences.
    """

    at_s: float
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    preemptions: int | None = None
    kv_tokens: int | None = None  # capacity of the KV cache
    running_cap: int | None = None
    context_tokens: int | None = None  # longest request that the engine accepts
    models: tuple[str, ...] = ()
    engine: str = ""


class Step(NamedTuple):
    """A change of an upstream's limit, with its reason (one word of the sizer's closed set)."""

    upstream: str
    before: float
    after: float
    direction: Direction
    reason: str
    at_s: float


class Dispatch(NamedTuple):
    """Decision: run this ticket at this upstream now. Its permit is held until `finished` or `failed`."""

    ticket: Ticket
    upstream: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Decision: this ticket has ended without running. `retry_after_s` comes from the measured drain rate."""

    ticket: Ticket
    outcome: Outcome
    retry_after_s: float | None = None
    detail: str = ""  # which limit it was, for the message; never client data


@dataclass(slots=True, init=False)
class Decisions:
    """What a state change asks the shell to do, in order. The shell performs it; it never feeds back synchronously."""

    dispatches: list[Dispatch]
    refusals: list[Refuse]
    steps: list[Step]

    def __init__(self, *dispatches: Dispatch) -> None:
        self.dispatches = list(dispatches)
        self.refusals = []
        self.steps = []


NOTHING: Final = Decisions()  # of every event that decides nothing: nobody may add to it
