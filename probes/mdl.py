"""Online code length of labels given a layer (Voita & Titov 2020): how many bits a probe needs to pass them on.

Utterances come speaker after speaker. The first block is sent with the uniform code, every further one with the linear
probe fitted to all blocks before it; of the penalties the one counts that would have coded the earlier blocks best, so
that the receiver can do the same. p = (n q + 1 / K) / (n + 1) after n utterances, q being the probe's: a class that
has not come up yet costs a finite number of bits. Fewer bits, and compression = uniform code / online code above 1,
say that the layer holds the label in a form that a linear probe finds soon. Shapes: `M` layers, `N` utterances, `F`
features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.data.batching import generator
from probes.classifiers import Problem, fit_logistic
from probes.crossvalidation import STRENGTHS
from probes.design import make_design
from probes.targets import Target

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True, eq=False)
class CodeLength:
    """bits (M,): of all labels. uniform: bits of the uniform code. n: labels that were sent."""

    bits: np.ndarray
    uniform: float
    n: int

    @property
    def compression(self) -> np.ndarray:
        return self.uniform / self.bits


def block_ends(groups: Sequence[str], seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """An order (N,) of the utterances in which groups stay together, and where blocks end (whole groups)."""
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    place = generator(seed, "code").permutation(len(names))
    order = np.argsort(place[index], kind="stable")
    edges = np.flatnonzero(np.diff(place[index][order])) + 1
    edges = np.append(edges, len(order))
    ends = sorted({int(edges[np.searchsorted(edges, share * len(order) - 1e-9)]) for share in SHARES})
    return order, ends


def code_lengths(
    features: Tensor, targets: Sequence[Target], groups: Sequence[str], labels: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, CodeLength]:  # fmt: skip
    """features (M, N, F); targets of classes or words, in one order. labels: other labels instead (control tasks)."""
    order, ends = block_ends(groups, seed)
    columns = [(t, word, (labels or {}).get(t.name, t.labels)[:, word]) for t in targets for word in range(t.problems)]
    layers = len(features)
    spent = np.zeros((layers, len(STRENGTHS), len(columns)))  # bits so far, had a penalty always been used
    bits = np.zeros((layers, len(columns)))
    first = order[: ends[0]]
    for number, (target, _, codes) in enumerate(columns):
        bits[:, number] = (codes[first] >= 0).sum() * np.log2(target.width)
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        learn = np.zeros(len(order), bool)
        learn[order[:start]] = True
        for number, cost in enumerate(_block(features, columns, learn, order[start:end])):  # (M, strengths)
            best = spent[..., number].argmin(1)
            bits[:, number] += cost[np.arange(layers), best]
            spent[..., number] += cost
    found = {}
    for target in targets:
        own = [i for i, (t, _, _) in enumerate(columns) if t is target]
        sent = sum(int((columns[i][2] >= 0).sum()) for i in own)
        found[target.name] = CodeLength(bits[:, own].sum(1), sent * float(np.log2(target.width)), sent)
    return found


def _block(features: Tensor, columns, learn: np.ndarray, block: np.ndarray) -> list[np.ndarray]:
    """(M, strengths) bits of one block for each column, by the probes fitted to the utterances in `learn`."""
    design = make_design(features, learn)
    problems = [Problem(np.where(learn, codes, -1), target.width) for target, _, codes in columns]
    fitted, found = fit_logistic(design, problems, STRENGTHS), []
    for number, (target, _, codes) in enumerate(columns):
        rows = block[codes[block] >= 0]
        index = torch.from_numpy(codes[rows]).long()[:, None].expand(len(features), len(STRENGTHS), -1, 1)
        known = int((learn & (codes >= 0)).sum())
        chance = torch.softmax(fitted.logits(number, rows), -1).gather(3, index)[..., 0]  # (M, strengths, rows)
        found.append(-((known * chance + 1 / target.width) / (known + 1)).log2().sum(2).numpy())
    return found
