"""Reads what one engine tells about itself: finds out which engine it is, then asks the pages that it has.

A page that does not answer readably is asked less often, up to every tenth interval, and never disturbs traffic: what
was last read simply grows old. Live values and capacity are joined into one `Telemetry`; what the model list tells
(`max_model_len`) fills the gaps. After a restart, seen by a counter that went back or told by the prober, everything
is asked anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.adapters.engines import ENGINES
from proxy.adapters.engines.base import Engine, at, items, largest, merged, size, tells_nothing
from proxy.adapters.engines.detect import PAGES, Page, document, fingerprint
from proxy.adapters.fetch import Answer, FetchError
from proxy.types import Telemetry

Get = Callable[[str], Awaitable[Answer]]

INFO_INTERVAL_S = 60.0
LONGEST_WAIT_INTERVALS = 10
MODELS_MAX = 1000  # a list of adapters may be long, but every entry becomes a route
NAME_MAX_CHARS = 256


@dataclass(frozen=True, slots=True)
class Listing:
    """A model list as an upstream gave it. `raw` holds the entries whose id is in `models`, in the same order."""

    models: tuple[str, ...]
    raw: tuple[dict[str, object], ...]

    @property
    def context_tokens(self) -> int | None:
        return largest(size(entry.get("max_model_len")) for entry in self.raw)


def read_listing(body: bytes) -> Listing | None:
    """OpenAI's shape, `{"data": [{"id": ...}]}`; None where it is something else. Unusable names are left out."""
    found = document(body)
    if not isinstance(at(found, "data"), list):
        return None
    entries: dict[str, dict[str, object]] = {}
    for entry in items(found, "data"):
        name = at(entry, "id")
        if isinstance(entry, dict) and isinstance(name, str) and 0 < len(name) <= NAME_MAX_CHARS and name.isprintable():
            entries.setdefault(name, entry)
    kept = list(entries.items())[:MODELS_MAX]
    return Listing(tuple(name for name, _ in kept), tuple(entry for _, entry in kept))


class Due:
    """When a page is to be asked next: every interval, and after n failures in a row every 2^n, ten at most."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.at_s = float("-inf")
        self._failures = 0

    def done(self, ok: bool, now: float, stretch: float) -> None:
        self._failures = 0 if ok else min(self._failures + 1, LONGEST_WAIT_INTERVALS)
        self.at_s = now + stretch * self.interval_s * min(2**self._failures, LONGEST_WAIT_INTERVALS)


class EngineReader:
    """One upstream's engine. `turn` does what is due and answers with a fresh `Telemetry`, or None."""

    def __init__(self, get: Get, engine: str, interval_s: float, stretch: Callable[[], float]) -> None:
        """`get` asks a path of the upstream; `stretch` gives a factor around 1 that keeps proxies out of step."""
        self.get = get
        self.configured = engine
        self.interval_s = interval_s
        self.stretch = stretch
        self.restarted()

    def restarted(self) -> None:
        """Forget all that a restart may have changed."""
        self.engine: Engine | None = ENGINES.get(self.configured)
        self.error = ""
        self.read_at_s: float | None = None
        self._live: Telemetry | None = None
        self._metrics_path = ""
        self._detection, self._live_due = Due(self.interval_s), Due(self.interval_s)
        self._forget_info()

    def _forget_info(self) -> None:
        self._info: Telemetry | None = None
        self._info_due = Due(INFO_INTERVAL_S)

    @property
    def due_s(self) -> float:
        """When `turn` has something to do next."""
        if self.engine is None:
            return self._detection.at_s
        dues = [self._info_due.at_s] if self.engine.info_paths else []
        dues += [self._live_due.at_s] if self.engine.metrics_paths else []
        return min(dues, default=float("inf"))

    async def turn(self, now: float, listing: Listing | None) -> Telemetry | None:
        if self.engine is None and now >= self._detection.at_s:
            await self._detect(now)
        engine, fresh = self.engine, False
        if engine is not None and engine.info_paths and now >= self._info_due.at_s:
            fresh = await self._read_info(engine, now)
        if engine is not None and engine.metrics_paths and now >= self._live_due.at_s:
            fresh = await self._read_live(engine, now) or fresh
        return self.joined(now, listing) if fresh else None

    def joined(self, now: float, listing: Listing | None) -> Telemetry:
        """All that is known now; live values are left out once they cannot be read."""
        named = Telemetry(at_s=now, engine=self.engine.name if self.engine else "")
        listed = Telemetry(at_s=now, models=listing.models, context_tokens=listing.context_tokens) if listing else None
        return merged(named, self._live, self._info, listed)

    async def _detect(self, now: float) -> None:
        pages: dict[str, Page] = {}
        try:
            for path in PAGES:
                answer = await self.get(path)
                pages[path] = Page(answer.body if answer.status == 200 else b"", answer.server)
                if name := fingerprint(pages):
                    self.engine = ENGINES[name]
                    return
        except FetchError as error:
            self.error = str(error)
        self._detection.done(False, now, self.stretch())

    async def _read_info(self, engine: Engine, now: float) -> bool:
        found, error = await self._first(engine.info_paths, lambda body: engine.parse_info(document(body), now))
        if found:
            self._info = found[1]
        if not engine.metrics_paths:
            self.read_at_s, self.error = (now, "") if found else (self.read_at_s, error)
        self._info_due.done(found is not None, now, self.stretch())
        return found is not None

    async def _read_live(self, engine: Engine, now: float) -> bool:
        def parse(body: bytes) -> Telemetry:
            if body[:1] in (b"{", b"["):
                return engine.parse_info(document(body), now)
            return engine.parse_metrics(body.decode(errors="replace"), now)

        paths = (self._metrics_path,) if self._metrics_path else engine.metrics_paths
        found, self.error = await self._first(paths, parse)
        before, self._live = self._live, found[1] if found else None
        self._metrics_path = found[0] if found else ""
        if found:
            self.read_at_s = now
            if went_back(before, found[1]):
                self._forget_info()
        self._live_due.done(found is not None, now, self.stretch())
        return found is not None

    async def _first(
        self, paths: tuple[str, ...], parse: Callable[[bytes], Telemetry]
    ) -> tuple[tuple[str, Telemetry] | None, str]:
        """The first of `paths` that tells something and what that is, else the reason why the last did not."""
        error = ""
        for path in paths:
            try:
                answer = await self.get(path)
            except FetchError as failure:
                error = str(failure)
                continue
            found = parse(answer.body) if answer.status == 200 else None
            if found is not None and not tells_nothing(found):
                return (path, found), ""
            error = f"status {answer.status}" if found is None else "nothing readable"
        return None, error


def went_back(before: Telemetry | None, after: Telemetry) -> bool:
    """A counter that falls has begun anew: the engine was restarted between two probes."""
    if before is None or before.preemptions is None or after.preemptions is None:
        return False
    return after.preemptions < before.preemptions
