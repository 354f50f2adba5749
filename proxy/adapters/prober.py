"""Active health of upstreams: one loop for each, asking a path that answers only when the engine can serve.

`/v1/models` is that path: `/health` is answered by engines that still load. Verdict: `fail_after` misses in a row make
an upstream unhealthy, `pass_after` passes healthy; the very first answer decides at once, and an upstream that was
never healthy is asked again after 0.25 s, doubling up to the interval. Only this verdict speaks of health: a page of
telemetry that fails, lies or hangs makes nothing unhealthy. After a miss the engine may be another one, so all that it
told is asked anew.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from proxy.adapters.fetch import Answer, FetchError, fetch
from proxy.adapters.tasks import Tasks
from proxy.adapters.telemetry import EngineReader, Listing, read_listing
from proxy.types import Telemetry

MODELS_PATH = "/v1/models"
ALIVE_PATH = "/health"  # asked where a server has no model list at all
NO_SUCH_PAGE = (404, 405, 501)
FIRST_RETRY_S = 0.25
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """`engine` is a name of `ENGINES` or `auto`; `models` None means: as the upstream lists them."""

    name: str
    url: str
    engine: str = "auto"
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    path: str = "auto"
    interval_s: float = 5.0
    timeout_s: float = 2.0
    fail_after: int = 3
    pass_after: int = 2
    telemetry_interval_s: float = 1.0
    telemetry_max_age_s: float = 5.0


class ProbeSink(Protocol):
    """What hears of upstreams. Called on the loop's thread; `health`, `models` and `engine` only on a change."""

    def health(self, upstream: str, healthy: bool) -> None: ...
    def models(self, upstream: str, models: tuple[str, ...], raw: list[dict[str, object]]) -> None: ...
    def telemetry(self, upstream: str, telemetry: Telemetry) -> None: ...
    def engine(self, upstream: str, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ProbeState:
    """For the state page. `healthy` None: not asked yet. Errors are short reasons, '' for none."""

    upstream: str
    engine: str
    healthy: bool | None
    last_error: str
    telemetry_error: str
    telemetry_age_s: float | None
    telemetry_fresh: bool


class Verdict:
    """Healthy or not, by counts of answers in a row."""

    def __init__(self, fail_after: int, pass_after: int, healthy: bool | None = None) -> None:
        self.fail_after, self.pass_after = fail_after, pass_after
        self.healthy = healthy
        self.ever_healthy = bool(healthy)
        self.in_a_row = 0  # answers that contradict the verdict

    def heard(self, passed: bool) -> bool:
        """Count one answer; True when the verdict changes."""
        if passed is self.healthy:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        patience = self.pass_after if passed else self.fail_after
        first = self.healthy is None or (passed and not self.ever_healthy)
        if not first and self.in_a_row < patience:
            return False
        self.healthy, self.in_a_row = passed, 0
        self.ever_healthy = self.ever_healthy or passed
        return True


class UpstreamProbe:
    """The loop of one upstream. `turn` does what is due now; the pause between turns is all that `run` adds."""

    def __init__(self, prober: Prober, target: ProbeTarget, healthy: bool | None) -> None:
        self.prober, self.target, self.config = prober, target, prober.config
        self.root = target.url.rstrip("/").removesuffix("/v1")
        self.verdict = Verdict(self.config.fail_after, self.config.pass_after, healthy)
        self.reader = EngineReader(self.get, target.engine, self.config.telemetry_interval_s, prober.stretch)
        self.last_error = ""
        self._due_s = float("-inf")
        self._misses = 0
        self._listing: Listing | None = None
        self._told_models: object = None
        self._told_engine = ""

    def __repr__(self) -> str:
        return f"UpstreamProbe({self.target.name} healthy={self.verdict.healthy} {self.last_error or 'no error'})"

    async def run(self) -> None:
        while True:
            await self.prober.pause(await self.turn())

    async def turn(self) -> float:
        """Probe and read telemetry where due; answers with the seconds until something is due again."""
        clock = self.prober.clock
        if (now := clock()) >= self._due_s:
            await self._probe(now)
        due_s = self._due_s
        if self.verdict.healthy and not self._misses:
            found = await self.reader.turn(clock(), self._listing)
            self._tell_engine()
            if found is not None:
                self.prober.sink.telemetry(self.target.name, found)
            due_s = min(due_s, self.reader.due_s)
        return max(0.0, due_s - clock())

    async def get(self, path: str) -> Answer:
        key = self.target.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else None
        return await fetch(self.prober.session, self.root + path, self.config.timeout_s, headers, self.target.tls)

    async def _probe(self, now: float) -> None:
        try:
            listing = await self._ask()
        except FetchError as error:
            self.last_error = str(error)
            self._misses += 1
            self._due_s = now + self._retry_s()
            self._judge(passed=False)
            return
        self.last_error = ""
        self._due_s = now + self.prober.stretch() * self.config.interval_s
        if self._misses:
            self.reader.restarted()
        self._misses = 0
        self._note(listing, now)
        self._judge(passed=True)

    def _judge(self, passed: bool) -> None:
        if self.verdict.heard(passed):
            self.prober.sink.health(self.target.name, passed)

    def _retry_s(self) -> float:
        interval_s = self.prober.stretch() * self.config.interval_s
        if self.verdict.ever_healthy:
            return interval_s
        return min(interval_s, FIRST_RETRY_S * 2.0 ** min(self._misses - 1, 16))

    async def _ask(self) -> Listing | None:
        """The model list, None where there is none to be had; FetchError when the upstream cannot serve."""
        if self.config.path != "auto":
            expect_success(await self.get(self.config.path))
            try:
                return read_listing((await self.get(MODELS_PATH)).body)
            except FetchError:
                return None
        answer = await self.get(MODELS_PATH)
        if answer.status in NO_SUCH_PAGE:
            expect_success(await self.get(ALIVE_PATH))
            return None
        expect_success(answer)
        listing = read_listing(answer.body)
        if listing is None and self.target.models is None:
            raise FetchError("no model list in the answer")
        return listing

    def _note(self, listing: Listing | None, now: float) -> None:
        """Tell the models where they changed; an upstream without telemetry pages tells through its list alone."""
        self._listing = listing or self._listing
        raw = self._listing.raw if self._listing else ()
        names = self.target.models if self.target.models is not None else tuple(str(entry["id"]) for entry in raw)
        lasting = (names, [{key: value for key, value in entry.items() if key != "created"} for entry in raw])
        if lasting != self._told_models:
            self._told_models = lasting
            self.prober.sink.models(self.target.name, names, list(raw))
        if self.reader.engine is not None and not self.reader.engine.metrics_paths:
            self.prober.sink.telemetry(self.target.name, self.reader.joined(now, self._listing))

    def _tell_engine(self) -> None:
        engine = self.reader.engine
        if engine is not None and engine.name != self._told_engine:
            self._told_engine = engine.name
            self.prober.sink.engine(self.target.name, engine.name)

    def state(self, now: float) -> ProbeState:
        read_at_s = self.reader.read_at_s
        age_s = None if read_at_s is None else now - read_at_s
        return ProbeState(
            upstream=self.target.name,
            engine=self._told_engine,
            healthy=self.verdict.healthy,
            last_error=self.last_error,
            telemetry_error=self.reader.error,
            telemetry_age_s=age_s,
            telemetry_fresh=age_s is not None and age_s <= self.config.telemetry_max_age_s,
        )


def expect_success(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        raise FetchError(f"status {answer.status}")


class Prober:
    """One service loop per upstream, kept by `tasks`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstreams: Iterable[ProbeTarget],
        config: ProbeConfig,
        sink: ProbeSink,
        clock: Callable[[], float],
        tasks: Tasks,
        *,
        rng: random.Random | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.session, self.config, self.sink, self.clock, self.tasks = session, config, sink, clock, tasks
        self.pause = pause
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._targets = tuple(upstreams)
        self._probes: dict[str, UpstreamProbe] = {}
        self._loops: dict[str, asyncio.Task[Any]] = {}

    def start(self) -> None:
        """Begin to probe, on the running loop; the first question goes out at once."""
        self.update(self._targets, self.config)

    def update(self, upstreams: Iterable[ProbeTarget], config: ProbeConfig) -> None:
        """Follow a reload: what is unchanged goes on undisturbed; a verdict outlives all but a change of the URL."""
        wanted = {target.name: target for target in upstreams}
        before, reconfigured = dict(self._probes), config != self.config
        self.config = config
        for name, probe in before.items():
            if reconfigured or wanted.get(name) != probe.target:
                self._stop(name)
        for name, target in wanted.items():
            if name not in self._probes:
                old = before.get(name)
                self._begin(target, old.verdict.healthy if old and old.target.url == target.url else None)

    def close(self) -> None:
        for name in tuple(self._probes):
            self._stop(name)

    def states(self) -> dict[str, ProbeState]:
        now = self.clock()
        return {name: probe.state(now) for name, probe in self._probes.items()}

    def stretch(self) -> float:
        """A factor around 1, so that several proxies and upstreams do not fall into step."""
        return self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _begin(self, target: ProbeTarget, healthy: bool | None) -> None:
        probe = self._probes[target.name] = UpstreamProbe(self, target, healthy)
        self._loops[target.name] = self.tasks.serve(f"probe {target.name}", probe.run)

    def _stop(self, name: str) -> None:
        del self._probes[name]
        self._loops.pop(name).cancel()
