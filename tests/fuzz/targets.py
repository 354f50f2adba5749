"""What must hold for any bytes whatever. Each target is one property; Hypothesis and atheris both drive them.

The first bytes say where the rest is cut: however a body, an answer or a request is cut, it means the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import h11
import orjson

from proxy.adapters.engines import ENGINES
from proxy.settings import ConfigError, load
from proxy.types import Outcome, WorkEstimate
from proxy.wire.errors import BadRequest
from proxy.wire.facts import RequestFacts
from proxy.wire.headers import HeadReader
from proxy.wire.multipart import MultipartScanner
from proxy.wire.openai import read_body
from proxy.wire.priority import ClassRule, TenantRule, choose_class
from proxy.wire.routes import ROUTES
from proxy.wire.scan import DEPTH_MAX, BodyScanner
from proxy.wire.usage import StreamEnd, StreamTail
from tests.adapters.shell import Shell, said
from tests.server.edge import Edge

COMPLETIONS = ROUTES[b"/v1/completions"]
CUTS_MAX = 4
CLASSES = (ClassRule("high", -1, frozenset({"priority"})), ClassRule("low", None, frozenset({"flex"})))
TENANT = TenantRule("any", "low", "high")


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """What is fuzzed, and its pieces."""
    count = data[0] % (CUTS_MAX + 1) if data else 0
    marks, rest = data[1 : 1 + 2 * count], data[1 + 2 * count :]
    places = [int.from_bytes(marks[at : at + 2], "big") % (len(rest) + 1) for at in range(0, len(marks) - 1, 2)]
    edges = sorted({0, len(rest), *places})
    return rest, [rest[start:end] for start, end in pairwise(edges)]


# ---- bodies ----
def _scanned(pieces: list[bytes]) -> RequestFacts | str:
    scanner = BodyScanner(COMPLETIONS)
    try:
        for piece in pieces:
            scanner.feed(piece)
        return scanner.finish()
    except BadRequest as bad:
        return bad.code


def _read(body: bytes) -> RequestFacts | str:
    try:
        return read_body(body, COMPLETIONS)
    except BadRequest as bad:
        return bad.code


def body(data: bytes) -> None:
    """The scanner of long bodies tells what the full parser tells, or refuses for a bound that only it has."""
    whole, pieces = cut(data)
    scanned, read = _scanned(pieces), _read(whole)
    assert scanned == _scanned([whole])
    if isinstance(scanned, RequestFacts) and isinstance(read, RequestFacts):
        assert scanned == read
    elif isinstance(scanned, str) and isinstance(read, RequestFacts):
        assert whole.count(b"[") + whole.count(b"{") >= DEPTH_MAX or len(whole) > 256, (scanned, read)
    elif isinstance(scanned, RequestFacts) and isinstance(read, str):
        # It skips what it does not read, so it may pass what is broken deep inside: then the engine refuses it.
        assert read == "invalid_json", (scanned, read)


def form(data: bytes) -> None:
    """The form reader is indifferent to cuts."""
    whole, pieces = cut(data)

    def found(parts: list[bytes]) -> tuple[str | None, bool | None] | str:
        scanner = MultipartScanner(b"b")
        try:
            for part in parts:
                scanner.feed(part)
            scanner.facts(True, ROUTES[b"/v1/audio/transcriptions"], len(whole))
        except BadRequest as bad:
            return bad.code
        return scanner.model, scanner.stream

    assert found(pieces) == found([whole])


# ---- streams ----
def tail(data: bytes) -> None:
    """What the end of an answer tells does not depend on its cuts, and its counts are whole and not negative."""
    whole, pieces = cut(data)
    for route in (ROUTES[b"/v1/chat/completions"], ROUTES[b"/v1/responses"], ROUTES[b"/v1/messages"]):

        def end(parts: list[bytes], streamed: bool) -> StreamEnd:
            kept = StreamTail()
            for part in parts:
                kept.add(part)
                assert kept.count(part, route) >= 0  # noqa: B023 - called within this turn
            return kept.verdict(route, streamed)  # noqa: B023

        for streamed in (True, False):
            found = end(pieces, streamed)
            if not route.stores:  # it watches for the terminal event only once output has been counted
                assert found == end([whole], streamed)
            usage = found.usage
            assert usage is None or min(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) >= 0


# ---- the two connections ----
def request(data: bytes) -> None:
    """Any bytes from a client: no exception, the same answers in any cut, and upstream only whole, clean requests.

    A refusal ends the connection if the body of its request has not been read yet, and that depends on the cut.
    """
    whole, pieces = cut(data)
    (few, sent_few), (many, sent_many) = sorted((_served(pieces), _served([whole])), key=lambda one: len(one[0]))
    assert few == many[: len(few)]
    assert sent_few == sent_many[: len(sent_few)]
    assert len(few) == len(many) or few[-1] >= 400, (few, many)


def _served(pieces: list[bytes]) -> tuple[list[int], list[bytes]]:
    edge = Edge(Shell(seats=4))
    client = edge.client()
    statuses: list[int] = []
    forwarded: list[bytes] = []
    for piece in pieces:
        if client.transport.ended:
            break
        client.send(piece)
        _answer_all(edge.shell, forwarded)
        statuses += [status for status in client.statuses() if status >= 200]
    client.leave()
    assert not edge.errors, edge.errors
    assert edge.shell.clean(), "something is held"
    return statuses, forwarded


def _answer_all(shell: Shell, forwarded: list[bytes]) -> None:
    """Answer what upstream got whole, until nothing more comes."""
    made = shell.dials[0].made
    while busy := [one for one in made if one.exchange is not None and one.whole]:
        for connection in busy:
            transport = connection.transport
            written = transport.take()  # type: ignore[union-attr]
            forwarded.append(_one_request(written))
            connection.data_received(said())
            shell.settle()


def _one_request(written: bytes) -> bytes:
    """Exactly one request for an independent, strict parser; answers with its body."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(written)
    assert isinstance(server.next_event(), h11.Request), written
    found = bytearray()
    while isinstance(event := server.next_event(), h11.Data):
        found += event.data
    assert isinstance(event, h11.EndOfMessage), written
    rest, _ = server.trailing_data
    assert not rest, f"bytes behind the request: {rest!r}"
    return bytes(found)


