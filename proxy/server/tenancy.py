"""Who sends: key -> SHA-256 -> tenant. Keys themselves are never compared by part or logged, and kept by nothing but
the connection that they came on, which knows its last head again by its bytes.

The look-up is by digest of the whole key, so what its timing could tell is about the digest, not about the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address

from proxy.wire.errors import invalid_header
from proxy.wire.headers import HeadFacts
from proxy.wire.priority import TenantRule

HEADER_TENANTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class TenancyConfig:
    """`by_digest` maps SHA-256 digests of keys; `anonymous` None means that a key is required."""

    by_digest: Mapping[bytes, TenantRule]
    by_name: Mapping[str, TenantRule]
    anonymous: TenantRule | None
    unnamed: TenantRule  # what an unknown tenant named by a trusted proxy may do
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    name_max: int = 128  # characters of a name from a trusted proxy


class Tenancy:
    """Finds the tenant of a request head."""

    def __init__(self, config: TenancyConfig) -> None:
        self.config = config
        self._named: dict[str, TenantRule] = {}
        self._trusted: dict[bytes, bool] = {}

    def find(self, head: HeadFacts, client_ip: bytes) -> TenantRule | None:
        """The tenant, or None where the request must be refused with 401. BadRequest: a trusted proxy's name for it
        is longer than any that is kept."""
        config = self.config
        if head.tenant and self._is_trusted(client_ip):
            if len(head.tenant) > config.name_max:
                raise invalid_header("tenant", f"must have at most {config.name_max} characters")
            return self._by_name(head.tenant.decode("ascii"))
        if head.key is None or not config.by_digest:
            return config.anonymous
        return config.by_digest.get(hashlib.sha256(head.key).digest())

    def _by_name(self, name: str) -> TenantRule | None:
        rule = self.config.by_name.get(name) or self._named.get(name)
        if rule is None and len(self._named) < HEADER_TENANTS_MAX:
            rule = self._named[name] = replace(self.config.unnamed, name=name)
        return rule or self.config.unnamed

    def _is_trusted(self, client_ip: bytes) -> bool:
        if not self.config.trusted:
            return False
        known = self._trusted.get(client_ip)
        if known is None:
            try:
                address = ip_address(client_ip.decode("ascii"))
            except ValueError:
                return False
            known = any(address in network for network in self.config.trusted)
            if len(self._trusted) < HEADER_TENANTS_MAX:
                self._trusted[client_ip] = known
        return known
