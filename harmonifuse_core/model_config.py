"""Frozen dataclasses of the model: encoder, gate, language model, tasks. `config.py` offers them too.

Every open point of the paper (see the README's table) is a field here with the project's default.
"""

import re
from dataclasses import dataclass, field

from harmonifuse_core.fields import check_choice
from harmonifuse_core.tasks import ASR, SER, TaskConfig


@dataclass(frozen=True)
class EncoderConfig:
    """A Hugging Face speech encoder: WavLM, HuBERT, wav2vec 2.0 or Whisper.

    Args:
        name: hub name or local folder that `transformers.AutoConfig` understands.
        weights: `pretrained` loads them, `random` builds the architecture of `name` with fresh weights.
        overrides: fields of the Hugging Face config to replace (only with `weights: random`).
        finetune: `frozen` (eval mode, no gradient), `all`, `top-K` (the last K blocks), or `lora-R` (a change of rank
            R to the feed-forward layers of every block; the pre-trained weights stay).
        tail_seconds: silence put behind the speech before encoding; Whisper finds the end of the speech by it.
        silence_frames: Whisper only: frames spread over the rest of its 30 s window, each of which counts in every
            attention as often as the frames of silence that it stands for. 0: Whisper hears nothing behind the tail.
        gradient_checkpointing: trade time for memory when fine-tuning.
    """

    name: str = "microsoft/wavlm-large"
    weights: str = "pretrained"
    overrides: dict = field(default_factory=dict)
    finetune: str = "frozen"
    tail_seconds: float = 0.0
    silence_frames: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self):
        check_choice("encoder", "weights", self.weights, ("pretrained", "random"))
        if not re.fullmatch(r"frozen|all|(top|lora)-[1-9]\d*", self.finetune):
            raise ValueError(
                f"encoder.finetune is {self.finetune!r}; choose frozen, all, top-K with K >= 1, or lora-R with R >= 1"
            )
        if self.overrides and self.weights == "pretrained":
            raise ValueError("encoder.overrides change the architecture: they need encoder.weights: random")
        if not 0 <= self.tail_seconds <= 5:
            raise ValueError(f"encoder.tail_seconds is {self.tail_seconds}; use 0 to 5 seconds")
        if not 0 <= self.silence_frames <= 256:
            raise ValueError(f"encoder.silence_frames is {self.silence_frames}; use 0 to 256, 16 are enough")


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
            check_choice("gate", "mode", self.mode, ("per_task", "shared", "uniform", "fixed:K"))


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
        speech_token_heads: that many attention heads add means over the frames that they choose (0: none).
        speech_token_layers: hidden width of a network that adds mean and deviation of each encoder layer, weighed by
            the gate's alpha, to the speech token (0: none).
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
    speech_token_heads: int = 0
    speech_token_layers: int = 0
    train_embeddings: bool = True
    subsample: int = 4

    def __post_init__(self):
        check_choice("lm", "kind", self.kind, ("prefix", "whisper"))
        check_choice("lm", "ffn_input", self.ffn_input, ("position", "utterance"))
        if self.fusion.startswith("fixed:"):
            if not self.fusion.removeprefix("fixed:").isdigit():
                raise ValueError(f"lm.fusion is {self.fusion!r}; write fixed:K with the layer's number")
        else:
            check_choice("lm", "fusion", self.fusion, ("adaptive", "bias", "input", "uniform", "last", "fixed:K"))
        if self.kind == "whisper" and not (self.name or self.architecture):
            raise ValueError("lm.name is empty: a whisper LM needs a Whisper checkpoint, e.g. openai/whisper-tiny.en")
        if self.speech_token and self.kind != "whisper":
            raise ValueError(
                "lm.speech_token belongs to lm.kind: whisper; the prefix LM reads every speech frame anyway"
            )
        if self.subsample < 1 or self.ffn_width < 1:
            raise ValueError("lm.subsample and lm.ffn_width must be at least 1")
        for name in ("speech_token_heads", "speech_token_layers"):
            if (value := getattr(self, name)) < 0 or (value and not self.speech_token):
                raise ValueError(f"lm.{name} is {value}: give 1 or more with speech_token: true")


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
