"""The assembly: encoder -> gated fusion -> LM behind a prompt -> prompt-adaptive fusion -> heads; and its output."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from harmonifuse_core.config import AugmentConfig, ModelConfig
from harmonifuse_core.data.batching import TaskBatch
from harmonifuse_core.model.encoder import build_encoder
from harmonifuse_core.model.fusion import Fused, GatedEncoderFusion, PromptAdaptiveFusion, Survey
from harmonifuse_core.model.heads import build_heads, classification_loss, ctc_loss, transcription_loss
from harmonifuse_core.model.layer_summary import LayerSummary
from harmonifuse_core.model.lm import LanguageModel, LMStates
from harmonifuse_core.model.prefix_lm import build_prefix_lm
from harmonifuse_core.model.speech_encoder import EncoderStates, SpeechEncoder
from harmonifuse_core.model.whisper_encoder import WhisperSpeechEncoder
from harmonifuse_core.model.whisper_lm import build_whisper_lm


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one fusion for one utterance, float32 numpy, (L1,) each; per token (U, L1) in `HarmoniFuseOutput`.

    alpha >= 0 and sums to 1. bias: w or b^tau; score: FFN part; alpha = softmax(bias + score).
    share: alpha_l * norm(h_l), normalised to sum 1. Index 0 is the state before the first block.
    """

    alpha: np.ndarray
    bias: np.ndarray
    score: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class HarmoniFuseOutput:
    """Answer of one task for one utterance, and what it listened to.

    text: transcript (None for classification). label, probabilities: winning class and {class: probability}, calibrated
    (None for transcription). tokens: text pieces (U); token_logprobs (U,); token_weights: LM weights per token (U, L1).
    encoder, lm: the utterance's weights; for text, `lm` is the mean over its tokens.
    truncated: the text stopped at the length limit or was cut at a repetition.
    """

    task: str
    prompt: str
    encoder: LayerWeights
    lm: LayerWeights
    text: str | None = None
    label: str | None = None
    probabilities: dict[str, float] | None = None
    tokens: tuple[str, ...] = ()
    token_logprobs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    token_weights: LayerWeights | None = None
    truncated: bool = False


@dataclass(frozen=True)
class TaskResult:
    """Of a teacher-forced pass. loss: mean over tokens, units or utterances; count: of those; `states`: the encoder's.

    token_logits (N, V) and token_rows (N,) belong to transcription; class_logits (B, C) to classification.
    """

    loss: Tensor
    count: int
    encoder: Fused
    lm: Fused
    states: EncoderStates
    token_logits: Tensor | None = None
    token_rows: Tensor | None = None
    class_logits: Tensor | None = None


