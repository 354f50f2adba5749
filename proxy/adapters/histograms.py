"""Counter and histogram cells that cost well under a microsecond each, and the bucket edges.

A histogram with edges e_1 < ... < e_k keeps k + 1 counts; a value v belongs to the first bucket with v <= e_i
(`bisect_left`), the last one has no upper edge. Counts become cumulative only when they are exposed.
prometheus_client's own `observe` walks the edges one by one under a lock; here the event loop is the only writer,
so neither is needed. Edges are vLLM's families (vllm/v1/metrics/loggers.py); the head of the inter-token family is
SGLang's (2 ms upward), because fast decoding lies below vLLM's first edge of 10 ms.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeVar

TTFT_EDGES_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_EDGES_S = (
    *(0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035, 0.040, 0.060, 0.080, 0.1),
    *(0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_EDGES_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
QUEUE_EDGES_S = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0),
)
LAG_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ABORT_EDGES_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

LABEL_LENGTH_MAX: Final = 128  # characters; model names of public hubs are at most 96

Labels = tuple[str, ...]


def edges_with(edges: Iterable[float], targets: Iterable[float]) -> tuple[float, ...]:
    """The edges with every positive target among them: attainment of a target is exact only at an edge."""
    return tuple(sorted({*edges, *(target for target in targets if target > 0)}))


def label_text(value: str) -> str:
    """A label value that cannot break the exposition: printable ASCII, bounded, never empty.

    One lone surrogate would make every later rendering raise UnicodeEncodeError.
    """
    if not (value.isascii() and value.isprintable()):
        value = "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in value)
    return value[:LABEL_LENGTH_MAX] or "none"


@dataclass(frozen=True, slots=True)
class Family:
    """Declaration of one metric: its name with unit, kind, labels and one line of help."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    edges: tuple[float, ...] = ()


class Cell:
    """One counted number."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def count(self) -> None:
        """Nothing waits."""

    def copy(self) -> float:
        return self.value


class Mark(NamedTuple):
    """One value of a sampled trace: the exemplar of its bucket."""

    trace_id: str
    value: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Copy of a histogram cell: counts per bucket (not cumulative), the sum of all values, exemplars by bucket."""

    counts: list[int]
    total: float
    marks: dict[int, Mark] | None = None


class HistogramCell:
    """Counts per bucket, one more than there are edges.

    Values wait in a list until they are counted, many at once: sorted, a bucket's count is the distance between two
    places, and a value costs a tenth of what its own bisection would. Who observes much calls `count` now and then.
    """

    __slots__ = ("_counts", "_edges", "_new", "_total", "marks", "observe")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._total = 0.0
        self._new: list[float] = []
        self.observe = self._new.append  # one value; anything that is not a number above zero counts as zero
        self.marks: dict[int, Mark] | None = None  # by bucket, the newest of each; None: no trace was sampled

    @property
    def counts(self) -> list[int]:
        self.count()
        return self._counts

    @property
    def total(self) -> float:
        self.count()
        return self._total

    def count(self) -> None:
        """Put the values that wait into their buckets."""
        new = self._new
        if not new:
            return
        ordered = sorted(new)
        total = sum(ordered)
        if ordered[0] < 0.0 or total != total:  # below zero, or not a number
            ordered = sorted(value if value > 0.0 else 0.0 for value in new)
            total = sum(ordered)
        new.clear()
        self._total += total
        counts, before = self._counts, 0
        for bucket in range(bisect_left(self._edges, ordered[0]), bisect_left(self._edges, ordered[-1])):
            upto = bisect_right(ordered, self._edges[bucket], before)
            counts[bucket] += upto - before
            before = upto
        counts[bisect_left(self._edges, ordered[-1])] += len(ordered) - before

    def observe_many(self, value: float, count: int) -> None:
        """Count the same value `count` times."""
        value = value if value > 0.0 else 0.0
        self._counts[bisect_left(self._edges, value)] += count
        self._total += value * count

    def mark(self, mark: Mark) -> None:
        """Let a value that was observed point to its trace."""
        if self.marks is None:
            self.marks = {}
        self.marks[bisect_left(self._edges, max(0.0, mark.value))] = mark

    def copy(self) -> Distribution:
        self.count()
        return Distribution(self._counts.copy(), self._total, self.marks and self.marks.copy())


class Copied(Protocol):
    """What a table holds: something that can be copied at once."""

    def count(self) -> None: ...
    def copy(self) -> float | Distribution: ...


CellT = TypeVar("CellT", bound=Copied)


@dataclass(frozen=True, slots=True)
class Exposed:
    """One family with its values at one moment."""

    family: Family
    values: list[tuple[Labels, float | Distribution]]


class Table(Generic[CellT]):
    """All cells of one family by their label values."""

    __slots__ = ("_cells", "_make", "family")

    def __init__(self, family: Family, make: Callable[[], CellT]) -> None:
        self.family = family
        self._make = make
        self._cells: dict[Labels, CellT] = {}

    def at(self, *labels: str) -> CellT:
        """The cell of these label values (cleaned), made on first use. The caller bounds the vocabulary."""
        cell = self._cells.get(labels)
        if cell is None:
            cleaned = tuple(label_text(label) for label in labels)
            cell = self._cells.get(cleaned)
            if cell is None:
                cell = self._cells[cleaned] = self._make()
        return cell

    def count(self) -> None:
        """Let cells count what waits in them."""
        for cell in self._cells.values():
            cell.count()

    def copy(self) -> Exposed:
        return Exposed(self.family, [(labels, cell.copy()) for labels, cell in self._cells.items()])


def counter(family: Family) -> Table[Cell]:
    return Table(family, Cell)


def histogram(family: Family, targets: Iterable[float] = ()) -> Table[HistogramCell]:
    """Cells over the family's edges with the targets among them."""
    edges = edges_with(family.edges, targets)
    return Table(replace(family, edges=edges), lambda: HistogramCell(edges))
