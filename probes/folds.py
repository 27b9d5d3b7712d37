"""Who is learnt from and who is tested: folds of whole speakers (or texts), nested.

Folds are the same for all layers, targets and baselines, so that differences are paired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.data.batching import generator

LEAST_GROUPS = 3


@dataclass(frozen=True)
class Folds:
    """outer (N,): the fold that tests each utterance. inner (folds, N): fold of the inner choice, -1 where tested.
    grouped_by: what never stands in both parts (`speaker`, `text`, or `utterance`: nothing else is kept apart)."""

    outer: np.ndarray
    inner: np.ndarray
    grouped_by: str
    groups: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.inner)

    def rows(self, places: np.ndarray) -> "Folds":
        """The same folds for some of the utterances."""
        groups = tuple(self.groups[place] for place in places)
        return Folds(self.outer[places], self.inner[:, places], self.grouped_by, groups)


def check_groups(groups: Iterable[str], grouped_by: str) -> int:
    """How many there are. Raises ValueError where they are too few."""
    many = len(set(groups))
    if many < LEAST_GROUPS:
        raise ValueError(
            f"{many} {grouped_by}{'' if many == 1 else 's'}: at least {LEAST_GROUPS} are needed, to learn from some, "
            "choose on others and test on others again; give a manifest, --split or --limit with more of them"
        )
    return many


def spread(groups: Sequence[str], strata: Sequence[str], folds: int, rng: np.random.Generator) -> np.ndarray:
    """(N,): a fold for each utterance; groups stay whole, strata (constant or not within a group) and sizes even."""
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    kinds, kind = np.unique(np.asarray(strata, str), return_inverse=True)
    table = np.zeros((len(names), len(kinds)))
    np.add.at(table, (index, kind), 1)
    order = rng.permutation(len(names))
    order = order[np.argsort(-table.sum(1)[order], kind="stable")]
    filled, placed = np.zeros((folds, len(kinds))), np.zeros(len(names), int)
    for group in order:
        crowd = (filled * table[group]).sum(1)  # utterances of the same strata that are there already
        best = np.lexsort((np.arange(folds), filled.sum(1), crowd))[0]
        placed[group], filled[best] = best, filled[best] + table[group]
    return placed[index]


def make_folds(
    groups: Sequence[str], grouped_by: str, strata: Sequence[str] | None = None, folds: int = 5, inner: int = 3,
    seed: int = 0,
) -> Folds:  # fmt: skip
    """Raises ValueError where there are too few groups to learn from, choose and test."""
    groups = np.asarray(groups, str)
    strata = np.asarray([""] * len(groups) if strata is None else strata, str)
    many = check_groups(groups, grouped_by)
    rng = generator(seed, "folds", grouped_by)
    outer = spread(groups, strata, min(folds, many), rng)
    chosen = np.full((int(outer.max()) + 1, len(groups)), -1)
    for fold in range(len(chosen)):
        learn = np.flatnonzero(outer != fold)
        own = min(inner, len(np.unique(groups[learn])))
        chosen[fold, learn] = spread(groups[learn], strata[learn], own, rng)
    return Folds(outer, chosen, grouped_by, tuple(groups.tolist()))
