"""What is read from a batch of recordings: pooled states of an encoder or of a run's LM, the alphas, log-mel, measures.

States are pooled over time while the batch is in memory; frames are never kept. A reader's arrays are (B, L1, F)
float32 by key, layer 0 first. Shapes: `B` batch, `T` frames, `L1` states, `D` width, `F` = 2 D (mean, then deviation,
over time).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.encoder import build_encoder
from harmonifuse_core.model.frontend import LogMel
from harmonifuse_core.model.fusion import Fused
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import EncoderStates, SpeechEncoder
from probes import signal

VERSION = 1  # of what the arrays mean
BINS = 80


def pooled(states: Sequence[Tensor], mask: Tensor) -> Tensor:
    """L1 states (B, T, D), mask (B, T) -> (B, L1, 2 D): mean and standard deviation over the valid positions."""
    weights = mask.float() / mask.sum(1, keepdim=True)
    found = []
    for state in states:
        state = state.float()
        mean = torch.bmm(weights[:, None], state)  # (B, 1, D)
        variance = torch.bmm(weights[:, None], (state - mean).square_())
        found.append(torch.cat([mean, variance.clamp(min=0).sqrt()], 2))
    return torch.cat(found, 1)


def digest_of(module: nn.Module, *more: object) -> str:
    """16 hex digits of all weights, by name, and of whatever else the arrays depend on."""
    digest = hashlib.sha256(repr((VERSION, *more)).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def encoded(encoder: SpeechEncoder, waveforms: Sequence[np.ndarray]) -> EncoderStates:
    device = next(encoder.parameters()).device
    batch, lengths = pad_waveforms(list(waveforms))
    return encoder.eval()(batch.to(device), lengths.to(device))


class EncoderReader:
    """All states of a bare encoder, key `encoder`."""

    def __init__(self, encoder: SpeechEncoder, max_seconds: float = 30.0):
        self.encoder, self.max_seconds = encoder, max_seconds
        behind = [encoder.config.silence_frames] if encoder.config.silence_frames else []
        self.digest = digest_of(encoder, "encoder", encoder.config.tail_seconds, *behind)

    @torch.inference_mode()
    def read(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        states = encoded(self.encoder, waveforms)
        return {"encoder": pooled(states.states, states.mask).cpu().numpy()}


class ModelReader:
    """A run's LM states and alphas: keys `lm/TASK`, `encoder_alpha/TASK`, `lm_alpha/TASK` (B, 1, L1).

    LM states are those of the positions that answer: of a classification the one after the prompt (its deviation is 0),
    of a transcription those that write the model's own greedy transcript. The reference text is never shown to it.
    """

    def __init__(self, model: HarmoniFuse):
        self.model, self.max_seconds = model, model.config.max_seconds
        prompts = [(task.name, task.default_prompt) for task in model.config.tasks]
        self.digest = digest_of(model, "lm", prompts)

    @torch.inference_mode()
    def read(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        model, found = self.model.eval(), {}
        speech = encoded(model.encoder, waveforms)
        for task in model.config.tasks:
            fused = model.fuse_encoder(speech, task.name)
            states, mask, alpha = self._answers(speech, fused, task)
            found[f"lm/{task.name}"] = pooled(states, mask)
            found[f"encoder_alpha/{task.name}"] = fused.alpha[:, None].float()
            found[f"lm_alpha/{task.name}"] = pooled([alpha], mask)[..., : alpha.shape[-1]]
        return {key: value.cpu().numpy() for key, value in found.items()}

    def _answers(self, speech: EncoderStates, fused: Fused, task) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """States (B, N, D), which positions count (B, N), and the LM's alpha (B, N, L1)."""
        model, texts = self.model, None
        if task.is_transcription:
            written = greedy(model, speech, fused, task.name, task.default_prompt)
            texts = [list(w.tokens) for w in written]
        prompts = [model.tokenizer.prompt_ids(task.default_prompt)] * len(speech.mask)
        output = model.listen(fused, speech.mask, prompts, texts)
        alpha = model.fuse_lm(output, task.name).alpha
        count = torch.tensor([max(1, len(t)) for t in texts or [[]] * len(prompts)], device=speech.mask.device)
        mask = torch.arange(output.states[0].shape[1], device=count.device) < count[:, None]
        return output.states, mask, alpha


class SignalReader:
    """Without any model: keys `logmel` (B, 1, 160: mean and deviation of 80 bands) and `signal` (B, 1, measures)."""

    max_seconds = float("inf")

    def __init__(self):
        self.log_mel = LogMel(BINS)
        self.digest = hashlib.sha256(repr((VERSION, signal.VERSION, BINS)).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def read(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        batch, lengths = pad_waveforms(list(waveforms))
        mel, frames = self.log_mel(batch, lengths)  # (B, bins, 2 T)
        mask = torch.arange(mel.shape[2]) < 2 * frames[:, None]
        measured = np.stack([signal.measure(np.asarray(w, np.float32)) for w in waveforms])
        return {"logmel": pooled([mel.transpose(1, 2)], mask).numpy(), "signal": measured[:, None]}


@dataclass(frozen=True)
class RandomTwin:
    """The encoder's architecture with fresh weights drawn from `seed`: what the architecture alone gives a probe."""

    seed: int = 0

    def of(self, encoder: SpeechEncoder) -> SpeechEncoder:
        config: EncoderConfig = replace(encoder.config, weights="random", finetune="frozen")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build_encoder(config, encoder.hf_config).eval()
