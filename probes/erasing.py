"""What a concept's erasure does to a run: WER and UA with LEACE at a layer, against random subspaces of equal rank.

The gated fusion reads the changed state; the encoder's later blocks ran on the intact one, so that erasure at a single
layer leaves what the others hold (layer None: every layer at once, each with its own eraser). Erasers are fitted on the
frames of one half of the speakers and applied to the other half. Shapes: `B` batch, `T` frames, `L1` states, `D` width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from harmonifuse_core.analysis.interventions import ForcedTask
from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.result import Table, columns_of
from harmonifuse_core.bootstrap import interval_of, units_of
from harmonifuse_core.data.batching import generator
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from probes.crossvalidation import cross_validate
from probes.erasure import Eraser, Moments, leace, random_eraser
from probes.folds import spread
from probes.probing import Material
from probes.readers import pooled
from probes.tally import Tally, tally_classes

DRAWS = 3
DEFINITION = (
    "The concept is erased by LEACE (Belrose et al. 2023) from the frames of one encoder layer as the gated fusion "
    "reads it (layer null: of every layer at once), later blocks having run on intact states; random: as many random "
    "directions of the same whitened space, mean of `draws` draws. Erasers are fitted on one half of the speakers and "
    "applied to the other. wer: greedy decoding, corpus-level. ua: mean recall of the head's answers. change: against "
    "intact; beyond_random: LEACE minus the mean of the random draws; a positive value harms WER, a negative one UA. "
    "concept_score: UA of a cross-validated linear probe for the concept on the changed layer's mean over time. "
    "Intervals: 95 % percentile bootstrap over speakers."
)


@dataclass(frozen=True)
class Condition:
    """layer: None for all at once. method: intact, leace or random (draw 0, 1, ...)."""

    layer: int | None
    method: str
    draw: int = 0


def conditions_of(layers: Sequence[int | None], draws: int = DRAWS) -> list[Condition]:
    changed = [
        [Condition(layer, "leace"), *(Condition(layer, "random", draw) for draw in range(draws))] for layer in layers
    ]
    return [Condition(None, "intact"), *(c for group in changed for c in group)]


class Halves:
    """Erasers of every layer, fitted on half 0 and half 1 of the speakers. halves: {utterance: 0 or 1}."""

    def __init__(self, codes: dict[str, int], speakers: dict[str, str], classes: int, seed: int = 0):
        names = [name for name in codes if codes[name] >= 0]
        groups = [speakers[name] for name in names]
        if len(set(groups)) < 2:
            raise ValueError("erasure: one speaker only; two are needed, to fit on one and test on the other")
        placed = spread(groups, [str(codes[n]) for n in names], 2, generator(seed, "halves"))
        self.half = dict(zip(names, placed.tolist(), strict=True))
        self.codes, self.classes, self.seed = codes, classes, seed
        self.moments: list[list[Moments]] = []
        self._found: dict[tuple, Eraser] = {}

    def add(self, batch: SpeechBatch):
        states, mask = batch.states.states, batch.states.mask
        if not self.moments:
            self.moments = [[Moments(s.shape[-1], self.classes) for s in states] for _ in range(2)]
        for half in (0, 1):
            rows = [i for i, item in enumerate(batch.items) if self.half.get(item.id) == half]
            if not rows:
                continue
            index, codes = torch.tensor(rows), torch.tensor([self.codes[batch.items[i].id] for i in rows])
            keep = mask[index]
            spoken = codes[:, None].expand(-1, keep.shape[1])[keep.cpu()]
            for layer, state in enumerate(states):
                self.moments[half][layer].add(state[index][keep], spoken)

    def eraser(self, condition: Condition, layer: int, half: int) -> Eraser:
        """For utterances of `half`: fitted on the other."""
        key = (condition.method, condition.draw, layer, half)
        if key not in self._found:
            moments = self.moments[1 - half][layer]
            if condition.method == "leace":
                self._found[key] = leace(moments)
            else:
                rank = self.eraser(Condition(layer, "leace"), layer, half).rank
                self._found[key] = random_eraser(moments, rank, generator(self.seed, "subspace", *key))
        return self._found[key]

    def changed(self, batch: SpeechBatch, condition: Condition, half: int) -> SpeechBatch:
        """The batch, all of one half, as the fusion hears it under the condition."""
        if condition.method == "intact":
            return batch
        states = tuple(
            self.eraser(condition, layer, half)(state) if condition.layer in (None, layer) else state
            for layer, state in enumerate(batch.states.states)
        )
        return replace(batch, states=replace(batch.states, states=states))


@dataclass
class Measured:
    """Of one utterance. errors, predicted: {task: word errors or class code under each condition}; words, label: of the
    reference. means: {place: (D,) mean over time of the changed layer}, see `shown`."""

    id: str
    errors: dict[str, list[int]]
    words: dict[str, int]
    predicted: dict[str, list[int]]
    label: dict[str, int]
    means: dict[int, np.ndarray]


@torch.inference_mode()
def measure(
    model: HarmoniFuse, batch: SpeechBatch, halves: Halves, conditions: Sequence[Condition], words: bool = True
) -> Iterator[Measured]:  # fmt: skip
    """The utterances of a batch that have the concept's label. words: decode transcripts too (dear)."""
    for half in (0, 1):
        rows = [i for i, item in enumerate(batch.items) if halves.half.get(item.id) == half]
        if not rows:
            continue
        part = batch.rows(rows)
        found = {item.id: Measured(item.id, {}, {}, {}, {}, {}) for item in part.items}
        for number, condition in enumerate(conditions):
            changed = halves.changed(part, condition, half)
            for layer, place in shown(number, conditions):
                state = changed.states.states[layer]
                means = pooled([state], changed.states.mask)[:, 0, : state.shape[-1]]
                for item, mean in zip(part.items, means.cpu().numpy(), strict=True):
                    found[item.id].means[place] = mean
            for task in model.config.tasks:
                labelled = changed.labelled(task.name)
                if labelled is None or (task.is_transcription and not words):
                    continue
                _answer(ForcedTask(model, labelled, task.name), found)
        yield from found.values()


