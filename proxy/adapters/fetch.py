"""One small GET, bounded in size and time, and why it failed in a few words that hold no address, header or key.

`repr` of aiohttp's errors holds every request header, so nothing here ever passes such an error on.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

BODY_MAX_BYTES = 1 << 20  # vLLM's /metrics with every histogram is about 0.2 MB
SERVER_MAX_CHARS = 64

# OpenSSL's verification codes (openssl-verification-options(1)).
CERTIFICATE_REASONS = {
    9: "certificate not yet valid",
    10: "certificate expired",
    18: "certificate not trusted",
    19: "certificate not trusted",
    20: "certificate not trusted",
    21: "certificate not trusted",
    62: "certificate for another name",
    64: "certificate for another address",
}
SYSTEM_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "out of file descriptors",
}


class FetchError(Exception):
    """The GET gave no usable answer; `str` is the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`server` is the header of that name, printable and short; `body` has at most `BODY_MAX_BYTES`."""

    status: int
    server: str
    body: bytes


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """GET `url`. Any status is an answer; FetchError when there is none, or one that is too large or too slow."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    target = URL(url, encoded=True)
    try:
        async with session.get(
            target, headers=headers, ssl=True if tls is None else tls, timeout=timeout, allow_redirects=False
        ) as response:
            return Answer(response.status, printable(response.headers.get("Server", "")), await _bounded(response))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise FetchError(reason_of(error)) from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    if (response.content_length or 0) > BODY_MAX_BYTES:
        response.close()
        raise FetchError("answer above 1 MiB")
    pieces = bytearray()
    async for piece in response.content.iter_any():
        pieces += piece
        if len(pieces) > BODY_MAX_BYTES:
            response.close()
            raise FetchError("answer above 1 MiB")
    return bytes(pieces)


def reason_of(error: BaseException) -> str:
    """A closed set of short reasons, for errors of aiohttp, of ssl and of the system alike."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return reason_of(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return reason_of(error.os_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CERTIFICATE_REASONS.get(error.verify_code, "certificate refused")
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "connection closed"
    if isinstance(error, OSError):
        return SYSTEM_REASONS.get(error.errno or 0, "connect failed")
    if isinstance(error, aiohttp.ClientPayloadError):
        return "answer cut short"
    if isinstance(error, aiohttp.InvalidURL):
        return "url not usable"
    return "answer is not HTTP"


def printable(text: str) -> str:
    return "".join(char for char in text[:SERVER_MAX_CHARS] if " " <= char <= "~")
