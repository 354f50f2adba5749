from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest
import structlog

from proxy.adapters.histograms import Family
from proxy.adapters.metrics import FAULTS, LOG_DROPPED, RELOADS, REQUESTS
from proxy.adapters.records import RequestRecord
from proxy.server import process as module
from proxy.settings import ConfigError, Settings
from proxy.types import Outcome, Telemetry
from tests.adapters.shell import LAST_CHUNK
from tests.server.edge import post, stream, until
from tests.server.whole import Engine, Sections, World, engine, play, settings

ENDED = RequestRecord("r-1", "/v1/chat/completions", Outcome.SUCCESS, 200, 0.1, class_name="high")
NO_PLAN = {"model": "absent", "accelerator": "h100-sxm"}


@pytest.fixture(autouse=True)
def told() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def counted(world: World, family: Family) -> dict[tuple[str, ...], object]:
    return dict(next(one.values for one in world.process.metrics.copy() if one.family is family))


# ---- life ----


def test_a_request_goes_through_and_is_counted_logged_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.jsonl"

    async def whole() -> World:
        async with Engine() as upstream:
            world = World(settings(engine(upstream.url)), path)
            await world.process.start()
            upstream.go.set()
            await until(lambda: world.process.ready()[0])
            answer = await world.connect(stream("connection: close"))
            assert (await answer.read()).endswith(LAST_CHUNK)
            await world.close()
            return world

    world = asyncio.run(whole())
    assert world.outcomes() == ["success"]
    assert {name: number for name, number in world.process.outcomes().items() if number} == {"success": 1}
    assert orjson.loads(path.read_bytes())["class"] == "normal"
    assert len(world.process.tasks) == 0


def test_a_port_that_is_taken_is_an_error_and_all_is_let_go() -> None:
    async def scene(world: World) -> None:
        await world.process.start()
        taken = settings(engine(), listen={"host": "127.0.0.1", "port": world.process.listener.port})
        second = World(taken)
        with pytest.raises(OSError, match="in use"):
            await second.process.start()
        await second.close()
        assert len(second.process.tasks) == 0

    play(scene)


def test_housekeeping_counts_lost_lines_and_gives_up_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[Any]
) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_S", 0.0)

    async def scene(world: World) -> None:
        recorder = world.process.recorder
        assert recorder is not None
        world.log.dropped = 3
        await world.process.start()
        world.process.record(ENDED)
        await until(lambda: (tmp_path / "r").stat().st_size and not world.log.dropped)
        recorder.failed = OSError(28, "No space left on device")
        await until(lambda: world.process.recorder is None)
        world.process.record(ENDED)
        recorder.close()

    world = play(scene, recorder=tmp_path / "r")
    assert [line["reason"] for line in told if line["event"] == "recording stopped"] == ["No space left on device"]
    assert len(world.log.records) == 2
    assert counted(world, LOG_DROPPED) == {(): 3.0}


def test_a_task_that_fails_is_told() -> None:
    async def scene(world: World) -> None:
        async def broken() -> None:
            raise RuntimeError("oh")

        await asyncio.wait({world.process.tasks.start("one", broken())})

    with structlog.testing.capture_logs() as lines:
        world = play(scene)
    assert [(line["task"], line["kind"]) for line in lines] == [("one", "RuntimeError")]
    assert counted(world, FAULTS)["other",] == 1


def test_what_cannot_be_logged_is_told_and_holds_nobody_up() -> None:
    async def scene(world: World) -> None:
        world.log.request = None  # type: ignore[assignment]
        world.process.record(ENDED)

    with structlog.testing.capture_logs() as lines:
        world = play(scene)
    assert [line["task"] for line in lines] == ["record"]
    assert counted(world, FAULTS)["record",] == 1


@pytest.mark.parametrize(("service", "ready"), [("gate", False), ("listener", False), ("probe one", True)])
def test_it_is_not_ready_while_what_keeps_deadlines_and_limits_is_down(service: str, ready: bool) -> None:
    async def scene(world: World) -> None:
        async def fails() -> None:
            raise RuntimeError

        world.process.health("one", True)
        world.process.tasks.serve(service, fails)
        await until(lambda: world.process.tasks.restarting() == [service])
        found, reason = world.process.ready()
        assert (found, reason.startswith("restarting")) == (False, not ready)
        assert world.process.server_info()["restarting"] == [service]

    with structlog.testing.capture_logs():
        play(scene)


