"""Floor 4: the simulated engine over HTTP. `app` has the routes, `loop` the timer, `serve` the process."""

from proxy.simulator.server.app import create_app
from proxy.simulator.server.serve import run

__all__ = ["create_app", "run"]