class HarmoniFuse(nn.Module):
    """The full model. Build with `build_model`; K tasks as in `config.tasks`."""

    def __init__(self, config: ModelConfig, encoder: SpeechEncoder, lm: LanguageModel):
        super().__init__()
        self.config, self.encoder, self.lm = config, encoder, lm
        names = tuple(task.name for task in config.tasks)
        self.gate = GatedEncoderFusion(config.gate, names, encoder.layers + 1, encoder.width)
        self.fusion = PromptAdaptiveFusion(config.lm, names, lm.layers + 1, lm.width)
        self.heads = build_heads(config.tasks, encoder.width, lm.width, config.dropout)
        self.summary = None
        if config.lm.speech_token_layers:
            self.summary = LayerSummary(encoder.layers + 1, encoder.width, config.lm.speech_token_layers, lm.width)

    @property
    def device(self) -> torch.device:
        return self.gate.logits.device

    @property
    def tokenizer(self):
        return self.lm.tokenizer

    def encode(self, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None) -> EncoderStates:
        """States of (B, S) waveforms; shared by all tasks."""
        return self.encoder(waveforms, lengths, augment)

    def survey(self, states: EncoderStates) -> Survey | None:
        """For `fuse_encoder` of several tasks on the same states."""
        return self.gate.survey(states.states, states.mask)

    def fuse_encoder(
        self, states: EncoderStates, task: str, alpha: Tensor | None = None, survey: Survey | None = None
    ) -> Fused:
        fused = self.gate(states.states, states.mask, task, alpha, survey)
        if self.summary is None or self.config.task(task).is_transcription:
            return fused
        return replace(fused, summary=self.summary(self.summary.weigh(self.statistics(states, survey), fused.alpha)))

    def statistics(self, states: EncoderStates, survey: Survey | None = None) -> Tensor:
        """What `summary` reads: mean and deviation of each layer as the gate weighs it, (B, L1, 2 D)."""
        normed = (s * self.gate.norm.gain for s in survey.states) if survey else map(self.gate.norm, states.states)
        return self.summary.statistics(normed, self.spoken(states.mask))

    def spoken(self, mask: Tensor) -> Tensor:
        """`mask` (B, T) without the frames that stand for the silence behind (`encoder.silence_frames`)."""
        if self.encoder.silence is None:
            return mask
        own = mask.sum(1, keepdim=True) - self.encoder.silence.frames
        return torch.arange(mask.shape[1], device=mask.device) < own

    def listen(self, fused: Fused, mask: Tensor, prompts: list[list[int]], texts: list[list[int]] | None) -> LMStates:
        """The LM's states at the answer positions of speech that `fuse_encoder` fused; see `LanguageModel`."""
        return self.lm.teacher_forced(fused.states, mask, prompts, texts, fused.summary)

    def fuse_lm(self, states: LMStates, task: str, alpha: Tensor | None = None) -> Fused:
        return self.fusion(states.states, task, states.pooled, alpha)

    def run_task(self, states: EncoderStates, task: str, batch: TaskBatch) -> TaskResult:
        """Teacher-forced answer and loss of `task` on encoded speech."""
        spec = self.config.task(task)
        fused = self.fuse_encoder(states, task)
        prompts = [self.tokenizer.prompt_ids(prompt) for prompt in batch.prompts]
        if not spec.is_transcription:
            answer = self.fuse_lm(self.listen(fused, states.mask, prompts, None), task)
            if batch.units is not None:
                logits, units = self.heads[task](fused.states, answer.states[:, 0]), [list(u) for u in batch.units]
                count = sum(map(len, units))
                return TaskResult(ctc_loss(logits, states.frames, units).sum() / count, count, fused, answer, states)
            logits = self.heads[task](answer.states[:, 0])  # (B, C)
            settings = (batch.allowed, spec.label_smoothing, spec.absent_weight)
            loss = classification_loss(logits, batch.labels, *settings)  # (B,)
            if batch.shares is not None:
                other = classification_loss(logits, batch.mixed_labels, *settings)
                loss = batch.shares * loss + (1 - batch.shares) * other
            loss = loss.mean()
            return TaskResult(loss, len(prompts), fused, answer, states, class_logits=logits)
        texts = [list(ids) for ids in batch.token_ids]
        answer = self.fuse_lm(self.listen(fused, states.mask, prompts, texts), task)
        targets = [ids + [self.tokenizer.end] for ids in texts]
        rows = torch.tensor([b for b, t in enumerate(targets) for _ in t], device=self.device)
        columns = torch.tensor([u for t in targets for u in range(len(t))], device=self.device)
        flat = torch.tensor([i for t in targets for i in t], device=self.device)
        logits = self.lm.logits(answer.states[rows, columns])  # (N, V): only real tokens reach the vocabulary
        loss = transcription_loss(logits, flat, spec.label_smoothing).mean()
        return TaskResult(loss, len(flat), fused, answer, states, token_logits=logits, token_rows=rows)

    def forward(self, batches: dict[str, TaskBatch], augment: AugmentConfig | None = None) -> dict[str, TaskResult]:
        """One interleaved step: every task's utterances through the shared model, each with its own loss only."""
        plain = augment and replace(augment, frequency_warp=0.0)  # text may be taught by states of unwarped speech
        results = {}
        for task, batch in batches.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.task(task).trains_encoder):
                states = self.encode(batch.waveforms, batch.lengths, augment if batch.labels is not None else plain)
            results[task] = self.run_task(states, task, batch)
        return results


def build_model(config: ModelConfig, *, encoder_hf=None, lm_hf=None, tokenizer=None) -> HarmoniFuse:
    """Build the model of `config`; the keyword arguments come from a saved run, so that nothing is fetched.

    A Whisper encoder's and decoder's final layer norm become the start of the fusions' shared gain, so that the sum
    arrives at the scale the pre-trained decoder knows.
    """
    encoder = build_encoder(config.encoder, encoder_hf)
    build_lm = build_whisper_lm if config.lm.kind == "whisper" else build_prefix_lm
    lm = build_lm(config.lm, encoder.width, tokenizer, lm_hf)
    model = HarmoniFuse(config, encoder, lm)
    if isinstance(encoder, WhisperSpeechEncoder):
        _adopt_norm(model.gate.norm, encoder.body.layer_norm)
        del encoder.body.layer_norm
    if config.lm.kind == "whisper":
        lm.silence = encoder.silence
        _adopt_norm(model.fusion.norm, lm.body.layer_norm)
        del lm.body.layer_norm
    else:
        _adopt_norm(model.fusion.norm, lm.final_norm[0])
        lm.final_norm.clear()
    return model


def _adopt_norm(target: nn.Module, source: nn.Module):
    if not target.enabled:  # gain and bias belong to a normalised state
        return
    with torch.no_grad():
        target.gain.copy_(source.weight)
        if getattr(source, "bias", None) is not None:
            target.bias.copy_(source.bias)
