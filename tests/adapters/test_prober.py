from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from proxy.adapters.prober import ProbeConfig, Prober, ProbeTarget, UpstreamProbe, Verdict
from proxy.adapters.session import client_session
from proxy.adapters.tasks import Tasks
from proxy.types import Telemetry
from tests.adapters.scripted_engine import ENDLESS, HANG, NOT_FOUND, RESET, ScriptedEngine, reply, scripted_engine

MODELS = reply('{"data":[{"id":"m","created":1,"owned_by":"vllm","max_model_len":4096}]}')
METRICS = reply("vllm:num_requests_running 3\n")
CONFIG = ProbeConfig(timeout_s=0.2)


@dataclass
class Told:
    """A sink that keeps what it hears, in order."""

    events: list[tuple[object, ...]] = field(default_factory=list)

    def health(self, upstream: str, healthy: bool) -> None:
        self.events.append(("health", upstream, healthy))

    def models(self, upstream: str, models: tuple[str, ...], raw: list[dict[str, object]]) -> None:
        self.events.append(("models", upstream, models))

    def telemetry(self, upstream: str, telemetry: Telemetry) -> None:
        self.events.append(("telemetry", upstream, telemetry))

    def engine(self, upstream: str, name: str) -> None:
        self.events.append(("engine", upstream, name))

    def of(self, kind: str) -> list[object]:
        return [event[2] for event in self.events if event[0] == kind]


@dataclass
class Bench:
    """One scripted engine, one prober with a clock that only the test moves."""

    engine: ScriptedEngine
    prober: Prober
    told: Told
    now: list[float]
    paused: asyncio.Queue[float]

    def probe(self, **changes: object) -> UpstreamProbe:
        target = replace(ProbeTarget("one", self.engine.url, engine="vllm"), **changes)  # type: ignore[arg-type]
        return UpstreamProbe(self.prober, target, None)


@asynccontextmanager
async def bench(config: ProbeConfig = CONFIG, **pages: bytes) -> AsyncIterator[Bench]:
    script = {"/v1/models": MODELS, "/metrics": METRICS}
    script |= {"/" + name.replace("__", "/"): page for name, page in pages.items()}
    now, told, paused = [100.0], Told(), asyncio.Queue[float]()

    async def pause(delay_s: float) -> None:
        paused.put_nowait(delay_s)
        await asyncio.Event().wait()

    failures: list[tuple[str, BaseException]] = []
    tasks = Tasks(lambda name, error: failures.append((name, error)))
    async with scripted_engine(script) as engine, client_session() as session:
        rng = random.Random(1)
        prober = Prober(session, [], config, told, lambda: now[0], tasks, rng=rng, pause=pause)
        yield Bench(engine, prober, told, now, paused)
        prober.close()
        await tasks.close()
    assert not failures


def run(test: Callable[[Bench], Awaitable[None]], config: ProbeConfig = CONFIG, **pages: bytes) -> None:
    async def main() -> None:
        async with bench(config, **pages) as found:
            await test(found)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+--+--+---", "+........-"),
        ("+---+-++", "+..-...+"),
        ("---+---+", "-..+..-."),
        ("-+", "-+"),
    ],
)
def test_a_verdict_takes_three_misses_or_two_passes_but_the_first_pass_counts_at_once(
    answers: str, verdicts: str
) -> None:
    verdict, heard = Verdict(fail_after=3, pass_after=2), ""
    for answer in answers:
        heard += answer if verdict.heard(answer == "+") else "."
    assert heard == verdicts


def test_the_first_turn_tells_everything() -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe(engine="auto")
        delay_s = await probe.turn()
        expected = Telemetry(at_s=100.0, running=3, context_tokens=4096, models=("m",), engine="vllm")
        assert bench.told.events == [
            ("models", "one", ("m",)),
            ("health", "one", True),
            ("engine", "one", "vllm"),
            ("telemetry", "one", expected),
        ]
        assert 0.9 <= delay_s <= 1.1
        assert repr(probe) == "UpstreamProbe(one healthy=True no error)"

    run(test)


