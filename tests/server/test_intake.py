from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import orjson
import pytest

from proxy.adapters.inbound import Inbound
from proxy.admission.queue import QueueConfig
from proxy.dispatcher import Dispatcher
from proxy.server.intake import HEADER_MAX_BYTES, HEADERS_MAX, Intake, Models, Rejected
from proxy.server.tenancy import TenancyConfig
from proxy.types import Ticket, Work
from proxy.wire.openai import WHOLE_BYTES_MAX
from proxy.wire.priority import TenantRule
from tests.adapters.shell import CHAT, Shell
from tests.server.edge import ANYBODY, intake_of

KEY = b"k1"
ACME = TenantRule("acme", "normal", "normal", frozenset({"m"}))
KEYED = TenancyConfig({hashlib.sha256(KEY).digest(): ACME}, {}, None, ANYBODY)
Lines = list[tuple[bytes, bytes]]


def asked(
    body: bytes = b'{"model":"m"}', path: str = CHAT, *lines: tuple[bytes, bytes], method: bytes = b"POST", **more: Any
) -> Inbound:
    framing = [(b"content-length", b"%d" % len(body))] if body else []
    inbound = Inbound(100.0, b"192.0.2.7", method, path.encode(), [(b"host", b"proxy"), *framing, *lines])
    for name, value in more.items():
        setattr(inbound, name, value)
    inbound.head_bytes = sum(len(name) + len(value) for name, value in inbound.headers) + len(path)
    inbound.body, inbound.body_bytes, inbound.complete = [body], len(body), True
    return inbound


def run(intake: Intake, inbound: Inbound) -> bytes | Ticket | tuple[int, str] | None:
    """A local answer, a ticket, None for more, or what it is refused with."""
    try:
        local = intake.check_head(inbound)
        return local if local is not None else intake.read_body(inbound)
    except Rejected as rejected:
        return rejected.row.status, rejected.row.code


def rejection(step: Callable[[Inbound], object], inbound: Inbound) -> Rejected:
    with pytest.raises(Rejected) as caught:
        step(inbound)
    return caught.value


LONG = b"x" * (HEADER_MAX_BYTES + 1)


@pytest.mark.parametrize(
    ("inbound", "expected"),
    [
        pytest.param(asked(path="/" + "a" * HEADER_MAX_BYTES), (414, "uri_too_long"), id="long target"),
        pytest.param(asked(b"", CHAT, (b"x", LONG)), (431, "header_too_large"), id="long header"),
        pytest.param(asked(b"", CHAT, *[(b"x", LONG[:8000])] * 9), (431, "header_too_large"), id="long head"),
        pytest.param(asked(b"", CHAT, *[(b"x", b"y")] * HEADERS_MAX), (431, "header_too_large"), id="many headers"),
        pytest.param(asked(version="2.0"), (505, "http_version_not_supported"), id="version"),
        pytest.param(asked(method=b"CONNECT"), (501, "not_implemented"), id="CONNECT"),
        pytest.param(asked(method=b"TRACE"), (501, "not_implemented"), id="TRACE"),
        pytest.param(asked(path="http://h/v1/models"), (400, "invalid_value"), id="absolute form"),
        pytest.param(asked(path="/v1/unknown"), (404, "not_found"), id="unknown path"),
        pytest.param(asked(path="/v1/../v1/models"), (404, "not_found"), id="dots"),
        pytest.param(asked(method=b"GET"), (405, "method_not_allowed"), id="method"),
        pytest.param(asked(path="/health"), (405, "method_not_allowed"), id="method of health"),
        pytest.param(asked(b"", CHAT, (b"host", b"b")), (400, "invalid_header"), id="two hosts"),
        pytest.param(asked(b"", CHAT, (b"content-encoding", b"gzip")), (415, "encoded_body"), id="encoded"),
        pytest.param(asked(b"", CHAT, (b"transfer-encoding", b"gzip")), (501, "not_implemented"), id="coding"),
        pytest.param(asked(b"", CHAT, (b"content-length", b"9999999")), (413, "body_too_large"), id="too large"),
        pytest.param(asked(path="/v1/models/none", method=b"GET"), (404, "model_not_found"), id="no such model"),
        pytest.param(asked(b"{"), (400, "invalid_json"), id="not JSON"),
        pytest.param(asked(b'{"model":7}'), (400, "invalid_value"), id="bad field"),
        pytest.param(asked(b'{"model":"x"}'), (404, "model_not_found"), id="unknown model"),
        pytest.param(asked(b'{"model":"m","n":200}'), (400, "invalid_value"), id="many choices"),
        pytest.param(asked(b"{}", CHAT, (b"x-request-timeout-ms", b"0")), (504, "deadline_exceeded"), id="deadline"),
        pytest.param(asked(path="/v1/audio/transcriptions"), (400, "invalid_header"), id="no boundary"),
        pytest.param(
            asked(b"{}", "/v1/audio/transcriptions", (b"content-type", b"multipart/form-data; boundary=b")),
            (400, "invalid_value"), id="not multipart",
        ),
    ],
)  # fmt: skip
def test_is_refused(inbound: Inbound, expected: tuple[int, str]) -> None:
    shell = Shell()
    assert run(intake_of(shell, max_body_bytes=1_000_000), inbound) == expected
    assert shell.dispatcher.snapshot(shell.now).held == 0


