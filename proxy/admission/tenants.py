"""What each tenant holds and may still take: seats, places in the queue, bytes, and quotas per minute.

Quotas are token buckets one minute deep (Turner 1986): level = min(Q, level + Q dt / 60). A request passes if the
bucket holds its estimate, or is full: an estimate above the quota runs alone. The true size corrects the level
afterwards, below zero if need be. Tenants that are not configured are remembered least recently used last, up to
10,000, and forgotten only while they hold nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from proxy.admission.queue import QueueConfig, TenantConfig

TENANTS_MAX: Final = 10_000
EVICTION_SCAN: Final = 4


class Bucket:
    """Units per minute."""

    __slots__ = ("_at_s", "level", "per_minute")

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self.level = per_minute
        self._at_s = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` would pass; 0 if it passes now."""
        self.level = min(self.per_minute, self.level + max(0.0, now - self._at_s) * self.per_minute / 60)
        self._at_s = max(now, self._at_s)
        return max(0.0, (min(amount, self.per_minute) - self.level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        """Charge; negative gives back."""
        self.level = min(self.per_minute, self.level - amount)


class Tenant:
    """One tenant's holdings."""

    __slots__ = ("body_bytes", "config", "in_flight", "metered", "queued", "queued_in", "requests", "tokens")

    def __init__(self, config: TenantConfig, now: float) -> None:
        self.in_flight = 0
        self.queued = 0
        self.queued_in: dict[int, int] = {}
        self.body_bytes = 0
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.configure(config, now)

    def configure(self, config: TenantConfig, now: float) -> None:
        """Apply new bounds; a bucket whose rate is unchanged keeps its level."""
        self.config = config
        self.requests = _rebucket(self.requests, config.requests_per_minute, now)
        self.tokens = _rebucket(self.tokens, config.tokens_per_minute, now)
        self.metered = self.requests is not None or self.tokens is not None  # requests or tokens a minute are bounded

    @property
    def idle(self) -> bool:
        return not (self.in_flight or self.queued or self.body_bytes)

    def quota_wait_s(self, tokens: float, now: float) -> tuple[float, str]:
        """Seconds until a request of this many tokens passes both quotas, and the one that it waits for longest."""
        waits = [(0.0, "")]
        if self.requests is not None:
            waits.append((self.requests.wait_s(1.0, now), "requests per minute"))
        if self.tokens is not None:
            waits.append((self.tokens.wait_s(tokens, now), "tokens per minute"))
        return max(waits, key=lambda wait: wait[0])

    def charge(self, requests: float, tokens: float) -> None:
        """Count against the quotas; negative gives back."""
        if self.requests is not None:
            self.requests.take(requests)
        if self.tokens is not None:
            self.tokens.take(tokens)

    def queue(self, class_index: int, count: int) -> None:
        """Places taken (or given back) in one class."""
        self.queued += count
        self.queued_in[class_index] = self.queued_in.get(class_index, 0) + count

    def __repr__(self) -> str:
        return f"Tenant({self.config.name}, in_flight={self.in_flight}, queued={self.queued})"


class TenantBook:
    """All tenants that are configured or have been seen."""

    def __init__(
        self, configs: tuple[TenantConfig, ...], queue: QueueConfig, now: float, tenants_max: int = TENANTS_MAX
    ) -> None:
        self._tenants_max = tenants_max
        self._tenants: OrderedDict[str, Tenant] = OrderedDict()
        self.body_bytes = 0
        self.reconfigure(configs, queue, now)

    def __len__(self) -> int:
        return len(self._tenants)

    def reconfigure(self, configs: tuple[TenantConfig, ...], queue: QueueConfig, now: float) -> None:
        """New bounds; a tenant that is no longer configured keeps what it holds."""
        self.queue = queue
        self._least_share = int(queue.tenant_share * queue.max_bytes)  # of the bytes, however many tenants there are
        self._configured = {config.name: config for config in configs}
        for name, tenant in self._tenants.items():
            tenant.configure(self._configured.get(name, TenantConfig(name)), now)
        for name in self._configured:
            self.get(name, now)

    def get(self, name: str, now: float) -> Tenant:
        """The tenant, made on first sight."""
        tenant = self._tenants.get(name)
        if tenant is not None:
            self._tenants.move_to_end(name)
            return tenant
        self._evict()
        tenant = self._tenants[name] = Tenant(self._configured.get(name, TenantConfig(name)), now)
        return tenant

    def reserve_bytes(self, name: str, count: int, now: float) -> bool:
        """Count body bytes if they fit: the whole queue's bound, and this tenant's share where there are several."""
        tenant = self._tenants.get(name) or self.get(name, now)
        whole = self.queue.max_bytes
        held, own = self.body_bytes + count, tenant.body_bytes + count
        if held > whole or (own > self._least_share and own > (self.share(whole) or whole)):
            return False
        tenant.body_bytes, self.body_bytes = own, held
        return True

    def release_bytes(self, name: str, count: int, now: float) -> None:
        """Give body bytes back."""
        tenant = self._tenants.get(name) or self.get(name, now)
        assert count <= tenant.body_bytes, "bytes are released once"
        tenant.body_bytes -= count
        self.body_bytes -= count

    def share(self, whole: int) -> int | None:
        """How much of a bound one tenant may use; None: no bound of its own, while it is the only one."""
        return None if len(self._tenants) < 2 else max(1, int(self.queue.tenant_share * whole))

    def busiest(self, count: int) -> list[Tenant]:
        """Tenants that hold most, at most `count`, without idle ones."""
        busy = [tenant for tenant in self._tenants.values() if tenant.in_flight or tenant.queued]
        return sorted(busy, key=lambda tenant: -(tenant.in_flight + tenant.queued))[:count]

    def _evict(self) -> None:
        if len(self._tenants) < self._tenants_max:
            return
        oldest = [name for name, _ in zip(self._tenants, range(EVICTION_SCAN), strict=False)]
        for name in oldest:
            if self._tenants[name].idle and name not in self._configured:
                del self._tenants[name]
            else:
                self._tenants.move_to_end(name)


def _rebucket(old: Bucket | None, per_minute: float | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    return old if old is not None and old.per_minute == per_minute else Bucket(per_minute, now)
