"""The models behind the proxy: what upstreams list, merged for `/v1/models`, and the questions that intake asks."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from proxy.dispatcher import Dispatcher
from proxy.server.intake import Models


class Catalog(Models):
    """Entries are passed on as the upstreams gave them; a shared model is shown once, as the first has it."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self.dispatcher, self.clock = dispatcher, clock
        self._raw: dict[str, dict[str, dict[str, object]]] = {}  # upstream -> model -> entry

    def listed(self, upstream: str, entries: list[dict[str, object]]) -> None:
        """An upstream told its models."""
        self._raw[upstream] = {str(entry.get("id", "")): entry for entry in entries}

    def forget(self, keep: set[str]) -> None:
        """Drop what upstreams told that are no longer configured."""
        self._raw = {name: entries for name, entries in self._raw.items() if name in keep}

    def knows(self, model: str) -> bool:
        return self.dispatcher.knows(model)

    def sole_model(self) -> str:
        """The one model that there is, for requests that name none; '' where there are several or none."""
        models = self.dispatcher.models()
        return next(iter(models)) if len(models) == 1 else ""

    def retry_after_s(self) -> float:
        return self.dispatcher.retry_after_s(self.clock())

    def listing(self, model: str | None) -> bytes | None:
        """JSON of all models, or of one; None where that one is unknown."""
        entries = [self._entry(name, upstreams) for name, upstreams in sorted(self.dispatcher.models().items())]
        if model is None:
            return orjson.dumps({"object": "list", "data": entries})
        found = next((entry for entry in entries if entry["id"] == model), None)
        return None if found is None else orjson.dumps(found)

    def _entry(self, model: str, upstreams: tuple[str, ...]) -> dict[str, object]:
        for upstream in upstreams:
            entry = self._raw.get(upstream, {}).get(model)
            if entry is not None:
                return entry
        return {"id": model, "object": "model", "created": 0, "owned_by": upstreams[0] if upstreams else "penstock"}
