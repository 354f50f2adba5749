"""Answers with a content coding pass as they are, and nothing is read in them."""

from __future__ import annotations

import gzip

from proxy.types import Outcome

from .shell import Shell, said


def test_the_usage_of_an_encoded_answer_is_told_as_unread() -> None:
    shell = Shell()
    _, sink = shell.ask()
    body = gzip.compress(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}')
    shell.answer(said(body, lines=b"Content-Encoding: gzip\r\n"))
    (record,) = shell.records
    assert sink.body == body and b"Content-Encoding: gzip" in sink.head
    assert (record.outcome, record.usage_problem) == (Outcome.SUCCESS, "encoded")
