"""What faithfulness measures on a batch: every layer of both fusions removed in six ways, and layers taken away or put
in by rank. One row an utterance, task, stage and condition.

Shapes: `B` batch, `L1` states, `S` subsets of layers.
"""

from collections.abc import Iterator

import numpy as np
import torch

from harmonifuse_core.analysis.agreement import curve_points, descending, first_layers
from harmonifuse_core.analysis.interventions import (
    STAGES,
    ForcedTask,
    Score,
    forced_tasks,
    kept,
    mean_state,
    norms,
    others_state,
    partners,
    positions,
)
from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.registry import AnalysisOptions
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.randomness import generator

RANKINGS = ("alpha", "share", "norm", "raw_norm")
RANDOM = "random"
ALL_SUBSETS = 6  # layers up to which every subset is measured (62), so that random orders cost nothing more
RANDOM_ORDERS = 4  # an utterance, where there are more layers


def measure(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """All rows of a batch, every task on the utterances that have its label."""
    rows = []
    for forced in forced_tasks(model, batch):
        words = forced.words() if options.words and forced.texts is not None else None
        for stage in STAGES:
            rows += _intact(forced, stage, words)
            subsets = SubsetLosses(forced, stage)
            rows += _removals(forced, stage, subsets, options)
            rows += _curves(forced, stage, subsets, options.seed)
    return rows


def utterance_rows(forced: ForcedTask, score: Score, words=None, **columns) -> list[dict]:
    """B rows. loss: nats. error, words: word errors and reference words of text (None where not decoded), or 0 / 1 and
    1 of a class; predicted, label: class names."""
    rows = []
    for index, item in enumerate(forced.batch.items):
        row = {"utterance": item.id, "speaker": item.speaker, "dataset": item.utterance.dataset or None}
        row |= {"task": forced.task, **columns, "loss": float(score.loss[index])}
        if score.predicted is not None:
            predicted, label = forced.spec.labels[int(score.predicted[index])], item.targets[forced.task]
            row |= {"predicted": predicted, "label": label, "error": int(predicted != label), "words": 1}
        elif words is not None:
            row |= {"error": words[index].word_errors, "words": words[index].reference_words}
        rows.append(row)
    return rows


def _intact(forced: ForcedTask, stage: str, words) -> list[dict]:
    fused = forced.fused(stage)
    weights = dict(zip(("norm", "raw_norm"), norms(forced, stage), strict=True))
    weights |= {name: forced.per_utterance(stage, getattr(fused, name)) for name in ("alpha", "share")}
    rows = utterance_rows(forced, forced.score, words, stage=stage, condition="intact")
    for index, row in enumerate(rows):
        row |= {name: value[index].float().tolist() for name, value in weights.items()}
    return rows


class SubsetLosses:
    """Answers with only some layers kept and their weights scaled up to the former sum, each subset measured once.

    Up to `ALL_SUBSETS` layers all proper subsets are measured at the start, later ones on demand.
    """

    def __init__(self, forced: ForcedTask, stage: str):
        self.forced, self.stage = forced, stage
        self.alpha, self.device = forced.fused(stage).alpha, forced.model.device
        self.layers, self.table = self.alpha.shape[-1], {}
        if self.layers <= ALL_SUBSETS:
            for code in range(1, 2**self.layers - 1):
                keep = np.array([bool(code >> layer & 1) for layer in range(self.layers)])
                self.table[code] = self._measured(np.broadcast_to(keep, (len(forced.batch.items), self.layers)))

    def _measured(self, keep: np.ndarray) -> Score:
        mask = torch.tensor(keep, device=self.device)
        return self.forced.under(self.stage, kept(self.alpha, mask if self.stage == "encoder" else mask[:, None]))

    def __call__(self, keep: np.ndarray) -> Score:
        """keep: (B, L1) bool, some and not all of each row."""
        if not self.table:
            return self._measured(keep)
        codes = (keep * (1 << np.arange(self.layers))).sum(1)
        loss = torch.stack([self.table[int(code)].loss[row] for row, code in enumerate(codes)])
        if self.forced.score.predicted is None:
            return Score(loss)
        return Score(loss, torch.stack([self.table[int(code)].predicted[row] for row, code in enumerate(codes)]))

    def random(self, count: int, seeds: list[np.random.Generator]) -> torch.Tensor:
        """(B,) mean loss with `count` layers kept: over all such subsets, or over `RANDOM_ORDERS` drawn ones."""
        if self.table:
            return torch.stack([s.loss for code, s in self.table.items() if code.bit_count() == count]).mean(0)
        orders = [np.stack([rng.permutation(self.layers) for rng in seeds]) for _ in range(RANDOM_ORDERS)]
        return torch.stack([self._measured(first_layers(order, count)).loss for order in orders]).mean(0)


def _removals(forced: ForcedTask, stage: str, subsets: SubsetLosses, options: AnalysisOptions) -> Iterator[dict]:
    batch, alpha = forced.batch, forced.fused(stage).alpha
    layers, states, valid = alpha.shape[-1], forced.states(stage), positions(forced, stage)
    partner = partners(batch, options.seed)
    static = not bool(forced.fused(stage).score.any())  # its weights are the same on any states
    for layer in range(layers):
        keep = np.ones(layers, bool)
        keep[layer] = False
        mask = torch.tensor(keep, device=alpha.device)
        words = None
        if options.words and forced.texts is not None:
            words = forced.words(stage, lambda own, mask=mask: kept(own, mask))
        removed = subsets(np.broadcast_to(keep, (len(batch.items), layers)))
        where = {"stage": stage, "layer": layer}
        yield from utterance_rows(forced, removed, words, condition="zero", weights="renormalised", **where)
        held = forced.under(stage, kept(alpha, mask, renormalise=False))
        yield from utterance_rows(forced, held, condition="zero", weights="held", **where)
        if partner is None:
            continue
        strange = {"mean": mean_state(states[layer], valid), "other": others_state(states[layer], valid, partner)}
        for condition, state in strange.items():
            changed = (*states[:layer], state, *states[layer + 1 :])
            held = forced.under(stage, alpha, changed)
            yield from utterance_rows(forced, held, condition=condition, weights="held", **where)
            again = held if static else forced.under(stage, None, changed)
            yield from utterance_rows(forced, again, condition=condition, weights="renormalised", **where)


def _curves(forced: ForcedTask, stage: str, subsets: SubsetLosses, seed: int) -> Iterator[dict]:
    fused, layers = forced.fused(stage), subsets.layers
    norm, raw_norm = norms(forced, stage)
    named = {name: forced.per_utterance(stage, getattr(fused, name)) for name in ("alpha", "share")}
    named |= {"norm": norm, "raw_norm": raw_norm}
    seeds = [generator(seed, "order", item.id) for item in forced.batch.items]
    orders = {}
    for ranking in RANKINGS:
        weights = named[ranking].float().cpu().numpy()
        orders[ranking] = np.stack([descending(row, rng) for row, rng in zip(weights, seeds, strict=True)])
    for count in curve_points(layers):
        for ranking, order in orders.items():
            top = first_layers(order, count)
            for curve, keep in (("deletion", ~top), ("insertion", top)):
                where = {"stage": stage, "condition": curve, "ranking": ranking, "layers": count}
                yield from utterance_rows(forced, subsets(keep), **where)
        for curve, left in (("deletion", layers - count), ("insertion", count)):
            where = {"stage": stage, "condition": curve, "ranking": RANDOM, "layers": count}
            yield from utterance_rows(forced, Score(subsets.random(left, seeds)), **where)