def answer(data: bytes) -> None:
    """Any bytes from an engine: one ending, nothing held, and to the client a whole answer or a visible cut."""
    _, pieces = cut(data)
    edge = Edge(Shell(seats=1))
    client = edge.client(
        b'POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: 27\r\n\r\n{"model":"m","stream":true}'
    )
    connection = edge.shell.upstream()
    for piece in pieces:
        if connection.transport is None or connection.transport.is_closing():
            break
        connection.data_received(piece)
        edge.shell.settle()
    if connection.exchange is not None:
        edge.shell.lose()
    assert edge.shell.clean(), "something is held"
    assert len(edge.shell.records) == 1
    record = edge.shell.records[0]
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "p")]))
    reader.receive_data(client.take())
    head = reader.next_event()
    while isinstance(head, h11.InformationalResponse):
        head = reader.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == record.status
    while isinstance(event := reader.next_event(), h11.Data):
        pass
    complete = isinstance(event, h11.EndOfMessage)
    assert complete or client.transport.ended, "neither whole nor cut"
    assert complete or record.outcome is not Outcome.SUCCESS


# ---- values ----
def head(data: bytes) -> None:
    """Header values are read or refused; what is forwarded cannot start a line of its own."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    try:
        facts = HeadReader().read([(b"Host", b"p")] + [(name or b"x", value) for name, _, value in lines])
    except BadRequest as bad:
        assert 400 <= bad.status < 600
        return
    assert b"\n" not in facts.block.replace(b"\r\n", b"")
    assert facts.content_length is None or facts.content_length >= 0
    choice = choose_class(CLASSES, TENANT, facts.priorities, RequestFacts("m", False, WorkEstimate(), True))
    assert 0 <= choice.class_index < len(CLASSES)


def configuration(data: bytes) -> None:
    """Any file is a configuration or a list of one-line faults."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "penstock.yaml"
        path.write_bytes(data)
        try:
            load(path, {}, {})
        except ConfigError as error:
            assert error.lines
            assert all(line and "\n" not in line for line in error.lines), error.lines


def telemetry(data: bytes) -> None:
    """What engines tell of themselves is read or left out; never an exception, never a negative count."""
    try:
        document: object = orjson.loads(data)
    except ValueError:
        document = None
    text = data.decode("utf-8", "replace")
    for engine in ENGINES.values():
        for told in (engine.parse_metrics(text, 1.0), engine.parse_info(document, 1.0)):
            counts = (
                told.running,
                told.waiting,
                told.preemptions,
                told.kv_tokens,
                told.running_cap,
                told.context_tokens,
            )
            assert all(number is None or number >= 0 for number in counts)
            assert told.kv_usage is None or 0 <= told.kv_usage <= 1


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (body, form, tail, request, answer, head, configuration, telemetry)
}  # fmt: skip