# ---- out of service ----


async def serve_one(
    listen: Sections, then: Callable[[World, Engine, asyncio.StreamReader], Coroutine[Any, Any, None]]
) -> World:
    """A stream that runs and a request that waits behind it, on one seat."""
    async with Engine() as upstream:
        address = {"host": "127.0.0.1", "port": 0, **listen}
        one_seat = {"mode": "fixed", "initial": 1}
        world = World(settings(engine(upstream.url, limit=one_seat), listen=address))
        await world.process.start()
        await until(lambda: world.process.ready()[0])
        running = await world.connect(stream())
        await upstream.asked.wait()
        await then(world, upstream, running)
        await world.close()
        return world


def test_a_drain_refuses_what_waits_and_lets_finish_what_runs() -> None:
    async def then(world: World, upstream: Engine, running: asyncio.StreamReader) -> None:
        waiting = await world.connect(post())
        await until(lambda: world.process.snapshot(0).classes[2].queued)
        world.process.drain()
        assert world.process.ready() == (False, "draining")
        assert world.process.server_info()["draining"]
        ending = world.process.tasks.start("end", world.process.end_service())
        assert (await waiting.read()).startswith(b"HTTP/1.1 503 ")
        assert not ending.done()
        upstream.go.set()
        assert (await running.read()).endswith(LAST_CHUNK)
        await ending
        assert world.process.drained.is_set()

    world = asyncio.run(serve_one({"drain_delay_s": 0.001}, then))
    assert world.outcomes() == ["shutting_down", "success"]


def test_what_runs_longer_than_the_drain_is_ended() -> None:
    async def then(world: World, upstream: Engine, running: asyncio.StreamReader) -> None:
        await world.process.end_service()
        assert b"shutting_down" in await running.read()
        assert not world.process.listener.busy()

    assert asyncio.run(serve_one({"drain_timeout_s": 0}, then)).outcomes() == ["shutting_down"]


# ---- what the prober hears ----


def test_readiness_needs_an_upstream_that_is_healthy() -> None:
    async def scene(world: World) -> None:
        assert world.process.ready() == (False, "no usable upstream")
        world.process.health("e", False)
        assert not world.process.dispatcher.usable()
        world.process.health("e", True)
        assert world.process.dispatcher.usable()
        assert world.process.ready() == (False, "no usable upstream")  # nobody has asked it yet

    play(scene)


def test_telemetry_keeps_the_models_that_were_listed() -> None:
    async def scene(world: World) -> None:
        process = world.process
        process.telemetry("e", Telemetry(at_s=process.clock(), running=3))
        assert process.dispatcher.models() == {}
        process.models("e", ("late",), [{"id": "late", "owned_by": "x"}])
        process.telemetry("e", Telemetry(at_s=process.clock(), running=4))
        assert process.told["e"].models == ("late",)
        process.record(replace(ENDED, model="late"))
        assert counted(world, REQUESTS) == {("late", "high", "success"): 1.0}
        assert process.dispatcher.models() == {"late": ("e",)}
        assert b'"owned_by":"x"' in (process.catalog.listing("late") or b"")
        told = process.snapshot(process.clock()).upstreams[0].telemetry
        assert told is not None
        assert told.running == 4

    play(scene, settings(engine(models="auto")))


def test_a_recognised_engine_changes_how_its_aborts_are_counted() -> None:
    async def scene(world: World) -> None:
        for name, slow in (("vllm", False), ("sglang", True)):
            world.process.engine("e", name)
            assert world.process.dispatcher._board.stations["e"].config.slow_abort is slow

    play(scene)


# ---- what the operator may ----


