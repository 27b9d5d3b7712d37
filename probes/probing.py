"""The survey: every layer, target and probe in the same folds, with controls; what each layer scores, by how much.

Shapes: `M` layers, `N` utterances, `F` features, `W` problems of a target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.metrics import normalize_text
from probes.controls import control_labels, is_constant
from probes.crossvalidation import Answers, cross_validate
from probes.folds import Folds, make_folds
from probes.mdl import CodeLength, code_lengths
from probes.tally import Tally, tally_classes, tally_numbers
from probes.targets import Target

FIT_BYTES = 256 * 2**20  # of features that are fitted together


@dataclass(frozen=True)
class Options:
    """probes: of linear and mlp. folds, inner: outer and inner ones. resamples: of the bootstrap."""

    probes: tuple[str, ...] = ("linear", "mlp")
    folds: int = 5
    inner: int = 3
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Representation:
    """features (M, N, F), or for coordinates of alpha (1, N, L1). stage: encoder, lm; for baselines random encoder,
    log-mel, duration. task: whose prompt the LM read, else None."""

    stage: str
    task: str | None
    features: np.ndarray = field(repr=False)

    @property
    def about(self) -> str:
        return f"{self.stage} {self.task}" if self.task else self.stage


@dataclass(frozen=True, eq=False)
class Material:
    """Targets with the folds and controls that all representations share. speakers: an utterance without is its own."""

    targets: tuple[Target, ...]
    speakers: tuple[str, ...]
    folds: Mapping[str, Folds]  # by target
    controls: Mapping[str, np.ndarray]
    options: Options

    def schemes(self) -> list[tuple[Folds, list[Target]]]:
        """Targets that are tested in the same folds, together."""
        found: dict[int, tuple[Folds, list[Target]]] = {}
        for target in self.targets:
            folds = self.folds[target.name]
            found.setdefault(id(folds), (folds, []))[1].append(target)
        return list(found.values())

    def tally(self, target: Target, labels: np.ndarray, answers: np.ndarray, means: np.ndarray) -> Tally:
        """answers (M, N, W) to `labels`."""
        options = {"resamples": self.options.resamples, "seed": self.options.seed}
        if target.is_number:
            return tally_numbers(labels, answers[..., 0], means, self.speakers, **options)
        return tally_classes(labels, answers, target.width, self.speakers, **options)


@dataclass(frozen=True, eq=False)
class Outcome:
    """One representation, target and probe. control: the same probe on the control task; memorised: its answers on
    utterances that it has learnt from. code, control_code: of linear probes on classes and words."""

    target: Target
    probe: str
    answers: Answers
    tally: Tally
    control: Tally
    memorised: Tally
    code: CodeLength | None = None
    control_code: CodeLength | None = None

    @property
    def accuracy(self) -> np.ndarray | None:
        """(M,): plain share of right answers; None of words and numbers."""
        if self.target.kind != "classes":
            return None
        known = self.target.known
        return (self.answers.predicted[:, known, 0] == self.target.labels[known, 0]).mean(1)


def prepare(targets: Sequence[Target], utterances: Sequence[Utterance], options: Options) -> Material:
    """Folds of speakers, with what is constant within a speaker spread evenly; the target `speaker` in folds of texts.

    Raises ValueError for too few speakers.
    """
    speakers = tuple(u.speaker or u.id for u in utterances)
    constant = [t for t in targets if t.kind == "classes" and t.name != "speaker" and is_constant(t.labels, speakers)]
    strata = ["/".join([u.dataset, *(str(t.labels[i, 0]) for t in constant)]) for i, u in enumerate(utterances)]
    by_speaker, folds = None, {}
    for target in targets:
        if target.name == "speaker":
            groups, grouped_by = _texts(utterances, options.folds)
            folds[target.name] = make_folds(groups, grouped_by, speakers, options.folds, options.inner, options.seed)
        else:
            by_speaker = by_speaker or make_folds(
                speakers, "speaker", strata, options.folds, options.inner, options.seed
            )
            folds[target.name] = by_speaker
    controls = {t.name: control_labels(t.labels, speakers, t.name, options.seed) for t in targets}
    return Material(tuple(targets), speakers, folds, controls, options)


def _texts(utterances: Sequence[Utterance], folds: int) -> tuple[list[str], str]:
    """Groups for telling speakers apart: what they say, where that gives enough groups; else each utterance alone."""
    texts = [normalize_text(u.text) if u.text else u.id for u in utterances]
    return (texts, "text") if len(set(texts)) >= 4 * folds else ([u.id for u in utterances], "utterance")


def probe(
    material: Material, representation: Representation, kind: str, on_fit: Callable[[], None] = lambda: None
) -> list[Outcome]:  # fmt: skip
    """All targets of one representation by one kind of probe, a bounded number of layers at a time."""
    features, options, found = representation.features, material.options, []
    chunk = max(1, FIT_BYTES // max(1, features[0].nbytes))
    for folds, targets in material.schemes():
        parts: list[dict] = []
        for start in range(0, len(features), chunk):
            layers = torch.from_numpy(np.ascontiguousarray(features[start : start + chunk], np.float32))
            parts.append(cross_validate(layers, targets, folds, material.controls, kind, options.seed))
            on_fit()
        codes, control_codes = {}, {}
        if kind == "linear" and representation.stage in ("encoder", "lm"):
            classes = [t for t in targets if not t.is_number]
            codes = _codes(features, chunk, classes, folds, None, options.seed)
            control_codes = _codes(features, chunk, classes, folds, material.controls, options.seed)
        for target in targets:
            answers = joined([part[target.name] for part in parts])
            control, means = material.controls[target.name], answers.means
            found.append(
                Outcome(
                    target, kind, answers,
                    material.tally(target, target.labels, answers.predicted, means),
                    material.tally(target, control, answers.control, means),
                    material.tally(target, control, answers.memorised, means),
                    codes.get(target.name), control_codes.get(target.name),
                )
            )  # fmt: skip
    return sorted(found, key=lambda outcome: material.targets.index(outcome.target))


def _codes(features, chunk: int, targets, folds: Folds, labels, seed: int) -> dict[str, CodeLength]:
    if not targets:
        return {}
    parts = []
    for start in range(0, len(features), chunk):
        layers = torch.from_numpy(np.ascontiguousarray(features[start : start + chunk], np.float32))
        parts.append(code_lengths(layers, targets, folds.groups, labels, seed))
    return {
        t.name: CodeLength(
            np.concatenate([p[t.name].bits for p in parts]), parts[0][t.name].uniform, parts[0][t.name].n
        )
        for t in targets
    }


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers of consecutive layers as one."""
    arrays = [
        np.concatenate([getattr(p, name) for p in parts]) for name in ("predicted", "control", "memorised", "chosen")
    ]
    return Answers(*arrays, parts[0].means)


def majority(material: Material, target: Target) -> Tally:
    """The most frequent class of the training part, or its mean, for every tested utterance."""
    folds, labels = material.folds[target.name], target.labels
    answers = np.zeros((1, len(labels), target.problems), labels.dtype)
    means = np.zeros(len(labels))
    for fold in range(folds.count):
        tested, learn = folds.outer == fold, (folds.outer != fold) & target.known
        if target.is_number:
            answers[:, tested, 0] = means[tested] = labels[learn].mean()
            continue
        for word in range(target.problems):
            answers[:, tested, word] = np.bincount(labels[learn, word], minlength=target.width).argmax()
    return material.tally(target, labels, answers, means)
