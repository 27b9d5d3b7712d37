"""Output layers of the tasks and their losses. Text has none: the LM's output matrix reads the fused state."""

import torch
from torch import Tensor, nn

from harmonifuse_core.tasks import TaskConfig


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


def build_heads(tasks: tuple[TaskConfig, ...], width: int, dropout: float) -> nn.ModuleDict:
    """One head for each classification task, by task name."""
    return nn.ModuleDict(
        {task.name: ClassificationHead(width, len(task.labels), dropout) for task in tasks if not task.is_transcription}
    )
