"""Numbers behind the maps of layer weights, in rows that can be read and exported. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.routing_views import Means
from app.tables import layer_names


@dataclass(frozen=True, eq=False)
class SeedSpread:
    """mean, std (K, L1) over runs that differ by their seed only; std with n - 1. runs: their names."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    runs: tuple[str, ...]


def means_table(found: Mapping[tuple[str, str], Means], what: str = "task") -> pd.DataFrame:
    """Long form of {(stage, weights): Means}: a row a stage, weights, group and layer."""
    rows = []
    for (stage, weights), means in found.items():
        for place, name in enumerate(means.names):
            for layer, state in enumerate(layer_names(means.mean.shape[1])):
                rows.append({
                    "stage": stage, "weights": weights, what: name, "layer": layer, "state": state,
                    "mean": means.mean[place, layer], "std": means.std[place, layer], "answers": means.n[place],
                })  # fmt: skip
    return pd.DataFrame(rows, columns=["stage", "weights", what, "layer", "state", "mean", "std", "answers"])


def seed_spread(runs: Mapping[str, Means]) -> SeedSpread | None:
    """Of the runs' means, over the tasks that all have; None below two runs or where layers differ."""
    if len(runs) < 2 or len({m.mean.shape[1] for m in runs.values()}) > 1:
        return None
    names = [n for n in next(iter(runs.values())).names if all(n in m.names for m in runs.values())]
    if not names:
        return None
    stack = np.stack([m.mean[[m.names.index(n) for n in names]] for m in runs.values()])
    return SeedSpread(tuple(names), stack.mean(0), stack.std(0, ddof=1), tuple(runs))


def seed_table(found: Mapping[tuple[str, str], SeedSpread]) -> pd.DataFrame:
    as_means = {
        key: Means(s.names, s.mean, s.std, (len(s.runs),) * len(s.names)) for key, s in found.items()
    }  # fmt: skip
    return means_table(as_means).rename(columns={"answers": "runs", "std": "std over runs", "mean": "mean over runs"})


def step_table(step: int, grids: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> pd.DataFrame:
    """{stage: (tasks, (K, L1))} of one training step, in long form."""
    rows = [
        {"step": step, "stage": stage, "task": task, "layer": layer, "state": state, "alpha": float(grid[place, layer])}
        for stage, (tasks, grid) in grids.items()
        for place, task in enumerate(tasks)
        for layer, state in enumerate(layer_names(grid.shape[1]))
    ]
    return pd.DataFrame(rows, columns=["step", "stage", "task", "layer", "state", "alpha"])
