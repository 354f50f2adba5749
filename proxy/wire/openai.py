"""Request bodies up to 1 MiB: validated by one parse, in large ones without the insides of long strings, then only the
keys that matter are looked at.

A duplicate key would let us and the engine act on different values, since JSON parsers differ in which one wins. A body
that equals its own compact re-encoding has none; this is how the common clients write. Otherwise counting decides: each
quoted key stands once in the bytes, and no letter is written as `\\u00XX`. Bodies where neither holds, and those with
embedded media or a priority whose place must be known, go through the scanner.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from proxy.wire.errors import invalid_json
from proxy.wire.facts import KEYS, MEDIA_BODY_BYTES_MIN, MEDIA_BYTES_MIN, RequestFacts, build_facts
from proxy.wire.routes import Route
from proxy.wire.scan import BodyScanner
from proxy.wire.shorten import shortened

WHOLE_BYTES_MAX: Final = 1_048_576  # bodies above this are scanned piece by piece

_loads: Final = orjson.loads  # bound once: compiled, a module's function is looked up by name, twice
_dumps: Final = orjson.dumps
BACKSLASH: Final = ord("\\")
_MARKS: Final = {key: b'"' + key.encode() + b'"' for key in KEYS}
BYTES_PER_LOOK: Final = 2000  # searched in the time that it takes to look at one message
_PLAIN_MESSAGE: Final = {"role", "content"}
_ESCAPED_LETTER: Final = re.compile(rb"\\u00(?:5[fF]|6[1-9a-fA-F]|7[0-9aA])")


def read_body(body: bytes, route: Route, max_choices: int = 128) -> RequestFacts:
    """The facts of one whole JSON body; BadRequest (400 invalid_json or invalid_value) where it must be refused."""
    large = len(body) >= MEDIA_BODY_BYTES_MIN
    text = (shortened(body) if large else None) or body
    try:
        document = _loads(text)
    except ValueError:
        raise invalid_json("The body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise invalid_json("The body must be a JSON object.")
    if (
        "priority" in document
        or (large and text is body and _may_hold_media(document, body))
        or (not _is_unambiguous(document, text) and _may_repeat(document, text))
    ):
        scanner = BodyScanner(route, max_choices)
        scanner.feed(body)
        return scanner.finish()
    prompt = document.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list | dict) else 1
    return build_facts(document, len(body), None, prompts, None, route, max_choices)


def _may_hold_media(document: dict[str, object], body: bytes) -> bool:
    """The cheaper question first: a look at each message, or at each byte."""
    messages = document.get("messages")
    if isinstance(messages, list) and len(messages) * BYTES_PER_LOOK > len(body):
        return body.rfind(b'"data') >= 0 and not _is_text(document)
    return not _is_text(document) and body.rfind(b'"data') >= 0


def _is_text(document: dict[str, object]) -> bool:
    """Whether a document holds nothing but short values and plain messages, so that no media has to be looked for."""
    for key, value in document.items():
        if key == "messages" and isinstance(value, list):
            if not all(isinstance(one, dict) and _is_plain_message(one) for one in value):
                return False
        elif isinstance(value, list | dict) or (isinstance(value, str) and len(value) >= MEDIA_BYTES_MIN):
            return False
    return True


def _is_plain_message(message: dict[str, object]) -> bool:
    return message.keys() <= _PLAIN_MESSAGE and not isinstance(message.get("content"), list | dict)


def _is_unambiguous(document: dict[str, object], body: bytes) -> bool:
    """Whether no key stands twice, at any depth: the body equals its re-encoding, or has as many quotes.

    Only `\\u0022` is a quote that an encoder writes otherwise, and what is dropped as a repetition has at least two.
    """
    try:
        encoded = _dumps(document)
    except TypeError:  # the encoder gives up at a depth of 254, the parser at 1024
        return False
    if encoded == body:
        return True
    # `rfind` is several times as fast as `in` for more than one sign, and a number for a single one: bytes that are
    # looked for are first taken for a number, and the error thrown away.
    return (BACKSLASH not in body or body.rfind(b"\\u0022") < 0) and encoded.count(b'"') == body.count(b'"')


def _may_repeat(document: dict[str, object], body: bytes) -> bool:
    """Whether a key that is read may stand twice, or spelled with escapes, at the top level."""
    if b"\\u00" in body and _ESCAPED_LETTER.search(body):
        return True
    return any(key in KEYS and body.count(_MARKS[key]) != 1 for key in document)