def test_a_rule_that_has_no_row_of_its_own_gets_one() -> None:
    rejected = rejection(intake_of(Shell()).check_head, asked(b"", CHAT, (b"expect", b"x")))
    assert (rejected.row.code, rejected.row.retry, rejected.row.message) == (
        "invalid_header",
        False,
        "Header expect may only be 100-continue.",
    )


@pytest.mark.parametrize(
    ("lines", "model", "expected"),
    [
        ((), b"m", (401, "invalid_api_key")),
        (((b"authorization", b"Bearer wrong"),), b"m", (401, "invalid_api_key")),
        (((b"x-api-key", KEY),), b"n", (403, "model_not_allowed")),
        (((b"authorization", b"Bearer " + KEY),), b"m", "acme"),
        (((b"x-api-key", KEY),), b"m", "acme"),
    ],
)
def test_keys(lines: tuple[tuple[bytes, bytes], ...], model: bytes, expected: object) -> None:
    shell = Shell()
    intake = intake_of(shell, KEYED)
    intake.models = AllModels()
    found = run(intake, asked(b'{"model":"%b"}' % model, CHAT, *lines))
    assert (found.tenant if isinstance(found, Ticket) else found) == expected


class AllModels(Models):
    def knows(self, model: str) -> bool:
        return True

    def sole_model(self) -> str:
        return ""

    def listing(self, model: str | None) -> bytes | None:
        return b"[]"

    def retry_after_s(self) -> float:
        return 7.0


def test_a_key_is_checked_before_the_size_and_drain_after_the_key() -> None:
    intake = intake_of(Shell(), KEYED, max_body_bytes=5)
    intake.draining = True
    assert run(intake, asked()) == (401, "invalid_api_key")
    keyed = asked(b'{"model":"m"}', CHAT, (b"x-api-key", KEY))
    rejected = rejection(intake.check_head, keyed)
    assert (rejected.row.code, rejected.retry_after_s) == ("shutting_down", 5.0)
    intake.draining = False
    assert run(intake, asked(b'{"model":"m"}', CHAT, (b"x-api-key", KEY))) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "method", "lines", "body"),
    [
        ("/health", b"GET", (), {"status": "ok"}),
        ("/health?x=1", b"HEAD", (), None),
        ("/v1/models/m", b"GET", (), {"id": "m", "object": "model", "created": 0, "owned_by": "u0"}),
        ("/v1/models/%6d", b"GET", (), {"id": "m", "object": "model", "created": 0, "owned_by": "u0"}),
        ("/v1/models", b"HEAD", (), None),
    ],
)
def test_is_answered_here(path: str, method: bytes, lines: Lines, body: object) -> None:
    answer = run(intake_of(Shell()), asked(b"", path, (b"x-request-id", b"mine"), method=method))
    assert isinstance(answer, bytes)
    head, _, found = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nx-request-id: mine\r\n" in head
    assert (orjson.loads(found) if found else None) == body


@pytest.mark.parametrize(("keep_alive", "line"), [(True, False), (False, True)])
def test_a_local_answer_says_when_it_is_the_last(keep_alive: bool, line: bool) -> None:
    answer = run(intake_of(Shell()), asked(b"", "/health", method=b"GET", keep_alive=keep_alive))
    assert isinstance(answer, bytes)
    assert (b"connection: close\r\n" in answer) is line


def test_a_ticket_holds_what_was_asked() -> None:
    shell = Shell()
    inbound = asked(
        b'{"model":"m","stream":true,"max_tokens":9,"priority":-5}', CHAT, (b"x-request-timeout-ms", b"2500")
    )
    ticket = run(intake_of(shell), inbound)
    assert isinstance(ticket, Ticket)
    assert (ticket.id, ticket.tenant, ticket.class_index, ticket.model) == (1000, "anonymous", 0, "m")
    assert (ticket.work, ticket.streaming, ticket.estimate.output_cap) == (Work.GENERATE, True, 9)
    assert (ticket.arrived_s, ticket.deadline_s, ticket.retryable) == (100.0, 102.5, True)
    assert (inbound.class_name, inbound.model, inbound.request_id) == ("high", "m", "made-1")
    assert inbound.priority_span is not None
    assert inbound.counted_bytes == ticket.body_bytes == len(inbound.body[0])


