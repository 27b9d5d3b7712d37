"""Any Hugging Face speech encoder -> all of its states. Frozen means frozen: eval mode, no LayerDrop, no gradient."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import cached_file

from harmonifuse_core.config import AugmentConfig, EncoderConfig
from harmonifuse_core.model.frontend import SAMPLE_RATE, LogMel, mask_spans, normalise_waveforms, warp_frequency
from harmonifuse_core.model.low_rank import add_low_rank

WAVEFORM_TYPES = ("wavlm", "hubert", "wav2vec2")


@dataclass(frozen=True)
class EncoderStates:
    """`states`: L+1 tensors (B, T, D), state 0 before the first block; `mask` (B, T): True = speech."""

    states: tuple[Tensor, ...]
    mask: Tensor

    @property
    def frames(self) -> Tensor:
        return self.mask.sum(1)


class SpeechEncoder(nn.Module, ABC):
    """Common face of the encoders: `forward(waveforms (B, S), lengths (B,)) -> EncoderStates`.

    State 0 is what enters the first block, state k the output of block k, before any final layer norm. `cache` may
    stand in for the computation of a frozen encoder (`inference/state_cache.py`).
    """

    def __init__(self, config: EncoderConfig, hf_config, body: nn.Module, blocks: nn.ModuleList):
        super().__init__()
        self.config, self.hf_config, self.body = config, hf_config, body
        self.width, self.layers = hf_config.hidden_size, len(blocks)
        self.trainable_from = self._freeze(config.finetune, blocks)
        self.cache: Callable[..., EncoderStates] | None = None

    def _freeze(self, finetune: str, blocks) -> int:
        """Set `requires_grad`; return the first block that learns (L: none, -1: the front end too)."""
        if finetune == "all":
            return -1
        self.body.requires_grad_(False)
        if finetune == "frozen":
            return self.layers
        if finetune.startswith("lora-"):
            add_low_rank(blocks, int(finetune.removeprefix("lora-")))
            return 0
        top = int(finetune.removeprefix("top-"))
        if top > self.layers:
            raise ValueError(
                f"encoder.finetune is {finetune!r}, but {self.config.name} has {self.layers} blocks; use all"
            )
        for block in blocks[-top:]:
            block.requires_grad_(True)
        return self.layers - top

    def train(self, mode: bool = True):
        super().train(mode)
        if self.trainable_from >= self.layers:
            self.body.eval()
        return self

    def forward(self, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None) -> EncoderStates:
        """`augment` masks spans of the input in training. Raises ValueError on clips that are too short or too long."""
        augment = augment if self.training else None
        if self.cache is not None:
            return self.cache(self, waveforms, lengths, augment)
        return self.compute(waveforms, lengths, augment)

    def compute(self, waveforms: Tensor, lengths: Tensor, augment: AugmentConfig | None = None) -> EncoderStates:
        """As `forward`, past any cache."""
        frozen = self.trainable_from >= self.layers
        with torch.no_grad() if frozen else nullcontext():
            return self._encode(waveforms, lengths, augment)

    @abstractmethod
    def count_frames(self, lengths: Tensor) -> Tensor:
        """Frames (B,) that clips of `lengths` (B,) samples give."""

    def _run(self, block, *args):
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)


class WhisperSpeechEncoder(SpeechEncoder):
    """Whisper's encoder at the speech's own length (plus `tail_seconds` of silence) instead of 30 s."""

    def __init__(self, config: EncoderConfig, hf_config, body):
        super().__init__(config, hf_config, body, body.layers)
        self.log_mel = LogMel(hf_config.num_mel_bins)
        self.tail = round(config.tail_seconds * SAMPLE_RATE)
        body.embed_positions.requires_grad_(False)

    def _encode(self, waveforms, lengths, augment):
        mel, frames = self.log_mel(waveforms, lengths, self.tail)  # (B, bins, 2T), (B,)
        if int(frames.max()) > self.body.embed_positions.num_embeddings:
            limit = self.body.embed_positions.num_embeddings / 50 - self.config.tail_seconds
            raise ValueError(
                f"a clip of {int(lengths.max()) / SAMPLE_RATE:.1f} s is longer than {limit:.1f} s: segment it"
            )
        if augment:
            mel = warp_frequency(mel, augment.frequency_warp)
            mel = mask_spans(mel, 2 * frames, 2, augment.time_masks, augment.time_mask_frames)
            mel = mask_spans(mel, 2 * frames, 1, augment.frequency_masks, augment.frequency_mask_bins)
        return self.from_mel(mel, frames)

    def count_frames(self, lengths):
        return self.log_mel.frames(lengths, self.tail)

    def from_mel(self, mel: Tensor, frames: Tensor) -> EncoderStates:
        """Encode log-mel (B, bins, 2T) that is zero behind each clip's 2 * `frames` (B,)."""
        gelu = nn.functional.gelu
        mask = torch.arange(mel.shape[2] // 2, device=mel.device) < frames[:, None]  # (B, T)
        hidden = gelu(self.body.conv1(mel.to(self.body.conv1.weight.dtype)))
        hidden = hidden * mask.repeat_interleave(2, dim=1)[:, None]  # as conv2 pads a clip on its own
        hidden = gelu(self.body.conv2(hidden)).transpose(1, 2)  # (B, T, D)
        hidden = hidden + self.body.embed_positions.weight[: hidden.shape[1]]
        keys = None if bool(mask.all()) else mask[:, None, None, :]
        states = [hidden]
        for block in self.body.layers:
            states.append(self._run(whisper_encoder_block, block, states[-1], keys))
        return EncoderStates(tuple(states), mask)


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, heads, N, D / heads)."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def whisper_encoder_block(block, hidden: Tensor, keys: Tensor | None) -> Tensor:
    """One pre-norm block of transformers' Whisper encoder on (B, T, D); `keys` (B, 1, 1, T) True = may be attended."""
    attention, heads = block.self_attn, block.self_attn.num_heads
    normed = block.self_attn_layer_norm(hidden)
    query, key, value = (split_heads(p(normed), heads) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + block.fc2(nn.functional.gelu(block.fc1(block.final_layer_norm(hidden))))


class WaveformSpeechEncoder(SpeechEncoder):
    """WavLM, HuBERT, wav2vec 2.0. Group-norm front ends (Base) see each clip alone, so that padding changes nothing."""

    def __init__(self, config: EncoderConfig, hf_config, body, normalise: bool):
        super().__init__(config, hf_config, body, body.encoder.layers)
        self.normalise = normalise
        if self.trainable_from >= 0:
            body.feature_extractor._freeze_parameters()

    def _encode(self, waveforms, lengths, augment):
        if self.normalise:
            waveforms = normalise_waveforms(waveforms, lengths)
        frames = self.count_frames(lengths)
        if int(frames.min()) < 1:
            raise ValueError(
                f"a clip of {int(lengths.min())} samples is shorter than one frame: drop it or pad it to 25 ms"
            )
        features = self._front_end(waveforms, lengths, frames).transpose(1, 2)  # (B, T, C)
        hidden = self.body.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        mask = torch.arange(hidden.shape[1], device=hidden.device) < frames[:, None]
        if augment:
            hidden = mask_spans(hidden.transpose(1, 2), frames, 2, augment.time_masks, augment.time_mask_frames // 2)
            hidden = hidden.transpose(1, 2)
        return EncoderStates(self._blocks(hidden * mask[..., None], mask), mask)

    def count_frames(self, lengths):
        return self.body._get_feat_extract_output_lengths(lengths).long()

    def _blocks(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """All states of (B, T, D), block by block: the body inside a transformers model returns the last one only."""
        encoder, wavlm = self.body.encoder, self.hf_config.model_type == "wavlm"
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not self.hf_config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        states, bias, keys = [encoder.dropout(hidden)], None, None
        if not bool(mask.all()):
            keys = mask if wavlm else create_bidirectional_mask(self.body.config, hidden, mask)
        for block in encoder.layers:
            if wavlm:  # block 0 makes the relative position bias that all blocks read
                hidden, bias = self._run(block, states[-1], keys, bias)
            else:
                hidden = self._run(block, states[-1], keys)
            states.append(hidden)
        return tuple(states)

    def _front_end(self, waveforms, lengths, frames):
        if self.hf_config.feat_extract_norm != "group" or len(waveforms) == 1:
            return self.body.feature_extractor(waveforms[:, : int(lengths.max())])
        clips = [self.body.feature_extractor(w[None, : int(n)])[0].T for w, n in zip(waveforms, lengths, strict=True)]
        return nn.utils.rnn.pad_sequence(clips, batch_first=True).transpose(1, 2)


def build_encoder(config: EncoderConfig, hf_config=None) -> SpeechEncoder:
    """Build the encoder that `config.name` names; with `hf_config` given (a saved run) no weights are fetched."""
    stored = hf_config is not None
    if not stored:
        hf_config = read_hf_config(config.name, "encoder.name")
        for key, value in config.overrides.items():
            if not hasattr(hf_config, key):
                raise ValueError(f"encoder.overrides names {key!r}, which {config.name} does not have")
            setattr(hf_config, key, value)
    if hf_config.model_type not in (*WAVEFORM_TYPES, "whisper"):
        known = ", ".join((*WAVEFORM_TYPES, "whisper"))
        raise ValueError(f"encoder.name {config.name!r} is a {hf_config.model_type} model; supported: {known}")
    if hasattr(hf_config, "layerdrop"):
        hf_config.layerdrop = 0.0  # in train mode dropped layers vanish from hidden_states and shift the indices
    if stored or config.weights == "random":
        model = AutoModel.from_config(hf_config, dtype=torch.float32)
    else:
        model = AutoModel.from_pretrained(config.name, config=hf_config, dtype=torch.float32)
    if hf_config.model_type == "whisper":
        return WhisperSpeechEncoder(config, hf_config, model.encoder)
    hf_config.do_normalize = wants_normalised_input(config.name, hf_config)  # travels with a saved run
    return WaveformSpeechEncoder(config, hf_config, model, hf_config.do_normalize)


def read_hf_config(name: str, field: str):
    """`AutoConfig` of a hub name or folder, with an error that names the config field and the remedy."""
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{field} {name!r} is neither a local folder with a config.json nor reachable on the model hub: {error}"
        ) from error


def wants_normalised_input(name: str, hf_config) -> bool:
    """What a saved run or the checkpoint's feature extractor says; without either, layer-norm front ends (Large) do."""
    if (known := getattr(hf_config, "do_normalize", None)) is not None:
        return bool(known)
    try:
        stored = cached_file(name, "preprocessor_config.json")
    except (OSError, ValueError):
        return hf_config.feat_extract_norm == "layer"
    return bool(json.loads(Path(stored).read_text()).get("do_normalize", True))
