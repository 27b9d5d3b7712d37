"""Frozen dataclasses for model, data and training; YAML in and out; cross-field checks with a remedy in the message.

Every open point of the paper (see the README's table) is a field here with the project's default.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harmonifuse_core.fields import from_dict, read_values, to_dict
from harmonifuse_core.tasks import ASR, SER, TaskConfig


def _choice(owner: str, name: str, value: str, choices: tuple[str, ...]):
    if value not in choices:
        raise ValueError(f"{owner}.{name} is {value!r}; choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class EncoderConfig:
    """A Hugging Face speech encoder: WavLM, HuBERT, wav2vec 2.0 or Whisper.

    Args:
        name: hub name or local folder that `transformers.AutoConfig` understands.
        weights: `pretrained` loads them, `random` builds the architecture of `name` with fresh weights.
        overrides: fields of the Hugging Face config to replace (only with `weights: random`).
        finetune: `frozen` (eval mode, no gradient), `all`, or `top-K` (the last K blocks).
        tail_seconds: silence put behind the speech before encoding; Whisper finds the end of the speech by it.
        gradient_checkpointing: trade time for memory when fine-tuning.
    """

    name: str = "microsoft/wavlm-large"
    weights: str = "pretrained"
    overrides: dict = field(default_factory=dict)
    finetune: str = "frozen"
    tail_seconds: float = 0.0
    gradient_checkpointing: bool = False

    def __post_init__(self):
        _choice("encoder", "weights", self.weights, ("pretrained", "random"))
        top = self.finetune.removeprefix("top-")
        if self.finetune not in ("frozen", "all") and not (
            self.finetune.startswith("top-") and top.isdigit() and int(top)
        ):
            raise ValueError(f"encoder.finetune is {self.finetune!r}; choose frozen, all or top-K with K >= 1")
        if self.overrides and self.weights == "pretrained":
            raise ValueError("encoder.overrides change the architecture: they need encoder.weights: random")
        if not 0 <= self.tail_seconds <= 5:
            raise ValueError(f"encoder.tail_seconds is {self.tail_seconds}; use 0 to 5 seconds")


@dataclass(frozen=True)
class GateConfig:
    """Gated encoder fusion: H_fused = sum_i softmax(w)_i H_i.

    Args:
        mode: `per_task`, `shared`, `uniform` or `fixed:K` (state K only; 0 is the state before the first block).
        include_input_state: weigh state 0 too.
        normalise: layer-normalise each state before the sum, so that weights of different layers compare.
        input_score: our extension, off in the paper: add FFN(mean over time of h_i, standardised) to w_i, so that the
            gate may also move from utterance to utterance; w stays apart in every record as the `bias` part.
        last_logit: initial value of w for the last state (the others start at 0).
        last_logit_tasks: tasks whose gate starts so; empty means all. Ignored by a shared gate, which always does.
    """

    mode: str = "per_task"
    include_input_state: bool = True
    normalise: bool = True
    input_score: bool = False
    last_logit: float = 0.0
    last_logit_tasks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.input_score and (self.mode == "uniform" or self.mode.startswith("fixed:")):
            raise ValueError(f"gate.input_score needs a learned gate, but gate.mode is {self.mode!r}")
        if self.mode.startswith("fixed:"):
            if not self.mode.removeprefix("fixed:").isdigit():
                raise ValueError(f"gate.mode is {self.mode!r}; write fixed:K with the layer's number, e.g. fixed:12")
        else:
            _choice("gate", "mode", self.mode, ("per_task", "shared", "uniform", "fixed:K"))


@dataclass(frozen=True)
class LMConfig:
    """The language model that reads the fused speech behind a task prompt.

    Args:
        kind: `prefix` (decoder-only: speech, prompt, text) or `whisper` (decoder cross-attending to the speech).
        name: hub name or folder of the pre-trained model; empty builds a small Llama-style LM from `architecture`.
        architecture: fields of `transformers.LlamaConfig` for a `prefix` LM from scratch.
        tokenizer: hub name or folder; `bytes` is a byte-level tokenizer that needs no file.
        fusion: `adaptive` (the paper's), `bias` (task bias only), `input` (FFN only), `uniform`, `last` or `fixed:K`.
        ffn_input: `position` scores each position by its own state; `utterance` by the mean over speech and prompt.
        ffn_width: hidden width of the scoring network.
        normalise: layer-normalise each LM state before it is scored and summed.
        last_logit: initial task bias of the last state (the others start at 0).
        last_logit_tasks: tasks whose bias starts so; empty means all.
        speech_token: behind a classification prompt, one position holds mean and standard deviation over time of the
            fused speech, standardised and projected; the task is answered there (`whisper`).
        train_embeddings: let the token embedding and output matrix learn.
        subsample: speech frames stacked into one LM position (`prefix`).
    """

    kind: str = "prefix"
    name: str = ""
    architecture: dict = field(default_factory=dict)
    tokenizer: str = "bytes"
    fusion: str = "adaptive"
    ffn_input: str = "position"
    ffn_width: int = 64
    normalise: bool = True
    last_logit: float = 0.0
    last_logit_tasks: tuple[str, ...] = ()
    speech_token: bool = False
    train_embeddings: bool = True
    subsample: int = 4

    def __post_init__(self):
        _choice("lm", "kind", self.kind, ("prefix", "whisper"))
        _choice("lm", "ffn_input", self.ffn_input, ("position", "utterance"))
        if self.fusion.startswith("fixed:"):
            if not self.fusion.removeprefix("fixed:").isdigit():
                raise ValueError(f"lm.fusion is {self.fusion!r}; write fixed:K with the layer's number")
        else:
            _choice("lm", "fusion", self.fusion, ("adaptive", "bias", "input", "uniform", "last", "fixed:K"))
        if self.kind == "whisper" and not (self.name or self.architecture):
            raise ValueError("lm.name is empty: a whisper LM needs a Whisper checkpoint, e.g. openai/whisper-tiny.en")
        if self.speech_token and self.kind != "whisper":
            raise ValueError(
                "lm.speech_token belongs to lm.kind: whisper; the prefix LM reads every speech frame anyway"
            )
        if self.subsample < 1 or self.ffn_width < 1:
            raise ValueError("lm.subsample and lm.ffn_width must be at least 1")


@dataclass(frozen=True)
class ModelConfig:
    """The whole model.

    Args:
        dropout: on the classification heads' input.
        max_seconds: longer audio is cut at silence into pieces of at most this length.
        beams: hypotheses kept while writing text; 1 is greedy.
    """

    encoder: EncoderConfig = EncoderConfig()
    gate: GateConfig = GateConfig()
    lm: LMConfig = LMConfig()
    tasks: tuple[TaskConfig, ...] = (ASR, SER)
    dropout: float = 0.1
    max_seconds: float = 28.0
    beams: int = 1

    def __post_init__(self):
        if self.beams < 1:
            raise ValueError(f"model.beams is {self.beams}; 1 is greedy, more keeps that many hypotheses")
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"model.tasks are {names}: give at least one, each name once")
        for owner in (self.gate, self.lm):
            for name in set(owner.last_logit_tasks) - set(names):
                raise ValueError(f"last_logit_tasks names {name!r}, which is none of the tasks {names}")

    def task(self, name: str) -> TaskConfig:
        for task in self.tasks:
            if task.name == name:
                return task
        raise ValueError(f"task {name!r} is unknown; this model has {', '.join(t.name for t in self.tasks)}")

    def task_index(self, name: str) -> int:
        return self.tasks.index(self.task(name))


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
        _choice("corpus", "text_style", self.text_style, ("asis", "sentence"))
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


@dataclass(frozen=True)
class DataConfig:
    """Corpora by role; `teacher` is a folder written by `python -m harmonifuse_core.prepare teacher`.

    Utterances outside `min_seconds` to `max_seconds` are left out of training and counted in its log. Decoded audio is
    kept in memory up to `cache_megabytes`.
    """

    train: tuple[CorpusConfig, ...] = ()
    dev: tuple[CorpusConfig, ...] = ()
    teacher: str = ""
    augment: AugmentConfig = AugmentConfig()
    min_seconds: float = 0.3
    max_seconds: float = 20.0
    cache_megabytes: int = 2000

    def __post_init__(self):
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"data.min_seconds {self.min_seconds} must be below data.max_seconds {self.max_seconds}")
        for corpus in (*self.train, *self.dev):
            if corpus.teacher and not self.teacher:
                raise ValueError(f"corpus {corpus.manifest} has a teacher: write data.teacher with `prepare teacher`")


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
