from __future__ import annotations

from dataclasses import replace
from random import Random

from proxy.adapters.inbound import Inbound
from proxy.admission.queue import QueueConfig
from proxy.dispatcher import Dispatcher
from proxy.types import Outcome, Phase
from proxy.wire.facts import PrioritySpan
from tests.adapters.shell import CHAT, Shell


def test_body_bytes_are_counted_as_they_come_and_released_exactly_once() -> None:
    shell = Shell(checks=False)
    account = Dispatcher(replace(shell.config, queue=QueueConfig(max_bytes=10)), 0.0, Random(7), checks=False)
    inbound = Inbound(0.0)
    inbound.tenant = "acme"
    for size, fits, held in ((4, True, 4), (4, True, 4), (10, True, 10), (11, False, 10)):
        inbound.body_bytes = size
        assert inbound.count_body(account) is fits
        assert account.snapshot(0.0).queue_bytes == held
    inbound.body = [b"x"]
    for _ in range(2):
        inbound.drop_body(account)
        assert (account.snapshot(0.0).queue_bytes, inbound.body, inbound.counted_bytes) == (0, [], 0)


def test_the_body_goes_out_as_it_came_but_for_its_priority() -> None:
    pieces = [b'{"model":"m",', b'"priority":5}']
    inbound = Inbound(0.0, body=pieces)
    assert inbound.body_to_send() is pieces
    inbound.priority_span = PrioritySpan(12, 25, 24, 25)
    assert b"".join(inbound.body_to_send()) == b'{"model":"m"}'


def test_before_the_head_is_read_everything_has_a_plain_answer() -> None:
    inbound = Inbound(5.0)
    assert (inbound.declared_bytes, inbound.error_style) == (0, "openai")
    record = inbound.record(Outcome.HEAD_TIMEOUT, 408, 7.5)
    assert (record.path, record.client_attempt, record.duration_s, record.gone_phase) == ("", 0, 2.5, None)


def test_the_record_says_what_was_decided() -> None:
    shell = Shell()
    inbound = shell.inbound(path="/v1/messages", chunked=True, stream=True)
    assert (inbound.declared_bytes, inbound.error_style) == (None, "anthropic")
    assert shell.inbound(b"1234").declared_bytes == 4
    assert inbound.head is not None
    inbound.head.retry_count = 2
    inbound.clamped = inbound.unknown_priority = True
    record = inbound.record(Outcome.CLIENT_GONE, 499, shell.now + 1.0, Phase.UPLOAD)
    assert (record.path, record.tenant, record.class_name, record.model) == ("/v1/messages", "acme", "normal", "m")
    assert (record.client_attempt, record.gone_phase, record.duration_s) == (2, Phase.UPLOAD, 1.0)
    assert record.clamped and record.unknown_priority and record.streaming
    assert shell.inbound(path=CHAT).record(Outcome.SUCCESS, 200, shell.now).path == CHAT