def test_a_turn_before_anything_is_due_asks_nothing() -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe()
        await probe.turn()
        asked, told = len(bench.engine.asked), len(bench.told.events)
        bench.now[0] += 0.5
        assert 0 < await probe.turn() <= 0.6
        assert (len(bench.engine.asked), len(bench.told.events)) == (asked, told)
        bench.now[0] += 0.7
        await probe.turn()
        assert bench.engine.asked[asked:] == ["/metrics"]

    run(test)


NO_LIST = "no model list in the answer"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply("no", 503), "status 503"),
        (reply("", 302, "Location: /elsewhere\r\n"), "status 302"),
        (reply("no key", 401), "status 401"),
        (reply("<html>", 200), NO_LIST),
        (RESET, "connection reset"),
        (b"", "connection closed"),
        (ENDLESS, "answer above 1 MiB"),
        (HANG, "timeout"),
        (NOT_FOUND, "status 404"),
    ],
)
def test_a_miss_has_its_reason_and_reads_no_telemetry(answer: bytes, reason: str) -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe()
        delay_s = await probe.turn()
        assert bench.told.events == [("health", "one", False)]
        assert (probe.last_error, probe.state(100.0).healthy) == (reason, False)
        assert delay_s == 0.25
        assert {"/metrics", "/elsewhere"}.isdisjoint(bench.engine.asked)

    run(test, replace(CONFIG, timeout_s=0.2), v1__models=answer)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (NOT_FOUND, "status 404"),
        (reply("<html>"), "nothing readable"),
        (reply("vllm:num_requests_running NaN\n"), "nothing readable"),
        (ENDLESS, "answer above 1 MiB"),
        (HANG, "timeout"),
        (RESET, "connection reset"),
    ],
)
def test_dead_telemetry_makes_nothing_unhealthy(page: bytes, reason: str) -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe()
        for _ in range(4):
            await probe.turn()
            bench.now[0] += 20.0
        assert bench.told.of("health") == [True]
        assert bench.told.of("telemetry") == []
        state = probe.state(bench.now[0])
        assert (state.healthy, state.last_error, state.telemetry_error) == (True, "", reason)
        assert (state.telemetry_age_s, state.telemetry_fresh) == (None, False)

    run(test, metrics=page)


def test_an_upstream_never_healthy_is_asked_soon_and_then_less_often() -> None:
    async def test(bench: Bench) -> None:
        probe, delays = bench.probe(), []
        for _ in range(7):
            delays.append(await probe.turn())
            bench.now[0] += delays[-1]
        assert delays[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
        assert all(4.5 <= delay_s <= 5.5 for delay_s in delays[5:])
        bench.engine.pages["/v1/models"] = MODELS
        await probe.turn()
        assert bench.told.of("health") == [False, True]

    run(test, v1__models=reply("loading", 503))


def test_after_a_miss_the_engine_is_recognised_anew() -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe(engine="auto")
        await probe.turn()
        bench.engine.pages["/v1/models"] = RESET
        bench.now[0] += 6
        await probe.turn()
        assert bench.told.of("health") == [True]
        bench.engine.pages |= {"/v1/models": reply('{"data":[{"id":"m","owned_by":"sglang"}]}')}
        bench.engine.pages |= {"/metrics": reply("sglang:num_running_reqs 5\n")}
        bench.now[0] += 6
        await probe.turn()
        assert bench.told.of("engine") == ["vllm", "sglang"]
        found = bench.told.of("telemetry")[-1]
        assert isinstance(found, Telemetry)
        assert (found.engine, found.running) == ("sglang", 5)

    run(test)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ('{"data":[{"id":"m","created":2,"owned_by":"vllm","max_model_len":4096}]}', [("m",)]),
        ('{"data":[{"id":"m","created":1,"owned_by":"vllm","max_model_len":8192}]}', [("m",), ("m",)]),
        ('{"data":[{"id":"m"},{"id":"n"}]}', [("m",), ("m", "n")]),
        ('{"data":[]}', [("m",), ()]),
    ],
)
def test_models_are_told_when_they_change(page: str, told: list[object]) -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe()
        await probe.turn()
        bench.engine.pages["/v1/models"] = reply(page)
        bench.now[0] += 6
        await probe.turn()
        assert bench.told.of("models") == told

    run(test)


