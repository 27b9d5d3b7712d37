"""How one utterance's layer weights stand among those that its run has logged. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.routing_index import Filter, RoutingIndex
from app.tables import layer_names
from harmonifuse_core.neighbours import Fusion

FEWEST = 10  # answers, below which a spread says little
STILL = 1e-5  # a weight with a smaller spread is the same for every recording: float32 rounds to about 1e-7


@dataclass(frozen=True, eq=False)
class Standing:
    """One task's weights of one stage, `L1` layers, among `n` logged answers.

    alpha, mean, std (L1,): this utterance's; the answers'. deviation (L1,): (alpha - mean) / std, NaN where the weight
    does not move. below (L1,): share of the answers whose weight is smaller, those that are equal counted half.
    """

    n: int
    alpha: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    below: np.ndarray

    @property
    def moves(self) -> np.ndarray:
        return self.std > STILL

    @property
    def deviation(self) -> np.ndarray:
        return np.where(self.moves, (self.alpha - self.mean) / np.where(self.moves, self.std, 1.0), np.nan)


def asked_alike(index: RoutingIndex, task: str, stage: str, prompt: str | None, corpus: str | None = None) -> Filter:
    """The logged answers to compare with: same task, stage and (where it is logged) prompt; of one corpus, or all."""
    fields = {"prompt": prompt if index.facets["prompt"] else None, "dataset": corpus}
    return Filter(task, stage, tuple((name, value) for name, value in fields.items() if value is not None))


def standing(index: RoutingIndex, wanted: Filter, alpha: np.ndarray) -> Standing | None:
    """`wanted` names task and stage. None where fewer than 10 answers are logged, or of another number of layers."""
    alpha = np.asarray(alpha, np.float64)
    if index.layers.get(wanted.stage) != len(alpha) or not np.isfinite(alpha).all():
        return None
    where, values = wanted.where()
    cells = ", ".join(
        f"avg(alpha[{k}]), stddev_samp(alpha[{k}]), "
        f"avg(CASE WHEN alpha[{k}] < ?::FLOAT THEN 1.0 WHEN alpha[{k}] = ?::FLOAT THEN 0.5 ELSE 0.0 END)"
        for k in range(1, len(alpha) + 1)
    )
    query = f"SELECT count(*), {cells} FROM answers WHERE {where}"
    n, *found = index.ask(query, [float(v) for v in np.repeat(alpha, 2)] + values).fetchone()
    if n < FEWEST:
        return None
    mean, std, below = np.array(found, np.float64).reshape(-1, 3).T
    return Standing(n, alpha, mean, std, below)


def table(found: Mapping[Fusion, Standing]) -> pd.DataFrame:
    """A row a task, stage and layer: alpha, the logged answers' mean and std, deviation, share below, their number."""
    rows = [
        {"task": task, "stage": stage, "layer": layer, "state": name, "alpha": one.alpha[layer],
         "mean": one.mean[layer], "std": one.std[layer], "deviation": one.deviation[layer],
         "below": one.below[layer], "answers": one.n}
        for (task, stage), one in found.items()
        for layer, name in enumerate(layer_names(len(one.alpha)))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def furthest(found: Mapping[Fusion, Standing]) -> tuple[Fusion, int] | None:
    """Fusion and layer with the largest deviation; None where no weight moves."""
    sizes = {fusion: np.nan_to_num(np.abs(one.deviation), nan=-1.0) for fusion, one in found.items()}
    if not sizes or max(row.max() for row in sizes.values()) < 0:
        return None
    fusion = max(sizes, key=lambda key: sizes[key].max())
    return fusion, int(sizes[fusion].argmax())


def still(found: Mapping[Fusion, Standing]) -> list[Fusion]:
    """Fusions of which no weight moves with the recording."""
    return [fusion for fusion, one in found.items() if not one.moves.any()]
