"""Frozen dataclasses for training and the whole; YAML in and out; cross-field checks with a remedy in the message.

Those of the model are in `model_config.py`, those of the data in `data_config.py`, and offered here too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harmonifuse_core.data_config import AugmentConfig, CorpusConfig, DataConfig
from harmonifuse_core.fields import check_choice, from_dict, read_values, to_dict
from harmonifuse_core.model_config import EncoderConfig, GateConfig, LMConfig, ModelConfig
from harmonifuse_core.tasks import TaskConfig

__all__ = [
    "AugmentConfig", "Config", "CorpusConfig", "DataConfig", "EncoderConfig", "GateConfig", "InterleavingConfig",
    "LMConfig", "ModelConfig", "TaskConfig", "TrainingConfig", "from_dict", "load_yaml", "save_yaml", "to_dict",
]  # fmt: skip

logger = logging.getLogger("harmonifuse.config")
SHARES = ("shares", "end_shares")


@dataclass(frozen=True)
class InterleavingConfig:
    """How the tasks share training.

    Args:
        mode: `within`, every step holds every task; `alternating`, each step holds one task.
        ratio: of the tasks. `sizes`: `training.batch_size` as it is (alternating: turn by turn); `fixed`: `shares`;
            `proportional` to the tasks' utterances; `temperature`: to those to the power of 1 / temperature. But for
            `sizes`, the sum of the batch sizes is divided so (alternating: the steps are).
        shares: {task: share} for `fixed`, in any unit; `end_shares`: at the last step, evenly moved to (empty: none).
        temperature: 1 is proportional, large is even; `end_temperature`: at the last step (0: no change).
    """

    mode: str = "within"
    ratio: str = "sizes"
    shares: dict = field(default_factory=dict)
    end_shares: dict = field(default_factory=dict)
    temperature: float = 1.0
    end_temperature: float = 0.0

    def __post_init__(self):
        check_choice("interleaving", "mode", self.mode, ("within", "alternating"))
        check_choice("interleaving", "ratio", self.ratio, ("sizes", "fixed", "proportional", "temperature"))
        for name in ("shares", "end_shares"):
            for task, share in getattr(self, name).items():
                if isinstance(share, bool) or not isinstance(share, (int, float)) or share <= 0:
                    raise ValueError(f"interleaving.{name}.{task} is {share!r}; give a number above 0")
        if (self.ratio == "fixed") != bool(self.shares):
            raise ValueError("interleaving.shares and ratio: fixed belong together; give both or none")
        if self.end_shares and set(self.end_shares) != set(self.shares):
            raise ValueError("interleaving.end_shares must name the tasks of interleaving.shares")
        if self.temperature < 1 or (self.end_temperature and self.end_temperature < 1):
            raise ValueError("interleaving.temperature is below 1; 1 is proportional, more is more even")


@dataclass(frozen=True)
class TrainingConfig:
    """Batch-interleaved training.

    Args:
        steps: optimiser steps.
        batch_size: utterances of each task in a step, over all processes (by task name, or `default`).
        max_batch_seconds: no task's share of a step is longer than this, padding included.
        learning_rate: of new modules; `encoder_rate`, `lm_rate` of pre-trained ones, `gate_rate` of w and b.
        only: regular expression; weights and running statistics whose names begin so learn, the others stay as they are
            ("": all learn).
        average_decay: exponential moving average of the weights, used for dev scores and export (0: off).
        state_weight: weight of the squared distance to the teacher's last encoder state (corpora with `teacher`).
        token_weight: weight of the divergence from the teacher's token probabilities (same corpora).
        entropy_weight: weight of KL(alpha || uniform) of both fusions, so that no gate closes for good (0: none).
        interleaving: how the tasks share the steps.
        accumulation: parts that a step's batch is cut into, to save memory; the gradient is that of the whole.
        gradients_every: steps between two looks at the tasks' gradients, their norms and cosines (0: never).
        keep_best: keep the weights of the best dev scores, of each task and joint, below `checkpoints/`.
        patience: dev scores in a row without a better joint one before training stops (0: never).
        export: the weights that the run ends with: `last`, or `best` (joint; needs keep_best).
        precision: of the matrix products: `auto` (bfloat16 by autocast on a GPU, else float32), `float32`, `bfloat16`
            (for a CPU that computes in it, AMX). Weights and their updates are float32 always.
    """

    steps: int = 1000
    batch_size: dict = field(default_factory=lambda: {"default": 16})
    max_batch_seconds: float = 160.0
    learning_rate: float = 1e-3
    encoder_rate: float = 5e-5
    lm_rate: float = 3e-5
    gate_rate: float = 1e-2
    only: str = ""
    warmup_steps: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average_decay: float = 0.0
    state_weight: float = 0.0
    token_weight: float = 0.0
    entropy_weight: float = 0.0
    interleaving: InterleavingConfig = InterleavingConfig()
    accumulation: int = 1
    gradients_every: int = 100
    keep_best: bool = False
    patience: int = 0
    export: str = "last"
    precision: str = "auto"
    seed: int = 0
    log_every: int = 10
    eval_every: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2

    def __post_init__(self):
        if self.steps < 1 or self.log_every < 1 or self.checkpoint_every < 1:
            raise ValueError("training.steps, log_every and checkpoint_every must be at least 1")
        if self.keep_checkpoints < 1:
            raise ValueError(f"training.keep_checkpoints is {self.keep_checkpoints}; --resume needs at least 1")
        for task, size in self.batch_size.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"training.batch_size.{task} is {size!r}; give a whole number of at least 1")
        check_choice("training", "export", self.export, ("last", "best"))
        check_choice("training", "precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.accumulation < 1 or self.gradients_every < 0 or self.patience < 0:
            raise ValueError("training.accumulation must be at least 1, gradients_every and patience not negative")
        if not self.eval_every and (self.keep_best or self.patience):
            raise ValueError("training.keep_best and patience go by dev scores: set training.eval_every")
        if self.export == "best" and not self.keep_best:
            raise ValueError("training.export: best needs training.keep_best: true")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"training.average_decay is {self.average_decay}; use 0 (off) to below 1")

    def batch_size_of(self, task: str) -> int:
        return int(self.batch_size.get(task, self.batch_size.get("default", 16)))


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on; saved as `config.yaml` in its folder."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    title: str = ""
    description: str = ""

    def __post_init__(self):
        names = [task.name for task in self.model.tasks]
        for corpus in (*self.data.train, *self.data.dev):
            if corpus.task not in names:
                raise ValueError(
                    f"corpus {corpus.manifest} teaches task {corpus.task!r}, but model.tasks are {', '.join(names)}: "
                    "leave the corpus out, or add the task"
                )
            if corpus.teacher and not self.model.task(corpus.task).is_transcription:
                raise ValueError(f"corpus {corpus.manifest}: a teacher needs a transcription task, not {corpus.task}")
            if corpus.label_noise and (corpus in self.data.dev or self.model.task(corpus.task).is_transcription):
                raise ValueError(
                    f"corpus {corpus.manifest}: label_noise belongs to training labels of a classification"
                )
        if self.model.encoder.finetune != "frozen" and not any(task.trains_encoder for task in self.model.tasks):
            raise ValueError(
                f"model.encoder.finetune is {self.model.encoder.finetune!r}, but no task has trains_encoder: nothing "
                "would train it; use frozen"
            )
        if self.data.state_cache and self.model.encoder.finetune != "frozen":
            raise ValueError(
                f"data.state_cache needs model.encoder.finetune: frozen, not {self.model.encoder.finetune!r}: what is "
                "learnt changes the states with every step"
            )
        for name in set(self.training.batch_size) - {*names, "default"}:
            raise ValueError(f"training.batch_size names {name!r}; known are {', '.join(names)} and default")
        shares = self.training.interleaving.shares
        if shares and (unlike := sorted({c.task for c in self.data.train} ^ set(shares))):
            raise ValueError(
                f"training.interleaving.shares and the corpora differ in {unlike[0]!r}: name each task that has one"
            )
        if not self.data.dev and (self.training.keep_best or self.training.patience):
            raise ValueError("training.keep_best and patience go by dev scores: name corpora in data.dev")
        slowest = self.data.max_seconds / min((1.0, *self.data.augment.speed))
        if self.data.train and slowest > self.model.max_seconds:
            raise ValueError(
                f"training clips last up to {slowest:.1f} s (data.max_seconds by the slowest data.augment.speed), "
                f"more than model.max_seconds {self.model.max_seconds}: lower data.max_seconds"
            )


def save_yaml(config: Config, path: Path):
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config; `overrides` are `training.steps=10`-style assignments, their values parsed as YAML.

    `model.tasks=[ser]` chooses among the file's tasks, and leaves out the corpora and settings of the others.
    """
    values = read_values(path, overrides)
    if any(assignment.startswith("model.tasks=") for assignment in overrides):
        choose_tasks(values, read_values(path).get("model", {}).get("tasks", []))
    return from_dict(Config, values)