@pytest.mark.parametrize(
    ("value", "class_name", "clamped", "unknown"),
    [(b"high", "normal", True, False), (b"normal", "normal", False, False), (b"odd", "normal", False, True)],
)
def test_a_class_above_the_tenants_is_lowered_and_counted(
    value: bytes, class_name: str, clamped: bool, unknown: bool
) -> None:
    inbound = asked(b'{"model":"m"}', CHAT, (b"x-api-key", KEY), (b"x-priority", value))
    assert isinstance(run(intake_of(Shell(), KEYED), inbound), Ticket)
    assert (inbound.class_name, inbound.clamped, inbound.unknown_priority) == (class_name, clamped, unknown)


def test_a_body_without_a_model_takes_the_only_one() -> None:
    intake = intake_of(Shell())
    ticket = run(intake, asked(b"{}"))
    assert isinstance(ticket, Ticket)
    assert ticket.model == "m"
    intake.models = AllModels()
    assert run(intake, asked(b"{}")) == (400, "invalid_value")


def test_an_unprintable_model_is_other_in_logs_and_labels() -> None:
    intake = intake_of(Shell())
    intake.models = AllModels()
    inbound = asked('{"model":"mödel"}'.encode())
    ticket = run(intake, inbound)
    assert isinstance(ticket, Ticket)
    assert (inbound.model, ticket.model) == ("other", "mödel")


def test_a_body_that_does_not_fit_the_queue_is_refused_with_its_wait() -> None:
    shell = Shell()
    intake = intake_of(shell)
    intake.models = AllModels()
    intake.account = Dispatcher(replace(shell.config, queue=QueueConfig(max_bytes=4)), 0.0, Random(7))
    inbound = asked()
    intake.check_head(inbound)
    rejected = rejection(intake.read_body, inbound)
    assert (rejected.row.code, rejected.retry_after_s) == ("queue_full", 7.0)


def test_a_body_still_coming_waits_and_one_too_large_to_parse_is_scanned_in_pieces() -> None:
    intake = intake_of(Shell())
    whole = b'{"messages":"%b","model":"m","stream":true}' % (b"x" * WHOLE_BYTES_MAX)
    inbound = asked(whole)
    intake.check_head(inbound)
    inbound.body, inbound.body_bytes, inbound.complete = [whole[:100]], 100, False
    assert intake.read_body(inbound) is None
    assert inbound.scanner is None
    inbound.body.append(whole[100:-10])
    inbound.body_bytes = len(whole) - 10
    assert intake.read_body(inbound) is None
    assert (inbound.scanned_pieces, inbound.counted_bytes) == (2, len(whole) - 10)
    inbound.body.append(whole[-10:])
    inbound.body_bytes, inbound.complete = len(whole), True
    ticket = intake.read_body(inbound)
    assert ticket is not None
    assert (ticket.model, ticket.streaming, ticket.retryable, ticket.body_bytes) == ("m", True, True, len(whole))


FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'
SOUND = b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'


def test_a_form_becomes_a_ticket_as_soon_as_its_model_is_seen() -> None:
    intake = intake_of(Shell())
    inbound = asked(FORM, "/v1/audio/transcriptions", (b"content-type", b"multipart/form-data; boundary=b"))
    intake.check_head(inbound)
    inbound.body, inbound.body_bytes, inbound.complete = [FORM[:20]], 20, False
    assert intake.read_body(inbound) is None
    inbound.body.append(FORM[20:] + SOUND)
    inbound.body_bytes = len(FORM + SOUND)
    ticket = intake.read_body(inbound)
    assert ticket is not None
    assert (ticket.model, ticket.work, ticket.retryable) == ("m", Work.AUDIO, False)


@pytest.mark.parametrize(("declared", "deadline_s"), [(b"655360", 170.0), (None, 161.0)], ids=["sized", "chunked"])
def test_the_deadline_of_a_body_grows_with_its_size(declared: bytes | None, deadline_s: float) -> None:
    intake = intake_of(Shell())
    framing = (b"content-length", declared) if declared else (b"transfer-encoding", b"chunked")
    inbound = asked(b"", CHAT, framing)
    intake.check_head(inbound)
    inbound.body_bytes = 65_536
    assert intake.body_deadline_s(inbound) == deadline_s
