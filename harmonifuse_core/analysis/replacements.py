"""What input dependence measures on a batch: alpha of one fusion replaced by weights that know less of the input.

One row an utterance, task, stage and replacement; before that, a survey of at most 64 utterances for the task's mean
alpha and the loss of every single layer. Shapes: `B` batch, `N` answer positions, `L1` states, `R` survey rows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harmonifuse_core.analysis.conditions import utterance_rows
from harmonifuse_core.analysis.interventions import STAGES, ForcedTask, forced_tasks, partners
from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.registry import AnalysisOptions
from harmonifuse_core.model.harmonifuse import HarmoniFuse

OWN_MEAN, TASK_MEAN, OTHER, UNIFORM, ONE_HOT = "own_mean", "task_mean", "other_utterance", "uniform", "one_hot_best"
OTHER_TASK = "task:"  # followed by the other task's name


def survey(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """alpha (L1) of every utterance, task and stage, and its loss when layer k alone is listened to, for every k."""
    rows = []
    for forced in forced_tasks(model, batch):
        for stage in STAGES:
            alpha = forced.per_utterance(stage, forced.fused(stage).alpha)
            lone = torch.eye(alpha.shape[-1], device=alpha.device)
            losses = torch.stack([forced.under(stage, weights).loss for weights in lone], -1)  # (B, L1)
            for index, row in enumerate(utterance_rows(forced, forced.score, stage=stage)):
                rows.append(row | {"alpha": alpha[index].tolist(), "one_hot_loss": losses[index].tolist()})
    return rows


@dataclass(frozen=True)
class Reference:
    """What the survey says of one task and stage, for an utterance: from other speakers, else other utterances."""

    rows: pd.DataFrame

    def without(self, utterance: str, speaker: str) -> pd.DataFrame:
        strangers = self.rows[self.rows["speaker"] != speaker]
        return strangers if len(strangers) else self.rows[self.rows["utterance"] != utterance]

    def mean_alpha(self, utterance: str, speaker: str) -> np.ndarray | None:
        rows = self.without(utterance, speaker)
        return np.mean(rows["alpha"].to_list(), axis=0) if len(rows) else None

    def best_layer(self, utterance: str, speaker: str) -> int | None:
        rows = self.without(utterance, speaker)
        return int(np.mean(rows["one_hot_loss"].to_list(), axis=0).argmin()) if len(rows) else None


def measure(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """All rows of a batch, every task on the utterances that have its label."""
    rows = []
    for forced in forced_tasks(model, batch):
        written = options.words and forced.texts is not None
        words = forced.words() if written else None
        for stage in STAGES:
            rows += _own(forced, stage, words)
            for name, alpha, layers in replacements(forced, stage, options):
                changed = forced.words(stage, alpha) if written else None
                score = forced.under(stage, alpha)
                for row, layer in zip(
                    utterance_rows(forced, score, changed, stage=stage, replacement=name), layers, strict=True
                ):
                    rows.append(row | {"layer": layer})
    return rows


def _own(forced: ForcedTask, stage: str, words) -> list[dict]:
    """The intact answer, with its alpha and the two parts of its logits, (L1,) each; score_spread: variance of the
    score over the tokens of a text, mean over layers, after centring over layers."""
    fused = forced.fused(stage)
    parts = {name: forced.per_utterance(stage, getattr(fused, name)) for name in ("alpha", "bias", "score")}
    spread = torch.zeros(len(forced.batch.items))
    if stage == "lm" and forced.texts is not None:
        centred = fused.score - fused.score.mean(-1, keepdim=True)  # softmax does not see what layers share
        squares = forced.per_utterance(stage, centred.square())
        spread = (squares - forced.per_utterance(stage, centred).square()).clamp(min=0).mean(-1)
    rows = utterance_rows(forced, forced.score, words, stage=stage, replacement="own")
    for index, row in enumerate(rows):
        row |= {name: value[index].float().tolist() for name, value in parts.items()}
        row |= {"score_spread": float(spread[index])}
    return rows


def replacements(
    forced: ForcedTask, stage: str, options: AnalysisOptions
) -> list[tuple[str, Tensor, list[int | None]]]:  # fmt: skip
    """(name, alpha (B, L1), the layer chosen for each utterance or None) of all replacements that can be made."""
    batch, device = forced.batch, forced.model.device
    own = forced.per_utterance(stage, forced.fused(stage).alpha)
    layers, none = own.shape[-1], [None] * len(batch.items)
    found = [(UNIFORM, torch.full_like(own, 1 / layers), none)]
    if stage == "lm" and forced.texts is not None:
        found.append((OWN_MEAN, own, none))
    if partner := partners(batch, options.seed):
        found.append((OTHER, own[torch.tensor(partner, device=device)], none))
    for task in forced.model.config.tasks:
        if task.name != forced.task:
            found.append((f"{OTHER_TASK}{task.name}", other_task_alpha(forced, stage, task), none))
    table = options.survey
    if len(table):
        reference = Reference(table[(table["task"] == forced.task) & (table["stage"] == stage)])
        keys = [(item.id, item.speaker) for item in batch.items]
        means = [reference.mean_alpha(*key) for key in keys]
        best = [reference.best_layer(*key) for key in keys]
        if all(mean is not None for mean in means):
            found.append((TASK_MEAN, torch.tensor(np.stack(means), device=device).to(own), none))
            lone = torch.nn.functional.one_hot(torch.tensor(best, device=device), layers)
            found.append((ONE_HOT, lone.to(own), best))
    return found


def other_task_alpha(forced: ForcedTask, stage: str, task) -> Tensor:
    """(B, L1): what the other task weighs on this speech under its own prompt (LM: at its first answer)."""
    model, states = forced.model, forced.batch.states
    fused = model.fuse_encoder(states, task.name)
    if stage == "encoder":
        return fused.alpha
    prompts = [model.tokenizer.prompt_ids(task.default_prompt)] * len(forced.batch.items)
    texts = [[] for _ in prompts] if task.is_transcription else None
    return model.fuse_lm(model.listen(fused, states.mask, prompts, texts), task.name).alpha[:, 0]
