"""Which logged utterances were routed alike? Nearest by Jensen-Shannon divergence of alpha (Lin 1991).

    routes = read_routes([run.part("routing", "test.parquet")])
    nearest(routes, routes.of("u-1"), exclude="u-1")

The distance of two utterances is the mean, over the fusions that both have (encoder and LM of each task), of the
divergence of their weights: bits, 0 for equal weights, 1 where no layer is shared. Shapes: `N` utterances, `L1` states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonifuse_core.routing import jensen_shannon

Fusion = tuple[str, str]  # (task, stage)
COLUMNS = ["utterance", "task", "stage", "alpha"]


@dataclass(frozen=True)
class Routes:
    """utterances: (N,) ids, each once. alpha: {(task, stage): (N, L1) float32}, NaN where it is not logged."""

    utterances: np.ndarray
    alpha: dict[Fusion, np.ndarray]

    def of(self, utterance: str) -> dict[Fusion, np.ndarray]:
        """{(task, stage): (L1,)} of one utterance. Raises KeyError."""
        places = np.flatnonzero(self.utterances == utterance)
        if not len(places):
            raise KeyError(f"utterance {utterance!r} is not logged")
        rows = {fusion: values[places[0]] for fusion, values in self.alpha.items()}
        return {fusion: row for fusion, row in rows.items() if not np.isnan(row).any()}


@dataclass(frozen=True)
class Neighbour:
    """distance: bits. fusions: the (task, stage) that were compared."""

    utterance: str
    distance: float
    fusions: tuple[Fusion, ...]


def read_routes(paths: Sequence[str | Path]) -> Routes:
    """All utterances of routing files. Of an utterance that is logged several times (other prompts, other files) the
    first row counts; rows with another number of layers than their fusion's first are left out."""
    tables = [pq.read_table(path, columns=COLUMNS) for path in paths]
    numbers: dict[str, int] = {}
    found: dict[Fusion, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for table in tables:
        names = table["utterance"].to_pylist()
        rows = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
        tasks, stages = (table[name].to_numpy(zero_copy_only=False) for name in ("task", "stage"))
        for fusion in sorted(set(zip(tasks.tolist(), stages.tolist(), strict=True))):
            places = np.flatnonzero((tasks == fusion[0]) & (stages == fusion[1]))
            weights = _matrix(table["alpha"].take(pa.array(places)))
            if weights is not None:
                chosen, values = found.setdefault(fusion, ([], []))
                chosen.append(rows[places])
                values.append(weights)
    alpha = {fusion: _spread(*parts, len(numbers)) for fusion, parts in found.items()}
    return Routes(np.array(list(numbers), dtype=object), alpha)


def _matrix(column: pa.ChunkedArray) -> np.ndarray | None:
    """(M, L1) float32 of a list column; rows of another length than the first become NaN; None without any row."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else None
    if array is None or not len(array) or array[0].as_py() is None:
        return None
    lengths = np.diff(array.offsets.to_numpy())
    width = int(lengths[0])
    values = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if (lengths == width).all():
        return values.reshape(-1, width)
    matrix = np.full((len(array), width), np.nan, np.float32)
    same = lengths == width
    matrix[same] = values[np.repeat(same, lengths)].reshape(-1, width)
    return matrix


def _spread(rows: list[np.ndarray], values: list[np.ndarray], count: int) -> np.ndarray:
    """Parts to one (count, L1) matrix; the first value of a row stays."""
    width = values[0].shape[1]
    matrix = np.full((count, width), np.nan, np.float32)
    for place, part in reversed(list(zip(rows, values, strict=True))):
        if part.shape[1] == width:
            matrix[place[::-1]] = part[::-1]
    return matrix


def nearest(
    routes: Routes, query: Mapping[Fusion, np.ndarray], count: int = 8, exclude: str | None = None
) -> tuple[Neighbour, ...]:
    """The `count` utterances whose alpha is closest to `query`, closest first; ties in the order of the files.

    query: {(task, stage): (L1,)}. exclude: an utterance that is not to be its own neighbour. Utterances that share no
    fusion with the query are left out.
    """
    size = len(routes.utterances)
    total, shared = np.zeros(size), np.zeros(size, np.int64)
    compared: dict[Fusion, np.ndarray] = {}
    for fusion, row in query.items():
        known = routes.alpha.get(fusion)
        row = np.asarray(row, np.float64)
        if known is None or known.shape[1] != len(row):
            continue
        distance = jensen_shannon(known.astype(np.float64), row[None])
        compared[fusion] = has = np.isfinite(distance)
        total += np.where(has, distance, 0.0)
        shared += has
    mean = np.divide(total, shared, out=np.full(size, np.inf), where=shared > 0)
    mean[routes.utterances == exclude] = np.inf
    order = np.argsort(mean, kind="stable")[: max(0, count)]
    return tuple(
        Neighbour(str(routes.utterances[i]), float(mean[i]), tuple(f for f, has in compared.items() if has[i]))
        for i in order
        if np.isfinite(mean[i])
    )
