from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.server import app
from proxy.server.app import StartError, claim_files, serve
from proxy.server.process import Process
from proxy.settings import Settings, load
from tests.adapters.shell import CHAT
from tests.server.edge import post

CERTIFICATES = Path(__file__).parent.parent / "adapters" / "certificates"


class Log:
    """Takes the place of the request log."""

    def __init__(self) -> None:
        self.closed = 0
        self.later: object = None
        self.claimed: list[int] = []

    def request(self, record: object) -> None:
        """Not looked at."""

    def gather(self, later: object) -> None:
        self.later = later

    def adjust(self, level: int, sample_rate: float) -> None:
        """Not looked at."""

    def take_dropped(self) -> int:
        return 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """What one run changes for the whole process is put back."""
    log, before = Log(), gc.get_threshold()
    monkeypatch.setattr(app, "configure", lambda config: log)
    monkeypatch.setattr(app, "claim_files", log.claimed.append)
    yield log
    gc.unfreeze()
    gc.set_threshold(*before)


def settings(**sections: Any) -> Settings:
    base: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": 0, "drain_timeout_s": 0},
        "admin": {"port": 0},
        "upstreams": [{"url": "http://127.0.0.1:9", "engine": "openai", "models": ["m"]}],
    }
    return load(None, {key: {**base.get(key, {}), **value} for key, value in sections.items()} | {
        key: value for key, value in base.items() if key not in sections
    }, {})  # fmt: skip


class Run:
    """What happened while the proxy ran; `acts` are done one after the other once it listens."""

    def __init__(self, *acts: Callable[[], object], **sections: Any) -> None:
        self.acts, self.sections = list(acts), sections
        self.urls: tuple[str, ...] = ()
        self.loaded = 0

    def reload(self) -> Settings:
        self.loaded += 1
        return settings(**self.sections)

    def announce(self, *urls: str) -> None:
        self.urls = urls
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self.acts:
            self.acts.pop(0)()
            asyncio.get_running_loop().call_later(0.001, self._next)

    def __call__(self, **more: Any) -> int:
        return serve(settings(**self.sections), reload=self.reload, announce=self.announce, **more)


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number: int, log: Log) -> None:
    run = Run(send(number))
    with structlog.testing.capture_logs() as told:
        assert run() == 0
    public, admin = run.urls
    assert public.startswith("http://127.0.0.1:")
    assert admin.startswith("http://127.0.0.1:")
    assert public != admin
    assert (log.closed, log.claimed) == (1, [10_000])
    assert log.later is not None
    assert [line["running"] for line in told if line["event"] == "draining"] == [0]
    assert gc.get_threshold() == app.GC_THRESHOLDS


def test_a_second_signal_does_not_wait_for_the_drain(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Process) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Process, "end_service", never)
    assert Run(send(signal.SIGTERM), send(signal.SIGTERM))() == 0


def test_hangup_reloads_and_goes_on(log: Log) -> None:
    run = Run()

    def end_after_reload() -> None:
        (send(signal.SIGTERM) if run.loaded else lambda: run.acts.append(end_after_reload))()

    run.acts = [send(signal.SIGHUP), end_after_reload]
    assert run() == 0
    assert run.loaded == 1


def test_the_operator_ends_it_too(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Process] = []
    start = Process.start

    async def keep(self: Process) -> None:
        made.append(self)
        await start(self)

    monkeypatch.setattr(Process, "start", keep)
    run = Run(lambda: made[0].drain())
    assert run(embedded=True) == 0
    assert made[0].server_info()["simulated"] is True
    assert made[0].drained.is_set()


def test_the_addresses_can_be_called_as_they_are_shown(log: Log) -> None:
    pair = {"cert": str(CERTIFICATES / "valid.pem"), "key": str(CERTIFICATES / "key.pem")}
    run = Run(send(signal.SIGTERM), listen={"host": "0.0.0.0", "tls": pair})
    assert run() == 0
    assert run.urls[0].startswith("https://127.0.0.1:")


def test_arrivals_are_recorded(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "arrivals"

    def ask() -> None:
        host, port = run.urls[0].removeprefix("http://").split(":")
        client.connect((host, int(port)))
        client.sendall(post(b'{"model":"m"}', CHAT))

    with closing(socket.socket()) as client:
        run = Run(ask, lambda: None, send(signal.SIGTERM))
        assert run(record=path) == 0
    assert b'"class":"normal"' in path.read_bytes()


@pytest.mark.parametrize(
    ("soft", "hard", "claimed", "warned"),
    [
        pytest.param(1024, 4096, 264, False, id="enough as it is"),
        pytest.param(100, 4096, 264, False, id="raised to what is needed"),
        pytest.param(100, 200, 200, True, id="raised as far as it goes"),
        pytest.param(100, 100, 100, True, id="nothing to raise"),
        pytest.param(100, resource.RLIM_INFINITY, 264, False, id="raised without a bound"),
        pytest.param(resource.RLIM_INFINITY, resource.RLIM_INFINITY, 264, False, id="no bound at all"),
    ],
)
def test_open_files_are_claimed_for_every_connection(
    soft: int, hard: int, claimed: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: bounds[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: bounds.append(pair))
    with structlog.testing.capture_logs() as told:
        claim_files(100)
    now = bounds[-1][0]
    assert now == claimed or (now in (soft, resource.RLIM_INFINITY) and len(bounds) == 1)
    assert bounds[-1][1] == hard
    assert [(line["allowed"], line["needed"]) for line in told] == ([(claimed, 264)] if warned else [])


# ---- what stops a start ----


def test_a_taken_port_is_told_with_the_remedy(log: Log) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        for section in ("listen", "admin"):
            given = {section: {"port": port}}
            with pytest.raises(StartError, match=rf"^cannot listen: .*{port}.*in use; choose another with --port or"):
                Run(**given)()
    assert log.closed == 2


def test_a_certificate_that_cannot_be_read_is_told(log: Log) -> None:
    with pytest.raises(StartError, match=r"absent\.pem"):
        Run(listen={"tls": {"cert": "absent.pem", "key": "absent.pem"}})()
    assert log.closed == 1


def test_a_record_that_cannot_be_written_is_told(log: Log, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^--record: cannot write .*/absent/a \(No such file or directory\)$"):
        Run()(record=tmp_path / "absent" / "a")
    assert log.closed == 0
