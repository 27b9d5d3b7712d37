"""What pages ask of the routing index: group means with their spread, paired task differences, points to draw. Pure.

Shapes: `L1` states of a stage; layer 0 is the state before the first block.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from app.routing_index import EVALUATION, FIELDS, NUMBERS, Filter, RoutingIndex

WEIGHTS = ("alpha", "share")
GROUPS = tuple(name for name in FIELDS if name != EVALUATION)
MOST_GROUPS = 30
MOST_POINTS = (500, 1000, 3000, 5000)  # drawn at once: the time of a browser grows with them
SAMPLE = 3000  # of an embedding: UMAP takes seconds for them, minutes for all of a large run
VECTORS = 32  # of 2,048 rows: read at once, so that memory stays flat
PLACES = {"pca": "PCA of alpha", "umap": "UMAP of alpha", "shape": "Entropy and centre of mass"}
POINT_COLUMNS = ("utterance", "task", "stage", "label", "prediction", "reference", "outcome", *NUMBERS, "speaker",
                 "gender", "age", "language", "dataset", "split", "intensity", "prompt", "audio",
                 "prediction_class", "entropy", "centre", "top")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Means:
    """Rows of one stage. names: what each row is (task, or group). mean, std (R, L1) over n (R,) answers."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    n: tuple[int, ...]
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class Plane:
    """Two directions of greatest variance of (N, L1) weights: centre (L1,), axes (2, L1), share (2,) of variance."""

    centre: np.ndarray
    axes: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Embedding:
    """UMAP of a sample of one task's and stage's answers: rows (n,) of the index, spots (n, 2)."""

    rows: np.ndarray
    spots: np.ndarray


@dataclass(frozen=True, eq=False)
class Points:
    """table: a row a point with `x` and `y`; total: how many answers the filter left. plane: None unless PCA."""

    table: pd.DataFrame
    total: int
    plane: Plane | None = None


def group_means(index: RoutingIndex, wanted: Filter, weights: str, by: str = "task") -> Means:
    """Mean and standard deviation over answers of each group, the largest 30 of them; `wanted` names the stage."""
    if by != "task" and by not in GROUPS or weights not in WEIGHTS:
        raise ValueError(f"routing has no field {by!r} or no weights {weights!r}")
    size = index.layers[wanted.stage]
    where, values = wanted.where()
    cells = ", ".join(f"avg({weights}[{k}]), stddev_pop({weights}[{k}])" for k in range(1, size + 1))
    order = "1" if by == "task" else "2 DESC, 1"
    query = f"SELECT {by}, count(*), {cells} FROM answers WHERE {where} AND {by} IS NOT NULL AND {weights} IS NOT NULL "
    rows = index.ask(f"{query} GROUP BY 1 ORDER BY {order}", values).fetchall()
    left_out, rows = max(0, len(rows) - MOST_GROUPS), rows[:MOST_GROUPS]
    if by != "task":
        rows = sorted(rows, key=lambda row: str(row[0]))
    cells = np.array([row[2:] for row in rows], np.float64).reshape(len(rows), size, 2)
    return Means(tuple(str(r[0]) for r in rows), cells[..., 0], cells[..., 1], tuple(int(r[1]) for r in rows), left_out)


