"""The configuration: `load` reads, merges and checks all sources into one frozen `Settings`."""

from proxy.settings.changes import restart_needed
from proxy.settings.loading import load
from proxy.settings.root import Settings
from proxy.settings.trees import ConfigError

__all__ = ["ConfigError", "Settings", "load", "restart_needed"]