def test_what_the_operator_sees() -> None:
    async def scene(world: World) -> None:
        process = world.process
        await process.start()
        info = process.server_info()
        assert (info["simulated"], info["draining"], info["connections"]) == (True, False, 0)
        assert info["listen"] == f"127.0.0.1:{process.listener.port}"
        assert info["config_hash"] == process.settings.hash()
        assert info["upstreams"]["e"]["healthy"] is None
        assert {name: goal.itl_s for name, goal in process.targets().items()} == {"e": 0.05}

    play(scene)


def test_what_the_operator_may_do_to_an_upstream() -> None:
    async def scene(world: World) -> None:
        process = world.process

        process.hold_limit("e", 3)
        for draining in (True, False):
            process.drain_upstream("e", draining)
            one = process.snapshot(process.clock()).upstreams[0]
            assert (one.limit, one.draining) == (3, draining)
        with pytest.raises(LookupError):
            process.hold_limit("absent", 1)
        with pytest.raises(LookupError):
            process.drain_upstream("absent", True)

    play(scene)


# ---- reload ----


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ConfigError(["penstock.yaml:3: classes: wrong"]), "penstock.yaml:3: classes: wrong"),
        (OSError(2, "No such file or directory"), "No such file"),
        (settings(engine("https://a", tls={"ca": "absent.pem"})), "tls.ca"),
        (settings(engine(memory={"source": "plan", "plan": NO_PLAN})), "absent"),
    ],
    ids=["configuration", "file", "certificate", "plan"],
)
def test_a_bad_reload_changes_nothing_and_says_why(fault: Settings | Exception, reason: str, told: list[Any]) -> None:
    async def scene(world: World) -> None:
        process = world.process
        before = (process.settings, process.listener.intake, process.dispatcher.models(), list(process.prober.states()))
        world.loads.append(fault)
        applied, message = await process.reload()
        assert not applied
        assert reason in message
        after = (process.settings, process.listener.intake, process.dispatcher.models(), list(process.prober.states()))
        assert after == before
        assert counted(world, RELOADS) == {("applied",): 0.0, ("invalid",): 1.0}

    play(scene)
    assert [reason in line["reason"] for line in told] == [True]


def test_a_reload_reaches_every_part() -> None:
    async def scene(world: World) -> None:
        process = world.process
        process.models("e", (), [])
        process.catalog.listed("e", [{"id": "m"}])
        process.listener.intake.draining = True
        ids = process.listener.intake.ticket_ids
        more: Sections = {"limits": {"max_choices": 2}, "queue": {"keepalive_s": 5}, "target": {"itl_ms": 9}}
        more["log"] = {"level": "warning", "sample_rate": 0.5}
        after = settings(engine("http://127.0.0.1:10", "f"), listen={"host": "127.0.0.1", "port": 1}, **more)
        world.loads.append(after)
        assert await process.reload() == (True, "applied; needs a restart: listen.port")
        assert process.settings is after
        assert (process.told, process.catalog._raw) == ({}, {})
        assert process.listener.intake.config.max_choices == 2
        assert (process.listener.intake.draining, process.listener.intake.ticket_ids) == (True, ids)
        assert process.listener.relay.keepalive_s == 5
        assert world.log.adjusted == [(logging.WARNING, 0.5)]
        assert process.fleet.caps("f").good_tpot_s == 0.009
        assert list(process.prober.states()) == ["f"]
        assert process.dispatcher.models() == {"m": ("f",)}
        assert counted(world, RELOADS) == {("applied",): 1.0, ("invalid",): 0.0}
        world.loads.append(after)
        assert await process.reload() == (True, "applied")

    play(scene)


def test_of_several_reloads_the_last_one_holds() -> None:
    """The file is read in a thread; a slow first read must not undo a later one."""
    first_may_end = Event()

    async def scene(world: World) -> None:
        old, new = settings(engine(), target={"itl_ms": 11}), settings(engine(), target={"itl_ms": 22})
        given = iter((old, new))

        def read() -> Settings:
            found = next(given)
            if found is old:
                first_may_end.wait(5)
            return found

        world.process._load = read
        asked = [world.process.tasks.start(name, world.process.reload()) for name in ("first", "second")]
        for _ in range(50):
            await asyncio.sleep(0)
        first_may_end.set()
        await asyncio.wait(asked)
        assert world.process.settings.target.itl_ms == 22

    play(scene)
