"""Who may do what on the admin listener: a table of rules, decided from the request head alone.

Loopback: everything is open to programs on the machine, so the danger is a web page in the operator's browser. DNS
rebinding needs a foreign name in Host, forged writes carry a foreign Origin or Sec-Fetch-Site: both are refused.
Elsewhere: without a token only `/health`, `/ready` and `/metrics` answer. With a token every write needs it.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})
READS = frozenset({"GET", "HEAD"})
OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """`hosts` are further names that may stand in the Host header; any IP address may."""

    host: str = "127.0.0.1"
    port: int = 8081
    token: str | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Status, code and a message with the remedy."""

    status: int
    code: str
    message: str


FOREIGN_HOST = Refused(403, "host_not_allowed", "This Host is not served here. Use an address or localhost.")
LOCKED = Refused(403, "admin_locked", "Set admin.token to use this from other machines.")
FOREIGN_PAGE = Refused(403, "cross_origin", "Requests of other web pages are refused.")
NO_TOKEN = Refused(401, "invalid_token", "Send the admin token: Authorization: Bearer TOKEN.")


def is_loopback(host: str) -> bool:
    """True where only programs on this machine can connect."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host_name(authority: str) -> str:
    """The name of a Host header or origin, without port and brackets; empty where it is malformed."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """Applies the rules. Holds only the digest of the token."""

    def __init__(self, config: AdminConfig) -> None:
        self.loopback = is_loopback(config.host)
        self._digest = sha256(config.token.encode("utf-8", "surrogateescape")).digest() if config.token else None
        self._hosts = {"localhost", config.host.lower(), socket.gethostname().lower(), *map(str.lower, config.hosts)}

    @property
    def locked(self) -> bool:
        """True where the rules leave only the three open paths: worth a warning at start."""
        return not self.loopback and self._digest is None

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refused | None:
        """None: go on. `headers` is case-insensitive."""
        if path in OPEN_PATHS and method in READS:
            return None
        if not self._host_allowed(headers.get("Host", "")):
            return FOREIGN_HOST
        if self.locked:
            return LOCKED
        if method in READS:
            return None
        if self._foreign_page(headers):
            return FOREIGN_PAGE
        return None if self._token_right(headers.get("Authorization", "")) else NO_TOKEN

    def _host_allowed(self, authority: str) -> bool:
        name = _host_name(authority)
        return name in self._hosts or _is_address(name)

    def _foreign_page(self, headers: Mapping[str, str]) -> bool:
        if headers.get("Sec-Fetch-Site", "none").lower() not in OWN_SITES:
            return True
        origin = headers.get("Origin")
        return origin is not None and origin.lower().partition("://")[2] != headers.get("Host", "").lower()

    def _token_right(self, authorization: str) -> bool:
        """Digests of bytes are compared: equal lengths, and no TypeError for what is not ASCII."""
        if self._digest is None:
            return True
        scheme, _, token = authorization.partition(" ")
        given = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer"