def shown(number: int, conditions: Sequence[Condition]) -> list[tuple[int, int]]:
    """(layer, place) of the means that are kept: of the changed layer at the condition's number; of intact speech those
    of every layer that some condition changes, at -1 - layer."""
    condition = conditions[number]
    if condition.method == "intact":
        return [(layer, -1 - layer) for layer in sorted({c.layer for c in conditions if c.layer is not None})]
    return [] if condition.layer is None else [(condition.layer, number)]


def _answer(forced: ForcedTask, found: dict[str, Measured]):
    task = forced.task
    if forced.texts is None:
        for item, code in zip(forced.batch.items, forced.score.predicted.tolist(), strict=True):
            found[item.id].predicted.setdefault(task, []).append(code)
            found[item.id].label[task] = forced.spec.labels.index(item.targets[task])
        return
    for item, counts in zip(forced.batch.items, forced.words(), strict=True):
        found[item.id].errors.setdefault(task, []).append(counts.word_errors)
        found[item.id].words[task] = counts.reference_words


def erasure_table(
    concept: str, measured: Sequence[Measured], conditions: Sequence[Condition], halves: Halves, material: Material,
    utterances: Sequence[str], model: HarmoniFuse,
) -> Table:  # fmt: skip
    """utterances: ids in the order of the material's rows."""
    place = {name: i for i, name in enumerate(utterances)}
    measured = [m for m in measured if m.id in place]
    speakers = [material.speakers[place[m.id]] for m in measured]
    options = {"resamples": material.options.resamples, "seed": material.options.seed}
    concepts = concept_scores(concept, measured, conditions, material, place)
    rows = []
    for task in model.config.tasks:
        own = [i for i, m in enumerate(measured) if m.errors.get(task.name) or m.predicted.get(task.name)]
        if not own:
            continue
        some, groups = [measured[i] for i in own], [speakers[i] for i in own]
        if task.is_transcription:
            errors = np.array([m.errors[task.name] for m in some], float)
            total = np.array([m.words[task.name] for m in some], float)
            tally = word_tally(errors, total, groups, **options)
        else:
            labels = np.array([[m.label[task.name]] for m in some])
            predicted = np.array([m.predicted[task.name] for m in some]).T[..., None]
            tally = tally_classes(labels, predicted, len(task.labels), groups, **options)
        for row in condition_rows(tally, conditions):
            rank = None
            if row["method"] != "intact":
                layer = row["layer"] or 0
                rank = halves.eraser(Condition(row["layer"], "leace"), layer, 0).rank
            head = {"concept": concept, "layer": row.pop("layer"), "method": row.pop("method"), "rank": rank}
            head |= {"task": task.name, "metric": "wer" if task.is_transcription else "ua"}
            score = concepts.get((head["layer"], head["method"]))
            rows.append(head | row | {"concept_score": score, "n": len(own), "speakers": len(set(groups))})
    for (layer, method), score in concepts.items():
        if method == "intact":
            rows.append({"concept": concept, "layer": layer, "method": "intact", "rank": None, "task": None,
                         "metric": None, "concept_score": score, "n": len(measured),
                         "speakers": len(set(speakers))})  # fmt: skip
    return Table("erasure", DEFINITION, tuple(rows))


