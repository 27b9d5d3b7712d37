"""What a classification reads from the layers, fitted in closed form: linear discriminant analysis, then a ridge.

An encoder that learns a few actors by gradient tells them from all others; the discriminant of its layers' statistics
over augmented utterances, with a shrunk covariance (Ledoit and Wolf 2004 shrink likewise), leaves the encoder as it is.

1. `Statistics`: each layer's mean and deviation over the utterance, standardised, times the gate's alpha.
2. `discriminant`: scores of C classes, linear in them, all classes equally likely before.
3. `write_reading`: the scores are added to the speech token along directions of their own.
4. `fit_head`: the head finds them in the fused LM state, by ridge regression, over all prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn

from harmonifuse_core.data.batching import TaskBatch
from harmonifuse_core.metrics import ClassificationReport, classification_report
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.randomness import generator

SPREAD = 2.0  # standard deviation of the head's logits over utterances and classes; `calibrate` sets it right
RIDGE = 1e-3  # of the mean variance of the state's elements


@dataclass(frozen=True)
class Statistics:
    """Of N utterances: raw statistics (N, L1, 2 D) of the layers, the gate's alpha (N, L1), classes (N,), their ids."""

    raw: Tensor
    alpha: Tensor
    labels: np.ndarray
    ids: tuple[str, ...]


@torch.no_grad()
def gather(model: HarmoniFuse, task: str, batches: Iterator[TaskBatch]) -> Statistics:
    """Statistics of the batches' utterances, as `HarmoniFuse.fuse_encoder` takes them.

    Their waveforms may be augmented; spectra are neither masked nor warped, which an encoder does in training only.
    """
    raw, alpha, labels, ids = [], [], [], []
    for batch in batches:
        states = model.encode(batch.waveforms, batch.lengths)
        alpha.append(model.gate(states.states, states.mask, task).alpha)
        raw.append(model.statistics(states))
        labels.append(batch.labels.numpy())
        ids += batch.ids
    return Statistics(torch.cat(raw), torch.cat(alpha), np.concatenate(labels), tuple(ids))


@torch.no_grad()
def standardise(model: HarmoniFuse, found: Statistics) -> np.ndarray:
    """Set the summary's running averages to those of all utterances; returns what it weighs, (N, L1 * 2 D)."""
    running = model.summary.standardise
    running.mean.copy_(found.raw.mean(0))
    running.variance.copy_(found.raw.var(0, correction=0))
    running.started.fill_(1.0)
    return model.summary.weigh(found.raw, found.alpha).flatten(1).numpy()


