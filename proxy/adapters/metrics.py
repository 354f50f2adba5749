"""Every metric of the process, declared in one place, and the counting of what happens.

Base units only (seconds, tokens, bytes, ratios 0..1). No tenant label on histograms; tenants are the top N by requests,
then `other`; models are those known to be served, then `other`. The event loop is the only writer.
Gauges are not kept: `proxy.adapters.gauges` reads them from a snapshot when the metrics are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from proxy.adapters.histograms import (
    ABORT_EDGES_S,
    ITL_EDGES_S,
    LAG_EDGES_S,
    QUEUE_EDGES_S,
    REQUEST_EDGES_S,
    TTFT_EDGES_S,
    Cell,
    Exposed,
    Family,
    HistogramCell,
    Mark,
    Table,
    counter,
    histogram,
)
from proxy.adapters.records import RequestRecord
from proxy.adapters.tenant_counters import OTHER, TenantCounters
from proxy.types import Outcome, Step

MODELS_MAX: Final = 1000
RELOAD_RESULTS = ("applied", "invalid")
SIDES = ("client", "upstream")
PARTS = ("request", "exchange", "connection", "record", "gate", "listener", "probe", "housekeeping")
ENDED_MAX: Final = 256  # records that wait to be counted: as many take less than a millisecond
ATTEMPTS_MAX: Final = 5  # SDKs retry twice by default; beyond this a label tells nothing more

_MC = ("model", "class")
_U = ("upstream",)


def _counter(name: str, help_text: str, *labels: str) -> Family:
    return Family(f"penstock_{name}", "counter", labels, help_text)


def _gauge(name: str, help_text: str, *labels: str) -> Family:
    return Family(f"penstock_{name}", "gauge", labels, help_text)


def _histogram(name: str, help_text: str, edges: tuple[float, ...], *labels: str) -> Family:
    return Family(f"penstock_{name}", "histogram", labels, help_text, edges)


# Requests
REQUESTS = _counter("requests_total", "Requests by how they ended.", "model", "class", "outcome")
GOOD_REQUESTS = _counter("good_requests_total", "Requests that succeeded within the latency targets.", *_MC)
GOOD_TOKENS = _counter("good_tokens_total", "Output tokens of requests that succeeded within the targets.", *_MC)
REQUEST_DURATION = _histogram(
    "request_duration_seconds", "Receipt of the request to its end, any outcome.", REQUEST_EDGES_S, *_MC
)
TTFT = _histogram(
    "time_to_first_token_seconds", "Receipt to the first body byte sent: the client's view.", TTFT_EDGES_S, *_MC
)
TOKENS = _counter(
    "tokens_total", "Tokens that the engines counted; estimated for streams without usage.", "model", "direction"
)
CACHED_TOKENS = _counter("cached_tokens_total", "Input tokens that came from the engine's prefix cache.", "model")
TENANT_REQUESTS = _counter("tenant_requests_total", "Requests by tenant and how they ended.", "tenant", "outcome")
TENANT_TOKENS = _counter("tenant_tokens_total", "Tokens by tenant.", "tenant", "direction")
PRIORITY_CLAMPED = _counter("priority_clamped_total", "Requests that asked for a class above what they may have.")
PRIORITY_UNKNOWN = _counter("priority_unknown_total", "Requests whose priority was not understood.")
CLIENT_RETRIES = _counter("client_retries_total", "Requests that a client sent again, by its attempt.", "attempt")
CLIENT_DISCONNECTS = _counter("client_disconnects_total", "Clients that left, by how far they were.", "phase")
ABORT = _histogram("abort_seconds", "Client gone to upstream connection closed.", ABORT_EDGES_S)
WASTED_TOKENS = _counter("wasted_tokens_total", "Output tokens of requests that did not succeed.", "reason")
USAGE_REJECTED = _counter("usage_rejected_total", "Usage reports of engines that were not believed.", "reason")
# Queue
QUEUE_WAIT = _histogram("queue_wait_seconds", "Time in the queue, by how it ended.", QUEUE_EDGES_S, "class", "outcome")
QUEUE_DEPTH = _gauge("queue_depth", "Requests that wait.", "class")
QUEUE_CAPACITY = _gauge("queue_capacity", "Requests that may wait.", "class")
QUEUE_BYTES = _gauge("queue_bytes", "Bytes of request bodies that are held.")
QUEUE_OLDEST = _gauge("queue_oldest_wait_seconds", "How long the oldest waiting request has waited.", "class")
BACKLOG = _gauge("backlog_seconds", "Time to work off what waits, at the present rate.", "class")
SATURATION = _gauge("saturation_ratio", "Requests running and waiting over seats of usable upstreams, at most 1.")
# Control
LIMIT = _gauge("concurrency_limit", "The adaptive limit of requests in flight.", *_U)
IN_FLIGHT = _gauge("in_flight", "Requests that hold a seat.", *_U)
ABORTING = _gauge("aborting", "Requests whose client left while the engine may still work on them.", *_U)
DRAINING = _gauge("draining", "1 while the upstream gets no new work.", *_U)
CEILING_SEATS = _gauge("memory_ceiling_seats", "Requests of mean size that fit the engine's KV memory.", *_U)
CEILING_TOKENS = _gauge("memory_ceiling_tokens", "Tokens that fit the engine's KV memory.", *_U)
KV_RESERVED = _gauge("kv_reserved_tokens", "Tokens of KV memory that running requests hold or may need.", *_U)
LIMIT_CHANGES = _counter("limit_changes_total", "Changes of the limit.", "upstream", "direction", "reason")
LATENCY_TARGET = _gauge("latency_target_seconds", "Configured target: per output token, to first token.", *_U, "signal")
ITL = _histogram("inter_token_latency_seconds", "Mean gap between tokens per tick, by tokens.", ITL_EDGES_S, *_U)
ENGINE_TTFT = _histogram("upstream_time_to_first_token_seconds", "Dispatch to first token.", TTFT_EDGES_S, *_U)
MODEL_COEFFICIENT = _gauge("model_coefficient", "Fitted step time kappa*(a + b*n + d*p), in seconds.", *_U, "term")
MODEL_FIT = _gauge("model_fit_ratio", "Share of step-time variance that the fit explains.", *_U)
# Upstream
UPSTREAM_UP = _gauge("upstream_up", "1 while probes pass.", *_U)
RETRIES = _counter("upstream_retries_total", "Further tries, by why the one before failed.", "upstream", "reason")
BREAKER = _gauge("breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", *_U)
TELEMETRY_AGE = _gauge("telemetry_age_seconds", "Age of what the engine last told.", *_U)
ENGINE_RUNNING = _gauge("engine_running", "Requests that the engine says it runs.", *_U)
ENGINE_WAITING = _gauge("engine_waiting", "Requests that the engine says wait in it.", *_U)
ENGINE_KV_USAGE = _gauge("engine_kv_usage_ratio", "Share of KV memory that the engine says is used.", *_U)
ENGINE_PREEMPTIONS = _counter("engine_preemptions_total", "Requests that the engine put off for lack of memory.", *_U)
# Process
LEAKED = _gauge("leaked_permits", "Permits granted less released less held: 0 unless there is a fault.")
LOOP_LAG = _histogram("event_loop_lag_seconds", "How late the event loop ran a timer.", LAG_EDGES_S)
LOG_DROPPED = _counter("log_lines_dropped_total", "Log lines lost because standard output did not keep up.")
SHORT_OF_FILES = _counter(
    "short_of_files_total", "Connections refused for want of open files, by the side they belong to.", "side"
)
FAULTS = _counter("internal_errors_total", "Faults of the proxy itself, by the part that failed.", "part")
RELOADS = _counter("config_reloads_total", "Attempts to reload the configuration.", "result")
BUILD = _gauge("build_info", "Always 1; the version is a label.", "version")

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Targets in seconds become bucket edges; they stay as they were at start."""

    class_names: tuple[str, ...] = ()
    itl_targets_s: tuple[float, ...] = ()
    ttft_targets_s: tuple[float, ...] = ()
    top_tenants: int = 50
    version: str = ""