def word_tally(errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], **options) -> Tally:
    """errors (N, conditions), words (N,)."""
    units = units_of(speakers, len(errors))
    right, total = np.zeros((units.count, errors.shape[1], 1)), np.zeros((units.count, 1))
    np.add.at(right[..., 0], units.index, errors)
    np.add.at(total[:, 0], units.index, words)
    return Tally("wer", right, total, units, **options)


def condition_rows(tally: Tally, conditions: Sequence[Condition]) -> Iterator[dict]:
    """Random draws are averaged, so that a row stands for each layer and method."""
    groups: dict[tuple, list[int]] = {}
    for number, condition in enumerate(conditions):
        groups.setdefault((condition.layer, condition.method), []).append(number)

    def interval(values: np.ndarray, draws: np.ndarray):
        return interval_of(float(values), draws, tally.units, tally.seed)

    for (layer, method), own in groups.items():
        value, draws = tally.scores[own].mean(), tally.draws[:, own].mean(1)
        row = {"layer": layer, "method": method} | columns_of("value", interval(value, draws))
        none = {"change": None, "change_low": None, "change_high": None}
        changed = columns_of("change", interval(value - tally.scores[0], draws - tally.draws[:, 0]))
        row |= none if method == "intact" else changed
        row |= {"beyond_random": None, "beyond_random_low": None, "beyond_random_high": None}
        if method == "leace" and (drawn := groups.get((layer, "random"))):
            beyond = interval(value - tally.scores[drawn].mean(), draws - tally.draws[:, drawn].mean(1))
            row |= columns_of("beyond_random", beyond)
        yield row | {"draws": len(own) if method == "random" else None}


def concept_scores(
    concept: str, measured: Sequence[Measured], conditions: Sequence[Condition], material: Material,
    place: dict[str, int],
) -> dict[tuple, float]:  # fmt: skip
    """{(layer, method): UA of a linear probe for the concept}, of random the mean over draws."""
    target = next(t for t in material.targets if t.name == concept)
    keys = sorted(measured[0].means, key=lambda k: (k >= 0, abs(k))) if measured else []
    if not keys:
        return {}
    rows = np.array([place[m.id] for m in measured])
    features = np.stack([np.stack([m.means[key] for m in measured]) for key in keys])  # (conditions, n, D)
    own, folds = replace(target, labels=target.labels[rows]), material.folds[concept].rows(rows)
    controls = {concept: material.controls[concept][rows]}
    answers = cross_validate(torch.from_numpy(features.astype(np.float32)), [own], folds, controls)[concept]
    speakers = [material.speakers[row] for row in rows]
    tally = tally_classes(own.labels, answers.predicted, own.width, speakers)
    scores: dict[tuple, list[float]] = {}
    for number, key in enumerate(keys):
        known = (-1 - key, "intact") if key < 0 else (conditions[key].layer, conditions[key].method)
        scores.setdefault(known, []).append(float(tally.scores[number]))
    return {key: float(np.mean(values)) for key, values in scores.items()}