def choose_tasks(values: dict, known: list):
    """Let the names in `values["model"]["tasks"]` mean the file's own tasks, `known`; drop what is of other tasks."""
    named = {task if isinstance(task, str) else task.get("name"): task for task in known}
    chosen = values["model"]["tasks"]
    if not isinstance(chosen, list):
        raise ValueError(f"model.tasks is {chosen!r}; expected a list, e.g. model.tasks=[ser]")
    values["model"]["tasks"] = [named.get(task, task) if isinstance(task, str) else task for task in chosen]
    names = {task if isinstance(task, str) else task.get("name") for task in chosen}
    for role in ("train", "dev"):
        corpora = values.get("data", {}).get(role, [])
        for corpus in [c for c in corpora if c.get("task") not in names]:
            logger.info("%s of %s is left out: task %s is not chosen", corpus["manifest"], role, corpus.get("task"))
            corpora.remove(corpus)
    training, model = values.get("training", {}), values["model"]
    ratios = training.get("interleaving", {})
    for sizes, also in ((training.get("batch_size", {}), "default"), *((ratios.get(k, {}), "") for k in SHARES)):
        for name in set(sizes) - {*names, also}:
            del sizes[name]
    for owner in (model.get("gate", {}), model.get("lm", {})):
        if "last_logit_tasks" in owner:
            left = [name for name in owner["last_logit_tasks"] if name in names]
            if owner["last_logit_tasks"] and not left:
                owner["last_logit"] = 0.0  # an empty list would mean every task
            owner["last_logit_tasks"] = left
