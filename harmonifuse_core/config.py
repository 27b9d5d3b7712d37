"""Frozen dataclasses for data and training; YAML in and out; cross-field checks with a remedy in the message.

Those of the model are in `model_config.py`, and offered here too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harmonifuse_core.fields import check_choice, from_dict, read_values, to_dict
from harmonifuse_core.model_config import EncoderConfig, GateConfig, LMConfig, ModelConfig
from harmonifuse_core.tasks import TaskConfig

__all__ = [
    "AugmentConfig", "Config", "CorpusConfig", "DataConfig", "EncoderConfig", "GateConfig", "LMConfig", "ModelConfig",
    "TaskConfig", "TrainingConfig", "from_dict", "load_yaml", "save_yaml", "to_dict",
]  # fmt: skip


@dataclass(frozen=True)
class CorpusConfig:
    """Utterances of one manifest that train or validate one task.

    Args:
        manifest: JSONL file, relative to the working directory or absolute.
        task: which task these utterances teach.
        split: value of the manifest's `split` field; empty takes all.
        speakers, exclude_speakers: keep or drop these speakers.
        ids: regular expression that must be found in the id; empty takes all (nEMO's ids end in the sentence number).
        weight: relative share of draws among the corpora of the same task.
        label_map: manifest label -> model label; an empty model label drops the utterance.
        text_style: `asis`, or `sentence` (capital, full stop; the style of Whisper's own output).
        teacher: transcripts, soft token targets and encoder states come from the folder `data.teacher`.
        label_noise: share of training labels that are replaced by another class of the corpus (classification).
    """

    manifest: str
    task: str
    split: str = ""
    speakers: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    ids: str = ""
    weight: float = 1.0
    label_map: dict = field(default_factory=dict)
    text_style: str = "asis"
    teacher: bool = False
    label_noise: float = 0.0

    def __post_init__(self):
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"{self.manifest}: label_noise {self.label_noise} is a share; use 0 to below 1")
        try:
            re.compile(self.ids)
        except re.error as error:
            raise ValueError(f"corpus {self.manifest}: ids {self.ids!r} is no regular expression ({error})") from None
        check_choice("corpus", "text_style", self.text_style, ("asis", "sentence"))
        if self.weight <= 0:
            raise ValueError(f"{self.manifest}: weight {self.weight} must be positive; leave the corpus out instead")


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and ranges of waveform and feature augmentation (training only)."""

    speed: tuple[float, ...] = ()
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    gain_db: float = 0.0
    room_probability: float = 0.0
    band_probability: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 20
    frequency_masks: int = 0
    frequency_mask_bins: int = 12

    def __post_init__(self):
        for name in ("noise_probability", "room_probability", "band_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; use 0 to 1")
        if any(not 0.5 <= factor <= 2 for factor in self.speed):
            raise ValueError(f"augment.speed is {list(self.speed)}; use factors from 0.5 to 2")
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError(f"augment.noise_snr_db is {list(self.noise_snr_db)}; give the lower value first")

    @property
    def changes_sound(self) -> str:
        """The first field that changes what the encoder hears, time masks aside; empty where none does."""
        if any(factor != 1 for factor in self.speed):
            return "speed"
        names = ("noise_probability", "gain_db", "room_probability", "band_probability", "frequency_masks")
        return next((name for name in names if getattr(self, name)), "")


@dataclass(frozen=True)
class DataConfig:
    """Corpora by role; `teacher` is a folder written by `python -m harmonifuse_core.prepare teacher`.

    Utterances outside `min_seconds` to `max_seconds` are left out of training and counted in its log. Decoded audio is
    kept in memory up to `cache_megabytes`. With a frozen encoder and unaugmented sound, `state_cache` names a
    folder that keeps its states, up to `state_cache_gigabytes`: the encoder then hears every utterance once.
    """

    train: tuple[CorpusConfig, ...] = ()
    dev: tuple[CorpusConfig, ...] = ()
    teacher: str = ""
    augment: AugmentConfig = AugmentConfig()
    min_seconds: float = 0.3
    max_seconds: float = 20.0
    cache_megabytes: int = 2000
    state_cache: str = ""
    state_cache_gigabytes: float = 20.0

    def __post_init__(self):
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"data.min_seconds {self.min_seconds} must be below data.max_seconds {self.max_seconds}")
        for corpus in (*self.train, *self.dev):
            if corpus.teacher and not self.teacher:
                raise ValueError(f"corpus {corpus.manifest} has a teacher: write data.teacher with `prepare teacher`")
        if self.state_cache and (changing := self.augment.changes_sound):
            raise ValueError(
                f"data.augment.{changing} changes the sound, so that data.state_cache would see no utterance twice: "
                "switch it off (time_masks may stay), or empty data.state_cache"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """Batch-interleaved training.

    Args:
        steps: optimiser steps.
        batch_size: utterances of each task in a step (by task name, or `default`).
        max_batch_seconds: no task's share of a step is longer than this, padding included.
        learning_rate: of new modules; `encoder_rate`, `lm_rate` of pre-trained ones, `gate_rate` of w and b.
        average_decay: exponential moving average of the weights, used for dev scores and export (0: off).
        state_weight: weight of the squared distance to the teacher's last encoder state (corpora with `teacher`).
        token_weight: weight of the divergence from the teacher's token probabilities (same corpora).
        entropy_weight: weight of KL(alpha || uniform) of both fusions, so that no gate closes for good (0: none).
    """

    steps: int = 1000
    batch_size: dict = field(default_factory=lambda: {"default": 16})
    max_batch_seconds: float = 160.0
    learning_rate: float = 1e-3
    encoder_rate: float = 5e-5
    lm_rate: float = 3e-5
    gate_rate: float = 1e-2
    warmup_steps: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average_decay: float = 0.0
    state_weight: float = 0.0
    token_weight: float = 0.0
    entropy_weight: float = 0.0
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
        if self.data.state_cache and self.model.encoder.finetune != "frozen":
            raise ValueError(
                f"data.state_cache needs model.encoder.finetune: frozen, not {self.model.encoder.finetune!r}: states of one "
                "that learns change with every step"
            )
        for name in set(self.training.batch_size) - {*names, "default"}:
            raise ValueError(f"training.batch_size names {name!r}; known are {', '.join(names)} and default")
        slowest = self.data.max_seconds / min((1.0, *self.data.augment.speed))
        if self.data.train and slowest > self.model.max_seconds:
            raise ValueError(
                f"training clips last up to {slowest:.1f} s (data.max_seconds by the slowest data.augment.speed), "
                f"more than model.max_seconds {self.model.max_seconds}: lower data.max_seconds"
            )


def save_yaml(config: Config, path: Path):
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config; `overrides` are `training.steps=10`-style assignments, their values parsed as YAML."""
    return from_dict(Config, read_values(path, overrides))
