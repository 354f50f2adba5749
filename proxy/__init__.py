"""Penstock: an adaptive batching proxy for LLM inference servers.

`admission` decides when, `routing` decides where, `wire` reads what passes, `planning` computes how much fits;
everything else is plumbing.

Floors (imports look down only; floors 0-2 are pure: no I/O, no clock, no randomness of their own):
    0  types
    1  admission | routing | wire | planning
    2  dispatcher | simulator core | loadtest core
    3  settings | adapters
    4  server | simulator.server | loadtest.client
    5  cli

Life of a request: `server.public` parses it (llhttp) -> `wire` reads model, class and size -> `adapters.gate` hands a
`Ticket` to the `dispatcher`, which queues it or names an upstream -> `adapters.forward` runs the exchange and relays
the bytes -> every ending comes back to the dispatcher exactly once, as one `Outcome`.
"""

__version__ = "0.1.0"
