r"""Reads the few metrics that are asked for out of a Prometheus text, whatever else is in it.

    sample = name [ "{" labels "}" ] blanks value [ blanks timestamp ]      (Prometheus exposition formats, text 0.0.4)

prometheus_client.parser reads every sample, character by character, and gives up at the first malformed line: 0.2 MB
of an engine's histograms each second would cost more than all else here. This reader looks only at lines that begin
with a wanted name, skips those that it cannot read, and takes linear time (possessive quantifiers never go back).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache

TEXT_MAX_CHARS = 1 << 20
LABEL = re.compile(r'[\s,]*+([A-Za-z_][A-Za-z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\\n]|\\.)*+)"')
ESCAPE = re.compile(r'\\([\\"n])')

Labels = dict[str, str]


@lru_cache(maxsize=32)
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    wanted = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    labels = r'\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*+")*+)\}'
    return re.compile(rf"^({wanted})(?:[ \t]*+{labels})?[ \t]++([^\s#]++)", re.MULTILINE)


class Exposition:
    """The samples of `names` in `text`. Values that are not finite, or below zero, do not exist."""

    def __init__(self, text: str, names: Iterable[str]) -> None:
        self._samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for name, labels, value in _pattern(frozenset(names)).findall(text[:TEXT_MAX_CHARS]):
            if (number := _number(value)) is not None:
                self._samples[name].append((_labels(labels), number))

    def __repr__(self) -> str:
        return f"Exposition({', '.join(f'{name}: {len(rows)}' for name, rows in self._samples.items())})"

    def rows(self, *names: str) -> list[tuple[Labels, float]]:
        """Samples of the first of `names` that occurs: the later ones are names from before a renaming."""
        return next((self._samples[name] for name in names if name in self._samples), [])

    def total(self, *names: str, per: str = "") -> float | None:
        """Sum over the values of label `per` (data-parallel ranks) of the highest sample of each; '': of all."""
        if not per:
            return self._over(sum, names)
        highest: dict[str, float] = {}
        for labels, value in self.rows(*names):
            rank = labels.get(per, "")
            highest[rank] = max(value, highest.get(rank, 0.0))
        return sum(highest.values()) if highest else None

    def highest(self, *names: str) -> float | None:
        return self._over(max, names)

    def _over(self, fold: Callable[[list[float]], float], names: tuple[str, ...]) -> float | None:
        rows = self.rows(*names)
        return fold([value for _, value in rows]) if rows else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _labels(text: str) -> Labels:
    """One after the other from the left, up to the first that is malformed: a search would take quadratic time."""
    labels = {}
    match = LABEL.match(text)
    while match:
        labels[match[1]] = ESCAPE.sub(_unescape, match[2])
        match = LABEL.match(text, match.end())
    return labels


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
