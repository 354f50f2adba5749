"""The one place that makes HTTP client sessions and TLS contexts towards upstreams, with the defaults that are safe.

No bound on connections (admission bounds them), no cookies kept, no proxy from the environment, nothing inflated, no
deadline of its own (each request names its own), idle connections dropped before uvicorn closes them at 5 s. Callers
pass `allow_redirects=False`: an upstream must not send a request with its key elsewhere.
"""

from __future__ import annotations

import ssl

import aiohttp

from proxy import __version__

IDLE_S = 4.0
NAMES_KEPT_S = 10  # a name that moves to another address is followed within this time


def client_session(idle_s: float = IDLE_S) -> aiohttp.ClientSession:
    """Must be called on a running loop; the caller closes it."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=idle_s, ttl_dns_cache=NAMES_KEPT_S)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"User-Agent": f"penstock/{__version__}"},
        skip_auto_headers=("Accept-Encoding",),
        auto_decompress=False,
        trust_env=False,
        max_line_size=16384,
        max_field_size=65536,
    )


def tls_context(ca: str | None = None, verify: bool = True) -> ssl.SSLContext:
    """`ca` is a PEM file, or None for the system's authorities. ValueError says what is wrong with it."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        reason = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "no certificate in it"
        raise ValueError(f"tls.ca: cannot use {ca!r} ({reason}); give a PEM file of certificates") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
