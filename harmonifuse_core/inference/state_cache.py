"""A frozen encoder computes its states once for every recording; afterwards they are read from disk.

    model = build_model(config.model)              # encoder.finetune: frozen
    attach_state_cache(model, "cache/states", 20)  # training, predict and evaluate read states now

Training attaches it by itself where `data.state_cache` names a folder. States are those of the weights as a run
saves them (float16), in float32 arithmetic, one recording at a time, so that they depend on weights and samples alone.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.config import AugmentConfig
from harmonifuse_core.data.state_store import StateStore
from harmonifuse_core.model.frontend import mask_spans
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import EncoderStates, SpeechEncoder

FORMAT = "states-1"
FULL_SCALE = 32767
NO_PART = (
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
)  # of a Hugging Face config: not of the model


class StateCache:
    """Takes the encoder's place in its `forward`. computed, read: recordings so far."""

    def __init__(self, store: StateStore):
        self.store, self.computed, self.read = store, 0, 0

    def __call__(
        self, encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None
    ) -> EncoderStates:
        """States of (B, S) waveforms; `augment` (training) blanks spans of time, the same in every layer."""
        found = [self.states(encoder, row[: int(n)]) for row, n in zip(waveforms, lengths, strict=True)]
        layers, _, width = found[0].shape
        frames = torch.tensor([states.shape[1] for states in found])
        joined = torch.zeros(layers, len(found), int(frames.max()), width)
        for row, states in enumerate(found):
            joined[:, row, : states.shape[1]] = states
        joined, frames = joined.to(waveforms.device), frames.to(waveforms.device)
        mask = torch.arange(joined.shape[2], device=joined.device) < frames[:, None]
        if augment and augment.time_masks:
            keep = mask_spans(mask[:, None].float(), frames, 2, augment.time_masks, augment.time_mask_frames // 2)
            joined *= keep[:, 0, :, None]
        return EncoderStates(joined.unbind(0), mask)

    def states(self, encoder: SpeechEncoder, waveform: Tensor) -> Tensor:
        """States (L1, T, D) of one recording (S,), on the CPU, as they are stored."""
        samples = (waveform.clamp(-1, 1) * FULL_SCALE).round().to(torch.int16)
        key = hashlib.sha256(samples.cpu().numpy().tobytes()).hexdigest()
        if (states := self.store.get(key)) is not None:
            self.read += 1
            return states
        heard = (samples.float() / FULL_SCALE)[None]
        with torch.no_grad(), torch.autocast(heard.device.type, enabled=False):
            answer = encoder.compute(heard, torch.tensor([len(samples)], device=heard.device))
        self.computed += 1
        return self.store.put(key, torch.stack([state[0] for state in answer.states]))


def attach_state_cache(model: HarmoniFuse, folder: str | Path, gigabytes: float = 20.0) -> StateCache:
    """Let `model`'s frozen encoder read its states from `folder`; its weights are rounded to float16 (as saved).

    Raises ValueError for an encoder that learns.
    """
    encoder = model.encoder
    if encoder.config.finetune != "frozen":
        raise ValueError(
            f"a state cache needs a frozen encoder, but encoder.finetune is {encoder.config.finetune!r}: its states "
            "change with every step; empty data.state_cache"
        )
    encoder.body.eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(parameter.half())
    description = _description(encoder)
    store = StateStore(folder, encoder_key(encoder, description), description, gigabytes)
    encoder.cache = StateCache(store)
    return encoder.cache


def detach_state_cache(model: HarmoniFuse):
    """Let the encoder compute its states again."""
    model.encoder.cache = None


def fill(
    model: HarmoniFuse, waveforms: Iterable[np.ndarray], on_done: Callable[[int], None] | None = None
) -> StateCache:
    """Compute and keep what is missing for `waveforms` (S_i,); `on_done` hears how many are done."""
    cache = model.encoder.cache
    for number, waveform in enumerate(waveforms, 1):
        cache.states(model.encoder, torch.from_numpy(np.ascontiguousarray(waveform)).to(model.device))
        if on_done is not None:
            on_done(number)
    return cache


def _description(encoder: SpeechEncoder) -> dict:
    """What the states depend on beside the weights."""
    fields = json.loads(encoder.hf_config.to_json_string(use_diff=False))
    fields = {k: v for k, v in sorted(fields.items()) if k not in NO_PART and not k.startswith("_")}
    name, behind = Path(encoder.config.name).name, {"tail_seconds": encoder.config.tail_seconds}
    if encoder.config.silence_frames:
        behind["silence_frames"] = encoder.config.silence_frames
    return {"format": FORMAT, "name": name, **behind, "config": fields}


def encoder_key(encoder: SpeechEncoder, description: dict) -> str:
    """Digest of what the encoder computes: architecture, tail and every weight. The name plays no part."""
    digest = hashlib.sha256(json.dumps(description | {"name": ""}, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