def task_difference(index: RoutingIndex, wanted: Filter, weights: str, first: str, second: str) -> Means:
    """First minus second task on the same utterances: one row with the mean, std and number of the paired differences.

    Of several prompts for one task, their mean counts. No row where no utterance was answered by both.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"routing has no weights {weights!r}")
    size, parts, values = index.layers[wanted.stage], [], []
    for task in (first, second):
        where, mine = replace(wanted, task=task).where()
        cells = ", ".join(f"avg({weights}[{k}]) AS w{k}" for k in range(1, size + 1))
        parts.append(f"(SELECT utterance, {cells} FROM answers WHERE {where} AND {weights} IS NOT NULL GROUP BY 1)")
        values += mine
    cells = ", ".join(f"avg(a.w{k} - b.w{k}), stddev_pop(a.w{k} - b.w{k})" for k in range(1, size + 1))
    query = f"SELECT count(*), {cells} FROM {parts[0]} a JOIN {parts[1]} b USING (utterance)"
    count, *found = index.ask(query, values).fetchone()
    if not count:
        return Means((), np.zeros((0, size)), np.zeros((0, size)), ())
    cells = np.array(found, np.float64).reshape(1, size, 2)
    return Means((f"{first} minus {second}",), cells[..., 0], cells[..., 1], (int(count),))


def plane(index: RoutingIndex, task: str, stage: str) -> Plane:
    """PCA of the alpha of every answer of a task and stage, by SVD of their covariance; signs are fixed.

    It reads all of them, filtered or not, so that points keep their places when the filter changes.
    """
    where, values = Filter(task=task, stage=stage).where()
    size = index.layers[stage]
    count, total, square = 0, np.zeros(size), np.zeros((size, size))
    cells = ", ".join(f"alpha[{k}]" for k in range(1, size + 1))
    cursor = index.ask(f"SELECT {cells} FROM answers WHERE {where}", values)
    while len(chunk := cursor.fetch_df_chunk(VECTORS).to_numpy(np.float64)):
        count += len(chunk)
        total += chunk.sum(0)
        square += chunk.T @ chunk
    if not count:
        return Plane(np.zeros(size), np.zeros((2, size)), np.zeros(2))
    centre = total / count
    axes, sizes, _ = np.linalg.svd(square / count - np.outer(centre, centre))
    axes = np.pad(axes.T, ((0, max(0, 2 - size)), (0, 0)))[:2]
    axes = axes * np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    variance = sizes.sum()
    share = np.pad(sizes[:2] / variance if variance > 1e-15 else np.zeros(min(2, size)), (0, max(0, 2 - size)))
    return Plane(centre, axes, share)


def embedding(index: RoutingIndex, task: str, stage: str, most: int = SAMPLE) -> Embedding:
    """UMAP (probes.projection: standardised, 15 neighbours, seed 0) of the first `most` in the index's random order.

    Filtered or not, so that points keep their places. Raises ValueError for too few answers to have 15 neighbours.
    """
    from probes.projection import NEIGHBOURS, project  # scikit-learn: only where asked

    where, values = Filter(task=task, stage=stage).where()
    rows = index.ask(f"SELECT rowid, alpha FROM answers WHERE {where} LIMIT {int(most)}", values).df()
    found = project(np.stack(list(rows["alpha"])).astype(np.float64), umap=True).umap if len(rows) else None
    if found is None:
        raise ValueError(f"UMAP needs more than {NEIGHBOURS} logged answers, {len(rows)} are here: take another plane")
    return Embedding(rows["rowid"].to_numpy(), found)


def points(
    index: RoutingIndex, wanted: Filter, place: str, found: Plane | Embedding | None, most: int = MOST_POINTS[0]
) -> Points:
    """At most `most` answers of one task and stage, with coordinates: the first of the index's fixed random order.

    Of an Embedding, those of its sample that fit.
    """
    where, values = wanted.where()
    total = index.ask(f"SELECT count(*) FROM answers WHERE {where}", values).fetchone()[0]
    if isinstance(found, Embedding):
        where, values = f"{where} AND list_contains(?::BIGINT[], rowid)", [*values, found.rows.tolist()]
    columns = ", ".join(POINT_COLUMNS) + ", array_to_string(list_sort(evaluations), ', ') AS evaluations"
    rows = index.ask(f"SELECT rowid AS row, {columns}, alpha FROM answers WHERE {where} LIMIT {int(most)}", values).df()
    alpha, row = rows.pop("alpha"), rows.pop("row")
    if isinstance(found, Embedding):
        spots = found.spots[pd.Index(found.rows).get_indexer(row)]
    elif place == "pca" and found is not None and len(rows):
        spots = (np.stack(list(alpha)).astype(np.float64) - found.centre) @ found.axes.T
    else:
        spots = rows[["centre", "entropy"]].to_numpy(np.float64).reshape(len(rows), 2)
    rows.insert(0, "x", spots[:, 0])
    rows.insert(1, "y", spots[:, 1])
    return Points(rows, total, found if isinstance(found, Plane) else None)