@dataclass(slots=True)
class _RequestCells:
    """The bound cells of one model and class."""

    model: str
    class_name: str
    good_requests: Cell
    good_tokens: Cell
    duration: HistogramCell
    ttft: HistogramCell
    input_tokens: Cell
    output_tokens: Cell
    cached_tokens: Cell
    outcomes: dict[Outcome, Cell] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    """Of requests of one model, class, tenant and outcome."""

    cells: _RequestCells
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    good: int = 0
    good_tokens: int = 0


class Metrics:
    """Counts what happens. All methods belong to the event loop's thread."""

    def __init__(self, config: MetricsConfig) -> None:
        self.config = config
        self._models: set[str] = set()
        self._bound: dict[tuple[str, str], _RequestCells] = {}
        self._queue_bound: dict[tuple[str, str], HistogramCell] = {}
        self._tenants = TenantCounters(TENANT_REQUESTS, TENANT_TOKENS, config.top_tenants)
        self._counters: dict[str, Table[Cell]] = {
            family.name: counter(family)
            for family in FAMILIES
            if family.kind == "counter" and family not in (TENANT_REQUESTS, TENANT_TOKENS, ENGINE_PREEMPTIONS)
        }
        targets = {ITL.name: config.itl_targets_s, TTFT.name: config.ttft_targets_s}
        targets[ENGINE_TTFT.name] = config.ttft_targets_s
        self._histograms: dict[str, Table[HistogramCell]] = {
            family.name: histogram(family, targets.get(family.name, ()))
            for family in FAMILIES
            if family.kind == "histogram"
        }
        of_many = (REQUEST_DURATION.name, TTFT.name)  # these have cells for every model and class
        self._few = [table for name, table in self._histograms.items() if name not in of_many]
        self._ended: list[RequestRecord] = []
        self._totals: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._lag = self._histograms[LOOP_LAG.name].at()
        self._engine_ttft = self._histograms[ENGINE_TTFT.name]
        for family in (PRIORITY_CLAMPED, PRIORITY_UNKNOWN, LOG_DROPPED):
            self._counters[family.name].at()  # 0 from the start, not absent: a first 1 would be no increase
        for result in RELOAD_RESULTS:
            self._counters[RELOADS.name].at(result)
        for part in (*PARTS, OTHER):
            self._counters[FAULTS.name].at(part)
        for side in SIDES:
            self._counters[SHORT_OF_FILES.name].at(side)

    def models_served(self, models: Iterable[str]) -> None:
        """Models that upstreams serve: only these become label values, the first 1000 of them."""
        for model in models:
            if len(self._models) >= MODELS_MAX:
                return
            self._models.add(model)

    def request_ended(self, record: RequestRecord) -> None:
        """One request has ended. It is counted with others, at the latest when somebody asks."""
        self._ended.append(record)
        if len(self._ended) >= ENDED_MAX:
            self.count()

    def count(self) -> None:
        """Count the requests that have ended, in all families at once. Those that differ in sizes alone share sums."""
        ended, self._ended = self._ended, []
        sums: dict[tuple[str, str, str, Outcome], _Sums] = {}
        for record in ended:
            outcome, ttft_s = record.outcome, record.ttft_s
            key = (record.model, record.class_name, record.tenant, outcome)
            found = sums.get(key)
            if found is None:
                found = sums[key] = _Sums(self._bound.get(key[:2]) or self._bind(record))
            found.requests += 1
            found.cells.duration.observe(record.duration_s)
            if ttft_s is not None:
                found.cells.ttft.observe(ttft_s)
                # the prompt of what was refused or never answered is an estimate of work that nobody did
                if outcome is not Outcome.UPSTREAM_STATUS:
                    found.prompt_tokens += record.prompt_tokens
            if record.engine_ttft_s is not None:
                self._engine_ttft.at(record.upstream).observe(record.engine_ttft_s)
            found.output_tokens += record.output_tokens
            found.cached_tokens += record.cached_tokens
            if record.good:
                found.good += 1
                found.good_tokens += record.output_tokens
            unusual = record.clamped or record.unknown_priority or record.client_attempt or record.usage_problem
            if unusual or outcome is not Outcome.SUCCESS:
                self._count_unusual(record)
        for (_, _, tenant, outcome), one in sums.items():
            self._add_up(tenant, outcome, one)
        for table in self._few:
            table.count()

    def _add_up(self, tenant: str, outcome: Outcome, sums: _Sums) -> None:
        cells = sums.cells
        cells.duration.count()
        cells.ttft.count()
        (cells.outcomes.get(outcome) or self._bind_outcome(cells, outcome)).value += sums.requests
        self._totals[outcome] += sums.requests
        cells.input_tokens.value += sums.prompt_tokens
        cells.output_tokens.value += sums.output_tokens
        cells.cached_tokens.value += sums.cached_tokens
        cells.good_requests.value += sums.good
        cells.good_tokens.value += sums.good_tokens
        self._tenants.count(tenant, outcome, sums.requests, sums.prompt_tokens, sums.output_tokens)

    def point_to_trace(self, record: RequestRecord, wall_s: float) -> None:
        """Make a counted request of a sampled trace the exemplar of the buckets that it fell into."""
        assert record.trace is not None
        trace_id = record.trace.trace_hex
        cells = self._bound.get((record.model, record.class_name)) or self._bind(record)
        cells.duration.mark(Mark(trace_id, record.duration_s, wall_s))
        if record.ttft_s is not None:
            cells.ttft.mark(Mark(trace_id, record.ttft_s, wall_s))
        if record.engine_ttft_s is not None:
            self._engine_ttft.at(record.upstream).mark(Mark(trace_id, record.engine_ttft_s, wall_s))

    def queue_left(self, class_name: str, outcome: str, wait_s: float) -> None:
        """A ticket left the queue: `outcome` is `dispatched` or the outcome it was refused with."""
        cell = self._queue_bound.get((class_name, outcome))
        if cell is None:
            cell = self._histograms[QUEUE_WAIT.name].at(self._class_label(class_name), outcome)
            self._queue_bound[class_name, outcome] = cell
        cell.observe(wait_s)

    def limit_changed(self, step: Step) -> None:
        self._add(LIMIT_CHANGES, 1, step.upstream, step.direction, step.reason)

    def retry(self, upstream: str, reason: str) -> None:
        """A further try, after `upstream` failed the one before for `reason`."""
        self._add(RETRIES, 1, upstream, reason)

    def inter_token(self, upstream: str, gap_s_sum: float, count: float) -> None:
        """One tick's sum of gaps and the tokens they produced: the mean gap counts once per token."""
        tokens = round(count)
        if tokens > 0:
            self._histograms[ITL.name].at(upstream).observe_many(gap_s_sum / tokens, tokens)

    def loop_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def config_reload(self, result: str) -> None:
        """`result` is one of `RELOAD_RESULTS`."""
        self._add(RELOADS, 1, result)

    def short_of_files(self, side: str) -> None:
        """`side` is one of `SIDES`."""
        self._add(SHORT_OF_FILES, 1, side)

    def fault(self, part: str) -> None:
        self._add(FAULTS, 1, part if part in PARTS else OTHER)

    def log_dropped(self, lines: int) -> None:
        self._add(LOG_DROPPED, lines)

    def outcomes(self) -> dict[str, int]:
        """Requests since start by outcome, all outcomes present."""
        self.count()
        return {outcome.value: count for outcome, count in self._totals.items()}

    def totals(self) -> dict[str, int]:
        """Sums since start over all models and classes: requests that ended, how many of them well, and tokens."""
        self.count()
        good = self._counters[GOOD_REQUESTS.name].copy().values
        tokens = self._counters[TOKENS.name].copy().values
        return {
            "requests": sum(self._totals.values()),
            "succeeded": self._totals[Outcome.SUCCESS],
            "good": sum(int(value) for _, value in good if isinstance(value, float)),
            **{
                f"{wanted}_tokens": sum(
                    int(value) for (_, direction), value in tokens if direction == wanted and isinstance(value, float)
                )
                for wanted in ("input", "output")
            },
        }

    def copy(self) -> list[Exposed]:
        """All counters and histograms at this moment; cheap enough for the loop (one list copy per series)."""
        self.count()
        counters = [table.copy() for table in self._counters.values()]
        histograms = [table.copy() for table in self._histograms.values()]
        return counters + histograms + self._tenants.copy()

    def _add(self, family: Family, amount: float, *labels: str) -> None:
        self._counters[family.name].at(*labels).value += amount

    def _class_label(self, name: str) -> str:
        return name if name in self.config.class_names or not name else OTHER

    def _bind(self, record: RequestRecord) -> _RequestCells:
        """Cells of a model and class seen for the first time. A model that served a request is known from then on."""
        if record.upstream:
            self.models_served((record.model,))
        known = record.model in self._models or not record.model
        model, class_name = record.model if known else OTHER, self._class_label(record.class_name)
        bound = self._bound.get((model, class_name))
        if bound is None:
            bound = self._bound[model, class_name] = _RequestCells(
                model,
                class_name,
                good_requests=self._counters[GOOD_REQUESTS.name].at(model, class_name),
                good_tokens=self._counters[GOOD_TOKENS.name].at(model, class_name),
                duration=self._histograms[REQUEST_DURATION.name].at(model, class_name),
                ttft=self._histograms[TTFT.name].at(model, class_name),
                input_tokens=self._counters[TOKENS.name].at(model, "input"),
                output_tokens=self._counters[TOKENS.name].at(model, "output"),
                cached_tokens=self._counters[CACHED_TOKENS.name].at(model),
            )
        return bound

    def _bind_outcome(self, cells: _RequestCells, outcome: Outcome) -> Cell:
        cell = self._counters[REQUESTS.name].at(cells.model, cells.class_name, outcome)
        cells.outcomes[outcome] = cell
        return cell

    def _count_unusual(self, record: RequestRecord) -> None:
        if record.clamped:
            self._add(PRIORITY_CLAMPED, 1)
        if record.unknown_priority:
            self._add(PRIORITY_UNKNOWN, 1)
        if record.client_attempt > 0:
            attempt = record.client_attempt
            self._add(CLIENT_RETRIES, 1, str(attempt) if attempt <= ATTEMPTS_MAX else "more")
        if record.gone_phase is not None:
            self._add(CLIENT_DISCONNECTS, 1, record.gone_phase)
        if record.abort_s is not None:
            self._histograms[ABORT.name].at().observe(record.abort_s)
        if record.usage_problem:
            self._add(USAGE_REJECTED, 1, record.usage_problem)
        if record.outcome is not Outcome.SUCCESS and record.output_tokens:
            self._add(WASTED_TOKENS, record.output_tokens, record.outcome)
