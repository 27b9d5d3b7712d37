"""Nested cross-validation of the probes of all layers and targets: out-of-fold answers, also on the control tasks.

For every outer fold the penalty is chosen on inner folds of the training speakers, for each layer and target apart; the
probe is then fitted on the whole training part and answers for the tested speakers. The control is fitted with the
penalty of its target. Answers are argmax(log p - log prior): the decision that is best for the mean recall (UA).
Shapes: `M` layers, `N` utterances, `F` features, `W` problems of a target (1, or one a word).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.classifiers import Problem, fit_logistic, fit_ridge
from probes.design import Design, make_design
from probes.folds import Folds
from probes.perceptron import Task, fit_perceptrons
from probes.targets import Target

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of ridge, a training utterance
ROUGH = 3e-5  # tolerance of the fits that only choose among `STRENGTHS`
KINDS = ("linear", "mlp")


@dataclass(eq=False)
class Answers:
    """Of one target. predicted, control (M, N, W): class codes, or numbers (W = 1); -1 or NaN where not tested.
    memorised: (M, N, W), the control's answer on utterances it has learnt from (of the first fold that learnt them).
    chosen (M, folds): penalty. means (N,): of the training part that each one was tested against (numbers)."""

    predicted: np.ndarray
    control: np.ndarray
    memorised: np.ndarray
    chosen: np.ndarray
    means: np.ndarray

    @classmethod
    def empty(cls, target: Target, layers: int, folds: int) -> "Answers":
        shape, fill = (layers, *target.labels.shape[:1], target.problems), np.nan if target.is_number else -1
        kind = float if target.is_number else int
        full = [np.full(shape, fill, kind) for _ in range(3)]
        return cls(*full, np.full((layers, folds), np.nan), np.zeros(len(target.labels)))


def cross_validate(
    features: Tensor, targets: Sequence[Target], folds: Folds, controls: Mapping[str, np.ndarray],
    probe: str = "linear", seed: int = 0,
) -> dict[str, Answers]:  # fmt: skip
    """features (M, N, F). controls: {target: labels of its control task}. Every target is tested in the same folds."""
    found = {t.name: Answers.empty(t, len(features), folds.count) for t in targets}
    for fold in range(folds.count):
        design = make_design(features, folds.outer != fold)
        if probe == "mlp":
            _perceptrons(design, targets, folds, fold, controls, found, seed)
            continue
        if classes := [t for t in targets if not t.is_number]:
            _classes(design, classes, folds, fold, controls, found)
        for target in targets:
            if target.is_number:
                _numbers(design, target, folds, fold, controls[target.name], found[target.name])
    return found


def _keep(answers: Answers, fold: int, folds: Folds, word: int, predicted: np.ndarray, control: np.ndarray):
    """Of answers (M, N) keep those of tested utterances; of the control also some that it has learnt from."""
    tested = folds.outer == fold
    answers.predicted[:, tested, word] = predicted[:, tested]
    answers.control[:, tested, word] = control[:, tested]
    learnt = folds.outer == (fold + 1) % folds.count
    answers.memorised[:, learnt, word] = control[:, learnt]


def decide(logits: Tensor, codes: np.ndarray) -> np.ndarray:
    """(M, N, K) -> (M, N): argmax of log p - log prior, the prior being that of the learnt `codes`; a class that was
    never learnt is never answered."""
    counts = np.bincount(codes[codes >= 0], minlength=logits.shape[-1])[: logits.shape[-1]]
    with np.errstate(divide="ignore"):
        prior = torch.from_numpy(np.where(counts > 0, np.log(np.maximum(counts, 1)), np.inf)).float()
    return (logits - prior).argmax(-1).numpy()


def _classes(design: Design, targets, folds: Folds, fold: int, controls, found):
    inner, learn = folds.inner[fold], folds.outer != fold
    chosen = choose_strengths(design, targets, inner)  # {target: (M,) indices}
    problems, strengths, owners = [], [], []
    for target in targets:
        for labels, is_control in ((target.labels, False), (controls[target.name], True)):
            for word in range(target.problems):
                problems.append(Problem(np.where(learn, labels[:, word], -1), target.width))
                strengths.append(torch.tensor(STRENGTHS)[chosen[target.name]])
                owners.append((target, word, is_control))
        found[target.name].chosen[:, fold] = np.array(STRENGTHS)[chosen[target.name].numpy()]
    fitted = fit_logistic(design, problems, torch.stack(strengths, 1)[..., None])
    answers = {}
    for number, (target, word, is_control) in enumerate(owners):
        answers[target.name, word, is_control] = decide(fitted.logits(number)[:, 0], problems[number].codes)
    for target in targets:
        for word in range(target.problems):
            pair = (answers[target.name, word, side] for side in (False, True))
            _keep(found[target.name], fold, folds, word, *pair)


def choose_strengths(design: Design, targets: Sequence[Target], inner: np.ndarray) -> dict[str, Tensor]:
    """{target: (M,) index into `STRENGTHS`} with the least cross-entropy on the inner folds (N,), all fits at once."""
    problems, owners = [], []
    for target in targets:
        for word in range(target.problems):
            for group in range(int(inner.max()) + 1):
                learn = (inner >= 0) & (inner != group)
                problems.append(Problem(np.where(learn, target.labels[:, word], -1), target.width))
                owners.append((target, word, group))
    fitted = fit_logistic(design, problems, STRENGTHS, ROUGH)
    losses = {t.name: torch.zeros(len(design.z), len(STRENGTHS)) for t in targets}
    for number, (target, word, group) in enumerate(owners):
        codes = target.labels[:, word]
        rows = np.flatnonzero((inner == group) & (codes >= 0))
        if len(rows):
            losses[target.name] += _cross_entropy(fitted.logits(number, rows), codes[rows])
    return {name: loss.argmin(1) for name, loss in losses.items()}


def _cross_entropy(logits: Tensor, codes: np.ndarray) -> Tensor:
    """(M, S, n, K), (n,) -> (M, S): sum of nats."""
    index = torch.from_numpy(codes).long()[:, None].expand(*logits.shape[:2], -1, 1)
    return (torch.logsumexp(logits, -1) - logits.gather(3, index)[..., 0]).sum(2)


def _numbers(design: Design, target: Target, folds: Folds, fold: int, control: np.ndarray, answers: Answers):
    inner, known = folds.inner[fold], np.isfinite(target.labels)
    learn = (folds.outer != fold) & known
    values = torch.from_numpy(np.stack([target.labels, control], 1)).float()
    errors = torch.zeros(len(PENALTIES), len(design.z))
    for group in range(int(inner.max()) + 1):
        part = known & (inner >= 0) & (inner != group)
        rows = np.flatnonzero(known & (inner == group))
        if not part.any() or not len(rows):
            continue
        guessed = fit_ridge(design, values[:, :1], part, PENALTIES)[:, :, rows, 0]
        errors += (guessed - values[rows, 0]).square().sum(2)
    chosen = errors.argmin(0)  # (M,)
    answers.chosen[:, fold] = np.array(PENALTIES)[chosen.numpy()]
    guessed = fit_ridge(design, values, learn, PENALTIES)  # (penalties, M, N, 2)
    guessed = guessed[chosen, torch.arange(len(chosen))].numpy()
    answers.means[folds.outer == fold] = target.labels[learn].mean()
    _keep(answers, fold, folds, 0, guessed[..., 0], guessed[..., 1])


def _perceptrons(design: Design, targets, folds: Folds, fold: int, controls, found, seed: int):
    learn = folds.outer != fold
    tasks, owners = [], []
    for target in targets:
        for labels, is_control in ((target.labels, False), (controls[target.name], True)):
            for word in range(target.problems):
                column = labels if target.is_number else labels[:, word]
                part = column[learn & np.isfinite(column)]
                centre, scale = (part.mean(), part.std() or 1.0) if target.is_number else (0, 1)
                scaled = (column - centre) / scale if target.is_number else column
                tasks.append(Task(scaled, target.width))
                owners.append((target, word, is_control, centre, scale))
    outputs = fit_perceptrons(design, tasks, folds.inner[fold] == 0, seed)
    answers = {}
    for (target, word, side, centre, scale), task, output in zip(owners, tasks, outputs, strict=True):
        if target.is_number:
            answers[target.name, word, side] = output[..., 0].numpy() * scale + centre
        else:
            answers[target.name, word, side] = decide(output, np.where(learn, task.targets, -1))
    for target in targets:
        known = learn & np.isfinite(target.labels) if target.is_number else learn
        found[target.name].means[folds.outer == fold] = target.labels[known].mean() if target.is_number else 0
        for word in range(target.problems):
            pair = (answers[target.name, word, side] for side in (False, True))
            _keep(found[target.name], fold, folds, word, *pair)
