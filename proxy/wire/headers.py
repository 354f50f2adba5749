"""Request and response heads: what is read, what is passed on, what is dropped.

Hop-by-hop names follow RFC 9110 section 7.6.1. Everything that frames a message or proves an identity is decided here,
before anything is stripped, and then written anew: a name that a client lists in `Connection` can remove a header that
we would pass on, never one that we decide by or set ourselves. Names with `_` are dropped, because gateways behind us
may read them as the same name with `-`.

Headers come as an HTTP parser reports them: pairs of bytes, names in any case, values possibly with trailing blanks.
Each name costs one dictionary look-up; spellings seen once are remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.wire.errors import BadRequest, invalid_header
from proxy.wire.trace_context import TraceContext

Headers = Sequence[tuple[bytes, bytes]]

TIMEOUT_S_MAX: Final = 86_400.0  # a day: longer deadlines than any request lives are cut to this
REQUEST_ID_CHARS_MAX: Final = 128
RETRY_COUNT_MAX: Final = 9  # one digit: it becomes a metric label
BOUNDARY_BYTES_MAX: Final = 200  # RFC 2046 allows 70
SPELLINGS_MAX: Final = 4096  # remembered spellings of header names, each at most 64 bytes
SPELLING_BYTES_MAX: Final = 64

TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
CONTROLS: Final = bytes(range(32)).replace(b"\t", b"") + b"\x7f"
_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._~:/+=@,;|#-]{1,%d}" % REQUEST_ID_CHARS_MAX)  # nothing that JSON escapes
_BOUNDARY: Final = re.compile(r"[ !#-\[\]-~]*[!#-\[\]-~]")
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b""})


@dataclass(slots=True)
class HeadFacts:
    """What a request head says. `key` is the bearer token or x-api-key (None: neither).

    `priorities` are the values of the configured priority headers in their order of precedence. `timeout_s` counts from
    receipt and may be <= 0. `block` holds the lines that may be passed on, each led by CRLF.
    """

    key: bytes | None = None
    tenant: bytes | None = None
    priorities: tuple[str, ...] = ()
    request_id: str | None = None  # None: absent or unusable, make one
    timeout_s: float | None = None
    retry_count: int = 0
    content_length: int | None = None
    chunked: bool = False
    expects_continue: bool = False
    content_type: bytes | None = None
    boundary: bytes | None = None  # of a multipart/form-data body
    forwarded_for: bytes | None = None
    block: bytes = b""
    trace: TraceContext | None = None  # None: tracing is off

    # Notes between two headers of one head.
    host: bytes | None = None
    bearer: bytes | None = None
    api_key: bytes | None = None
    own_timeout_s: float | None = None
    upgrade: bool = False
    listed: frozenset[bytes] = frozenset()  # names in Connection
    ranked: tuple[tuple[int, str], ...] = ()


# Reads one value into the facts; true when the line is passed on as well.
Handler = Callable[[HeadFacts, bytes], bool]


def _text(name: str, value: bytes) -> str:
    """A value that we read, or BadRequest unless it is printable ASCII."""
    text = value.decode("latin-1").strip(" \t")
    if not (text.isascii() and text.isprintable()):
        raise invalid_header(name, "must be printable ASCII")
    return text


# RFC 3986 3.2.2
_HOST_BYTES: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%:[]"


def _host(facts: HeadFacts, value: bytes) -> bool:
    if facts.host is not None:
        raise invalid_header("host", "must appear once")
    if value.translate(None, _HOST_BYTES):
        _text("host", value)
        raise invalid_header("host", "must be a host name or an address, with a port or without")
    facts.host = value
    return False


def _authorization(facts: HeadFacts, value: bytes) -> bool:
    if facts.bearer is not None:
        raise invalid_header("authorization", "must appear once")
    if not (value.isascii() and value.decode().isprintable()):
        value = _text("authorization", value).encode()
    if value[:7] == b"Bearer " or value[:7].lower() in (b"bearer ", b"bearer"):
        value = value[7:]
    facts.bearer = value.strip(b" ")
    return False


def _api_key(facts: HeadFacts, value: bytes) -> bool:
    if facts.api_key is not None:
        raise invalid_header("x-api-key", "must appear once")
    facts.api_key = _text("x-api-key", value).encode()
    return False


def _content_length(facts: HeadFacts, value: bytes) -> bool:
    digits = value if value.isdigit() else value.strip(b" \t")
    if facts.content_length is not None or not digits.isdigit() or len(digits) > 18:
        raise invalid_header("content-length", "must be one decimal number")
    facts.content_length = int(digits)
    return False


def _transfer_encoding(facts: HeadFacts, value: bytes) -> bool:
    if facts.chunked or value.strip(b" \t").lower() != b"chunked":
        raise BadRequest(501, "not_implemented", "The only transfer coding supported is chunked, once.")
    facts.chunked = True
    return False


def _content_encoding(facts: HeadFacts, value: bytes) -> bool:
    if value.strip(b" \t").lower() not in (b"identity", b""):
        raise BadRequest(415, "encoded_body", "Encoded request bodies are not accepted; send the body as it is.")
    return True


def _content_type(facts: HeadFacts, value: bytes) -> bool:
    if facts.content_type is not None:
        raise invalid_header("content-type", "must appear once")
    facts.content_type = value
    if value != b"application/json":
        facts.boundary = _multipart_boundary(_text("content-type", value))
    return True


def _multipart_boundary(content_type: str) -> bytes | None:
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = [
        value for name, _, value in (text.partition("=") for text in parameters) if name.strip().lower() == "boundary"
    ]
    boundary = found[0].strip() if len(found) == 1 else ""
    if boundary[:1] == '"' and boundary[-1:] == '"':
        boundary = boundary[1:-1]
    if len(boundary) > BOUNDARY_BYTES_MAX or not _BOUNDARY.fullmatch(boundary):
        raise invalid_header("content-type", "needs one boundary for multipart/form-data")
    return boundary.encode()


def _connection(facts: HeadFacts, value: bytes) -> bool:
    lowered = value.lower()
    if lowered not in _PLAIN_CONNECTION:
        facts.listed |= {token.strip(b" \t") for token in lowered.split(b",")} - _PLAIN_CONNECTION
    return False


def _upgrade(facts: HeadFacts, value: bytes) -> bool:
    facts.upgrade = True
    return False


def _expect(facts: HeadFacts, value: bytes) -> bool:
    if value.strip(b" \t").lower() != b"100-continue":
        raise invalid_header("expect", "may only be 100-continue")
    facts.expects_continue = True
    return False


def _request_id(facts: HeadFacts, value: bytes) -> bool:
    if facts.request_id is None and _REQUEST_ID.fullmatch(value):
        facts.request_id = value.decode("ascii")
    return False


def _timeout_ms(facts: HeadFacts, value: bytes) -> bool:
    text = _text("x-request-timeout-ms", value)
    digits = text.removeprefix("-")
    if facts.own_timeout_s is not None or not digits.isdigit():
        raise invalid_header("x-request-timeout-ms", "must be one whole number of milliseconds")
    limit_s = min(float(digits[:20]) / 1000, TIMEOUT_S_MAX)
    facts.own_timeout_s = -limit_s if text[0] == "-" else limit_s
    return False


def _read_timeout(facts: HeadFacts, value: bytes) -> bool:
    """A hint that a client library adds by itself: a value that is no number is ignored, not refused."""
    try:
        seconds = int(value) if value.isdigit() and len(value) < 10 else float(value)
    except ValueError:
        _text("x-stainless-read-timeout", value)
        return True
    if seconds > 0:  # false for NaN
        facts.timeout_s = seconds if seconds < TIMEOUT_S_MAX else TIMEOUT_S_MAX
    return True


def _retry_count(facts: HeadFacts, value: bytes) -> bool:
    if value != b"0" and value.isdigit():
        facts.retry_count = min(int(value[:4]), RETRY_COUNT_MAX)
    return True


def _forwarded_for(facts: HeadFacts, value: bytes) -> bool:
    hops = _text("x-forwarded-for", value).encode()
    facts.forwarded_for = hops if facts.forwarded_for is None else facts.forwarded_for + b", " + hops
    return False


def _tenant(facts: HeadFacts, value: bytes) -> bool:
    if facts.tenant is not None:
        raise invalid_header("tenant", "must appear once")
    facts.tenant = _text("tenant", value).encode()
    return False


def _priority(rank: int, name: str) -> Handler:
    def handle(facts: HeadFacts, value: bytes) -> bool:
        facts.ranked += ((rank, _text(name, value)),)
        return False

    return handle


_HANDLERS: Final[dict[bytes, Handler]] = {
    b"host": _host,
    b"authorization": _authorization,
    b"x-api-key": _api_key,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"content-encoding": _content_encoding,
    b"content-type": _content_type,
    b"connection": _connection,
    b"upgrade": _upgrade,
    b"expect": _expect,
    b"x-request-id": _request_id,
    b"x-request-timeout-ms": _timeout_ms,
    b"x-stainless-read-timeout": _read_timeout,
    b"x-stainless-retry-count": _retry_count,
    b"x-forwarded-for": _forwarded_for,
}

# Hop-by-hop, other spellings of a client's credentials, its cookies, and what only a trusted hop may say.
_DROPPED: Final = frozenset(
    b"keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer http2-settings "
    b"api-key x-goog-api-key cookie cookie2 forwarded x-forwarded-host x-forwarded-proto x-forwarded-port "
    b"x-forwarded-prefix x-forwarded-server x-real-ip request-id x-tenant-id x-priority x-request-priority".split()
)
# Control headers of this proxy and of the gateways that may stand behind it: a client must not steer those past us.
_DROPPED_PREFIXES = (b"x-penstock-", b"x-gateway-", b"x-llm-d-", b"x-envoy-", b"x-smg-", b"x-dynamo-request-")


# What a name means: the line's beginning (passed on), a handler, or nothing (dropped).
_Rule = bytes | Handler | None


class HeadReader:
    """Reads request heads. One per process; holds the configured header names and the remembered spellings."""

    def __init__(
        self,
        tenant_header: bytes = b"x-tenant-id",
        priority_headers: Sequence[bytes] = (b"x-priority", b"x-request-priority"),
    ) -> None:
        """Names in any case. The first of `priority_headers` that a request carries is meant to decide."""
        self._rules: dict[bytes, _Rule] = dict.fromkeys(_DROPPED)
        self._rules.update(_HANDLERS)
        self._rules[tenant_header.lower()] = _tenant
        for rank, name in enumerate(priority_headers):
            self._rules[name.lower()] = _priority(rank, name.decode("latin-1").lower())
        self._spellings: dict[bytes, _Rule] = dict(self._rules)

    def read(self, headers: Headers, http_1_1: bool = True) -> HeadFacts:
        """The facts of one request head; BadRequest (400, 415 or 501) where it must be refused."""
        facts = HeadFacts()
        lines: list[bytes] = []
        append, spellings = lines.append, self._spellings
        for name, value in headers:
            try:
                rule = spellings[name]
            except KeyError:
                rule = self._learn(name)
            if rule.__class__ is bytes:
                append(rule)
                append(value)
            elif rule is not None and rule(facts, value):  # type: ignore[operator]
                lines += (_line(name), value)
        _judge(facts, http_1_1)
        if facts.listed:
            lines = _unlisted(lines, facts.listed)
        facts.block = block = b"".join(lines)
        # Two bytes a line, two items a line: any other control byte came in a value.
        if len(block.translate(None, CONTROLS)) != len(block) - len(lines):
            raise BadRequest(400, "invalid_header", "A header value holds characters that are not allowed.")
        return facts

    def _learn(self, name: bytes) -> _Rule:
        lowered = name.lower()
        if not TOKEN.fullmatch(name):
            raise BadRequest(400, "invalid_header", "A header name holds characters that are not allowed.")
        rule = self._rules.get(lowered, _line(name))
        if b"_" in lowered or lowered.startswith(_DROPPED_PREFIXES):
            rule = None
        if len(self._spellings) < SPELLINGS_MAX and len(name) <= SPELLING_BYTES_MAX:
            self._spellings[name] = rule
        return rule


def _line(name: bytes) -> bytes:
    return b"\r\n" + name + b": "


def _unlisted(lines: list[bytes], listed: frozenset[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for start, value in zip(lines[::2], lines[1::2], strict=True):
        if start[2:-2].lower() not in listed:
            kept += (start, value)
    return kept


def _judge(facts: HeadFacts, http_1_1: bool) -> None:
    """The rules that need more than one header."""
    if facts.host is None and http_1_1:
        raise invalid_header("host", "is missing")
    if facts.chunked and (facts.content_length is not None or not http_1_1):
        raise invalid_header("transfer-encoding", "cannot be used with content-length or HTTP/1.0")
    if facts.upgrade and b"upgrade" in facts.listed:
        raise invalid_header("upgrade", "is not supported")
    if facts.api_key and facts.bearer and facts.bearer != facts.api_key:
        raise invalid_header("authorization", "and x-api-key differ; send one of them")
    facts.key = facts.bearer or facts.api_key or None
    if facts.own_timeout_s is not None:
        facts.timeout_s = facts.own_timeout_s
    if facts.ranked:
        facts.priorities = tuple(value for _, value in sorted(facts.ranked))


def upstream_lines(host: bytes, api_key: bytes | None = None, extra: bytes = b"") -> bytes:
    """The lines that are the same in every request to one upstream; `extra` is whole lines, each with CRLF."""
    authorization = b"" if api_key is None else b"authorization: Bearer " + api_key + b"\r\n"
    return b"host: " + host + b"\r\n" + authorization + extra


def forward_parts(
    method: bytes, target: bytes, head: HeadFacts, upstream: bytes, client_ip: bytes
) -> tuple[bytes, bytes]:
    """The request head for an upstream, before and after the request's id, without its framing.

    `target` is path and query, `upstream` comes from `upstream_lines`.
    """
    start = b"%b %b HTTP/1.1\r\n%bx-request-id: " % (method, target, upstream)
    return start, b"\r\nx-forwarded-for: %b%b" % (client_ip, head.block)


def forward_head(
    method: bytes,
    target: bytes,
    head: HeadFacts,
    upstream: bytes,
    content_length: int | None,
    request_id: str,
    client_ip: bytes,
) -> bytes:
    """A request head for an upstream.

    `content_length` None means a chunked body; a GET or HEAD with 0 carries no body header.
    """
    if content_length is None:
        framing = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    elif content_length or method == b"POST":
        framing = b"\r\ncontent-length: %d\r\n\r\n" % content_length
    else:
        framing = b"\r\n\r\n"
    start, middle = forward_parts(method, target, head, upstream, client_ip)
    return b"".join((start, request_id.encode("ascii"), middle, framing))
