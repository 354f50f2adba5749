from __future__ import annotations

import resource

import pytest

from proxy.server.turned_away import WAIT_S
from tests.adapters.shell import ScriptedTransport
from tests.server.edge import Client, Edge, post


class Opened:
    """What a transport shows of its socket."""

    def fileno(self) -> int:
        return 7


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Edge:
    made = Edge()
    made.short = []  # type: ignore[attr-defined]
    monkeypatch.setattr(made.listener, "short", made.short.append)  # type: ignore[attr-defined]
    whole = ScriptedTransport.get_extra_info
    monkeypatch.setattr(
        ScriptedTransport, "get_extra_info",
        lambda self, name, default=None: Opened() if name == "socket" else whole(self, name, default),
    )  # fmt: skip
    return made


def come(edge: Edge, monkeypatch: pytest.MonkeyPatch, spare: int) -> Client:
    """A client that takes a file after which so many are left."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 + spare, 8 + spare))  # of so few, 8 are kept
    return edge.client()


def test_who_takes_one_of_the_last_files_hears_503_and_goes(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    early = come(edge, monkeypatch, 8)
    late = come(edge, monkeypatch, 7)
    protocol = late.transport.protocol
    assert protocol is not None and protocol is not late.connection
    assert late.take() == b"", "nothing is said before a request"
    protocol.data_received(post())
    protocol.data_received(post())
    assert (late.statuses(), late.transport.ended) == ([503], True)
    edge.shell.settle()
    assert (edge.listener.turned_away, edge.short) == (set(), ["client"])  # type: ignore[attr-defined]
    assert early.send(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").statuses() == [200]
    assert len(edge.listener.connections) == 1


def test_who_says_nothing_is_not_waited_for(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    late = come(edge, monkeypatch, 7)
    edge.listener.sweep()
    assert not late.transport.ended
    edge.shell.now += WAIT_S + 0.1
    edge.listener.sweep()
    edge.shell.settle()
    assert (late.transport.aborted, edge.listener.turned_away) == (True, set())


def test_for_the_very_last_there_is_no_word(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    late = come(edge, monkeypatch, 3)
    assert (late.transport.aborted, edge.short) == (True, ["client"])  # type: ignore[attr-defined]