@pytest.mark.parametrize(
    ("path", "pages", "models", "told", "error"),
    [
        ("auto", {"v1__models": NOT_FOUND, "health": reply("")}, ("x",), [("x",)], ""),
        ("auto", {"v1__models": NOT_FOUND, "health": reply("", 503)}, ("x",), [], "status 503"),
        ("auto", {"v1__models": reply("<html>")}, ("x",), [("x",)], ""),
        ("/ready", {"ready": reply("ok")}, None, [("m",)], ""),
        ("/ready", {"ready": reply("ok"), "v1__models": RESET}, None, [()], ""),
        ("/ready", {"ready": reply("no", 500)}, None, [], "status 500"),
    ],
)
def test_paths_of_health_and_of_the_model_list(
    path: str, pages: dict[str, bytes], models: tuple[str, ...] | None, told: list[object], error: str
) -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe(models=models)
        await probe.turn()
        assert bench.told.of("models") == told
        assert (bench.told.of("health"), probe.last_error) == ([not error], error)

    run(test, replace(CONFIG, path=path), **pages)


def test_an_engine_without_telemetry_pages_tells_its_context_by_the_model_list() -> None:
    async def test(bench: Bench) -> None:
        await bench.probe(engine="openai").turn()
        expected = Telemetry(at_s=100.0, context_tokens=4096, models=("m",), engine="openai")
        assert bench.told.of("telemetry") == [expected]

    run(test)


def test_the_key_goes_to_the_upstream_alone_and_a_base_path_is_kept() -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe(url=bench.engine.url + "/base/v1/", api_key="sk-1")
        await probe.turn()
        assert bench.engine.asked[0] == "/base/v1/models"
        assert "Authorization: Bearer sk-1\r\n" in bench.engine.heads[0]
        assert "sk-1" not in repr(probe.target) + repr(probe) + repr(probe.state(0.0))

    run(test)


def test_fresh_telemetry_grows_stale() -> None:
    async def test(bench: Bench) -> None:
        probe = bench.probe()
        await probe.turn()
        ages = [(probe.state(now).telemetry_age_s, probe.state(now).telemetry_fresh) for now in (100.0, 105.0, 105.1)]
        assert ages == [(0.0, True), (5.0, True), (pytest.approx(5.1), False)]

    run(test)


def test_a_reload_keeps_what_is_unchanged_and_the_verdict_of_a_known_address() -> None:
    async def test(bench: Bench) -> None:
        target = ProbeTarget("one", bench.engine.url, engine="vllm")
        bench.prober.update([target], CONFIG)
        await bench.paused.get()
        assert list(bench.prober.states()) == ["one"]
        assert len(bench.prober.tasks) == 1
        asked = len(bench.engine.asked)

        bench.prober.update([target], CONFIG)
        assert bench.paused.empty()
        assert len(bench.engine.asked) == asked

        other = replace(target, name="two")
        bench.prober.update([replace(target, models=("x",)), other], CONFIG)
        await bench.paused.get()
        await bench.paused.get()
        assert bench.told.of("health") == [True, True]  # the second is that of `two`
        assert bench.told.of("models") == [("m",), ("x",), ("m",)] or bench.told.of("models") == [
            ("m",),
            ("m",),
            ("x",),
        ]

        bench.prober.update([other], replace(CONFIG, interval_s=9.0))
        await bench.paused.get()
        assert {name: state.healthy for name, state in bench.prober.states().items()} == {"two": True}
        bench.prober.update([replace(other, url="http://127.0.0.1:1")], bench.prober.config)
        await bench.paused.get()
        assert bench.told.of("health")[-1] is False
        assert bench.prober.states()["two"].last_error == "refused"

    run(test)


def test_start_begins_with_the_given_upstreams_and_close_ends_them() -> None:
    async def test(bench: Bench) -> None:
        first = bench.prober
        tasks = Tasks(lambda name, error: None)
        target = ProbeTarget("one", bench.engine.url)
        prober = Prober(first.session, [target], CONFIG, bench.told, first.clock, tasks, pause=first.pause)
        prober.start()
        await bench.paused.get()
        prober.close()
        assert prober.states() == {}
        await tasks.close()
        assert bench.told.of("health") == [True]

    run(test)
