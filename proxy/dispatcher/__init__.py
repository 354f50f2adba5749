"""THE state machine between arrivals and upstreams: sole writer of admission and routing state."""

from proxy.dispatcher.config import DispatcherConfig, UpstreamConfig
from proxy.dispatcher.core import Dispatcher
from proxy.dispatcher.snapshot import ClassSnapshot, RefusalRecord, Snapshot, TenantSnapshot, UpstreamSnapshot

__all__ = [
    "ClassSnapshot",
    "Dispatcher",
    "DispatcherConfig",
    "RefusalRecord",
    "Snapshot",
    "TenantSnapshot",
    "UpstreamConfig",
    "UpstreamSnapshot",
]
