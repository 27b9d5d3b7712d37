"""Output layers of the tasks and their losses. Text has none: the LM's output matrix reads the fused state."""

import torch
from torch import Tensor, nn

from harmonifuse_core.tasks import CLASSIFICATION, CTC, TaskConfig

BLANK = 0  # of CTC; unit k of a task is output k + 1


class ClassificationHead(nn.Module):
    """Linear layer on the layer-normalised fused LM state at the answer position: (B, D) -> logits (B, C).

    `temperature` is fitted on dev after training (Guo et al. 2017) and travels with the weights.
    """

    def __init__(self, width: int, classes: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, classes)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, fused: Tensor) -> Tensor:
        # Whisper's final gain is about 10: without this norm one step of the head moves its logits by whole units
        return self.output(self.dropout(nn.functional.layer_norm(fused, fused.shape[-1:])))

    def probabilities(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits.float() / self.temperature, -1)


class CTCHead(nn.Module):
    """Frames of the gated encoder fusion (B, T, E) and the LM's fused answer state (B, D) -> logits (B, T, C + 1).

    The frames, because CTC needs one distribution for every frame, in order, not fewer than there are units: the prefix
    LM hears `subsample` frames at once, the Whisper LM has no position for a frame at all. The answer state is added to
    every frame, so that prompt, task bias and LM take part and are taught.
    """

    def __init__(self, speech_width: int, width: int, units: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.condition = nn.Linear(width, speech_width)
        self.output = nn.Linear(speech_width, units + 1)

    def forward(self, speech: Tensor, answer: Tensor) -> Tensor:
        condition = self.condition(nn.functional.layer_norm(answer, answer.shape[-1:]))
        frames = nn.functional.layer_norm(speech, speech.shape[-1:]) + condition[:, None]
        return self.output(self.dropout(nn.functional.gelu(frames)))


def ctc_loss(logits: Tensor, frames: Tensor, units: list[list[int]]) -> Tensor:
    """Negative log-likelihood (B,) of each utterance's units (Graves et al. 2006): logits (B, T, C + 1), frames (B,).

    0 for an utterance with more units than frames: it has no alignment and teaches nothing.
    """
    log_probabilities = torch.log_softmax(logits.float(), -1).transpose(0, 1)  # (T, B, C + 1)
    lengths = torch.tensor([len(u) for u in units], device=logits.device)
    flat = torch.tensor([i + 1 for u in units for i in u], device=logits.device)
    return nn.functional.ctc_loss(
        log_probabilities, flat, frames, lengths, blank=BLANK, reduction="none", zero_infinity=True
    )


def ctc_greedy(logits: Tensor, frames: Tensor) -> list[list[tuple[int, float]]]:
    """For each utterance its (unit, log probability) pairs: the best output of every frame, runs merged, blanks out."""
    best, chosen = torch.log_softmax(logits.float(), -1).max(-1)  # (B, T)
    found = []
    for values, outputs, count in zip(best.tolist(), chosen.tolist(), frames.tolist(), strict=True):
        units, last = [], BLANK
        for value, output in zip(values[:count], outputs[:count], strict=True):
            if output not in (BLANK, last):
                units.append((output - 1, value))
            elif output == last and output != BLANK and value > units[-1][1]:
                units[-1] = (output - 1, value)
            last = output
        found.append(units)
    return found


def classification_loss(
    logits: Tensor, labels: Tensor, allowed: Tensor, smoothing: float, absent_weight: float = 0.0
) -> Tensor:
    """Cross-entropy (B,) over the classes that each utterance's corpus knows, plus `absent_weight` * `absent_excess`.

    `logits` (B, C), `labels` (B,), `allowed` (B, C) True = the corpus has this class: a class that a corpus lacks is
    neither rewarded nor pushed below chance by it.
    """
    return _allowed_loss(logits, labels, allowed, smoothing) + absent_weight * absent_excess(logits, allowed)


def absent_excess(logits: Tensor, allowed: Tensor) -> Tensor:
    """How far, in nats, the probability of all classes that the corpus lacks exceeds their uniform share: (B,) >= 0.

    Without a bound their logits are free on that corpus, and its speech is named after them. Below the uniform share
    no gradient flows: absence from a corpus says nothing against a class.
    """
    absent, classes = (~allowed).sum(1), allowed.shape[1]  # (B,)
    log_probabilities = torch.log_softmax(logits.float(), -1)
    mass = torch.logsumexp(log_probabilities.masked_fill(allowed, -1e9), -1)
    return torch.where(absent > 0, (mass - (absent.clamp(min=1) / classes).log()).clamp(min=0), 0.0)


def _allowed_loss(logits: Tensor, labels: Tensor, allowed: Tensor, smoothing: float) -> Tensor:
    log_probabilities = torch.log_softmax(logits.float().masked_fill(~allowed, -torch.inf), -1)
    picked = log_probabilities.gather(1, labels[:, None])[:, 0]
    if not smoothing:
        return -picked
    mean = log_probabilities.masked_fill(~allowed, 0.0).sum(1) / allowed.sum(1)
    return -(1 - smoothing) * picked - smoothing * mean


def transcription_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy (N,) of N text tokens: `logits` (N, V), `targets` (N,)."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smoothing)


def build_heads(tasks: tuple[TaskConfig, ...], speech_width: int, width: int, dropout: float) -> nn.ModuleDict:
    """One head for each classification or CTC task, by task name."""
    heads = nn.ModuleDict()
    for task in tasks:
        if task.kind == CLASSIFICATION:
            heads[task.name] = ClassificationHead(width, len(task.labels), dropout)
        elif task.kind == CTC:
            heads[task.name] = CTCHead(speech_width, width, len(task.labels), dropout)
    return heads