def discriminant(
    values: np.ndarray, labels: np.ndarray, names: Sequence[str], shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C, F) and offsets (C,) of the classes' scores on `values` (N, F) of classes `labels` (N,).

    Centred over the classes, of unit spread on `values`, all classes equally likely before. Raises ValueError where one
    of `names` has fewer than two utterances: its covariance is unknown.
    """
    counts, classes = np.bincount(labels, minlength=len(names)), len(names)
    if counts.min() < 2:
        few = int(counts.argmin())
        raise ValueError(f"{names[few]!r} has {counts[few]} utterances among these; the discriminant needs two of each")
    fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(classes, 1 / classes))
    fit.fit(values, labels)
    weights, offsets = fit.coef_, fit.intercept_
    if classes == 2:  # scikit-learn gives one row, of the second class against the first
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    weights, offsets = weights - weights.mean(0), offsets - offsets.mean()
    spread = float(np.std(values @ weights.T + offsets))
    return weights / spread, offsets / spread


def unseen_recalls(
    values: np.ndarray, labels: np.ndarray, names: Sequence[str], shrinkage: float,
    speakers: Sequence[str], corpora: Sequence[str], folds: int,
) -> dict[str, ClassificationReport]:  # fmt: skip
    """{corpus: scores of `discriminant` on speakers that it was not fitted on}: K `folds`, each without a K-th of them.

    Each corpus's speakers are dealt evenly to the folds.

    Honest as far as what stands before has not learned these classes from these speakers: the encoder, and, with less
    room to, the gate whose alpha weighs the values. Raises ValueError as `discriminant` does, and for fewer speakers
    than folds.
    """
    corpora, pairs = np.asarray(corpora), list(zip(corpora, speakers, strict=True))
    people = sorted(set(pairs))
    if not 2 <= folds <= len(people):
        raise ValueError(f"{folds} folds of {len(people)} speakers: use 2 to as many as there are speakers")
    fold_of, dealt = {}, 0
    for corpus in sorted(set(corpora)):  # each corpus evenly: many speakers of one do not leave a fold without another
        own = [pair for pair in people if pair[0] == corpus]
        shuffled = generator(0, "folds", corpus).permutation(len(own))  # numbered speakers often alternate by gender
        fold_of |= {own[i]: (dealt + place) % folds for place, i in enumerate(shuffled)}
        dealt += len(own)
    fold = np.array([fold_of[pair] for pair in pairs])
    scores = np.empty((len(values), len(names)))
    for number in range(folds):
        weights, offsets = discriminant(values[fold != number], labels[fold != number], names, shrinkage)
        scores[fold == number] = values[fold == number] @ weights.T + offsets
    chances = softmax(SPREAD * scores, axis=1)
    return {
        str(corpus): classification_report(labels[here], chances[here], names, [speakers[i] for i in here])
        for corpus in np.unique(corpora)
        for here in [np.flatnonzero(corpora == corpus)]
    }


@torch.no_grad()
def write_reading(model: HarmoniFuse, weights: np.ndarray, offsets: np.ndarray, strength: float, seed: int):
    """Make the summary add sum_c score_c u_c to the speech token; u_c: orthogonal, as long in all as `strength` words.

    gelu(x) - gelu(-x) = x, so 2 C hidden units pass C linear scores.
    """
    summary, classes = model.summary, len(weights)
    directions = torch.empty(model.lm.width, classes)
    nn.init.orthogonal_(directions, generator=torch.Generator().manual_seed(seed))
    word = float(model.lm.body.embed_tokens.weight.norm(dim=-1).mean())
    directions *= strength * word / classes**0.5
    for sign, rows in ((1.0, slice(0, classes)), (-1.0, slice(classes, 2 * classes))):
        summary.inner.weight[rows] = sign * torch.from_numpy(weights).float()
        summary.inner.bias[rows] = sign * torch.from_numpy(offsets).float()
        summary.output.weight[:, rows] = sign * directions


@torch.no_grad()
def fit_head(model: HarmoniFuse, task: str, batches: Iterator[TaskBatch]) -> tuple[float, float]:
    """Fit the head's outputs to the scores, times `SPREAD`, over utterances and their prompts.

    Returns which share of the scores' variance it explains, and in which share of the utterances the head's class is
    that of the highest score: both fall short of 1 by what the LM does with the token.
    """
    states, scores, classes = [], [], model.heads[task].output.out_features
    for batch in batches:
        encoded = model.encode(batch.waveforms, batch.lengths)
        fused = model.fuse_encoder(encoded, task)
        weighed = model.summary.weigh(model.statistics(encoded), fused.alpha)
        scores.append(model.summary.inner(weighed.flatten(1))[:, :classes])
        prompts = [model.tokenizer.prompt_ids(prompt) for prompt in batch.prompts]
        answer = model.fuse_lm(model.listen(fused, encoded.mask, prompts, None), task).states[:, 0]
        states.append(nn.functional.layer_norm(answer, answer.shape[-1:]))
    state, wanted = torch.cat(states).double(), SPREAD * torch.cat(scores).double()
    centre, level = state.mean(0), wanted.mean(0)
    state, wanted = state - centre, wanted - level
    gram = state.T @ state
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, state.T @ wanted)  # (D, C)
    head = model.heads[task]
    head.output.weight.copy_(solution.T)
    head.output.bias.copy_(level - centre @ solution)
    head.temperature.fill_(1.0)
    found = state @ solution
    explained = 1 - float((found - wanted).square().sum() / wanted.square().sum())
    same = ((found + level).argmax(1) == (wanted + level).argmax(1)).double().mean()
    return explained, float(same)
