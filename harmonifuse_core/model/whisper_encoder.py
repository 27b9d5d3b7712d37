"""Whisper's encoder at the speech's own length."""

import torch
from torch import Tensor, nn

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.model.frontend import SAMPLE_RATE, LogMel, mask_spans, silence_level, warp_frequency
from harmonifuse_core.model.silence import Silence, silent_frame
from harmonifuse_core.model.speech_encoder import EncoderStates, SpeechEncoder


class WhisperSpeechEncoder(SpeechEncoder):
    """Whisper's encoder at the speech's own length (plus `tail_seconds` of silence) instead of 30 s.

    With `silence_frames`, these follow as the last valid frames of each clip; see `silence.py`.
    """

    def __init__(self, config: EncoderConfig, hf_config, body):
        super().__init__(config, hf_config, body, body.layers)
        self.log_mel = LogMel(hf_config.num_mel_bins)
        self.tail = round(config.tail_seconds * SAMPLE_RATE)
        body.embed_positions.requires_grad_(False)
        if config.silence_frames:
            self.silence = Silence(config.silence_frames, body.embed_positions.num_embeddings)

    def _encode(self, waveforms, lengths, augment):
        mel, frames = self.log_mel(waveforms, lengths, self.tail)  # (B, bins, 2T), (B,)
        if int(frames.max()) > (window := self.body.embed_positions.num_embeddings):
            limit = window / 50 - self.config.tail_seconds
            raise ValueError(
                f"a clip of {int(lengths.max()) / SAMPLE_RATE:.1f} s is longer than {limit:.1f} s: segment it"
            )
        floor = None if self.silence is None else silence_level(mel, frames)
        if augment:
            mel = warp_frequency(mel, augment.frequency_warp)
            mel = mask_spans(mel, 2 * frames, 2, augment.time_masks, augment.time_mask_frames)
            mel = mask_spans(mel, 2 * frames, 1, augment.frequency_masks, augment.frequency_mask_bins)
        return self.from_mel(mel, frames, floor)

    def count_frames(self, lengths):
        return self.log_mel.frames(lengths, self.tail) + self.config.silence_frames

    def from_mel(self, mel: Tensor, frames: Tensor, floor: Tensor | None = None) -> EncoderStates:
        """Encode log-mel (B, bins, 2T) that is zero behind each clip's 2 * `frames` (B,); `floor` (B,): silence."""
        gelu = nn.functional.gelu
        mask = torch.arange(mel.shape[2] // 2, device=mel.device) < frames[:, None]  # (B, T)
        steps = mask.repeat_interleave(2, dim=1)[:, None]
        if self.silence is not None:  # conv1 hears one step of what follows the clip
            mel = nn.functional.pad(torch.where(steps, mel, floor[:, None, None]), (0, 1))
            mel[:, :, -1] = floor[:, None]
        hidden = gelu(self.body.conv1(mel.to(self.body.conv1.weight.dtype)))[..., : steps.shape[2]]
        hidden = hidden * steps  # as conv2 pads a clip on its own
        hidden = gelu(self.body.conv2(hidden)).transpose(1, 2)  # (B, T, D)
        if self.silence is not None:
            hidden, mask = self._with_silence(hidden, frames, floor)
            keys = self.silence.scores(mask).to(hidden.dtype)
        else:
            hidden = hidden + self.body.embed_positions.weight[: hidden.shape[1]]
            keys = None if bool(mask.all()) else mask[:, None, None, :]
        states = [hidden]
        for block in self.body.layers:
            states.append(self._run(whisper_encoder_block, block, states[-1], keys))
        return EncoderStates(tuple(states), mask)

    def _with_silence(self, hidden: Tensor, frames: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, D) without positions -> those with the V of silence and all positions, (B, T + V, D); mask."""
        speech, extra = hidden.shape[1], self.silence.frames
        silent = silent_frame(self.body.conv1, self.body.conv2, floor)[:, None]  # (B, 1, D)
        index = torch.arange(speech + extra, device=hidden.device)
        hidden = nn.functional.pad(hidden, (0, 0, 0, extra))
        hidden = torch.where((index < frames[:, None])[..., None], hidden, silent.to(hidden))
        hidden = hidden + self.body.embed_positions.weight[self.silence.positions(frames, speech + extra)]
        return hidden, index < frames[:, None] + extra


def split_heads(projected: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, heads, N, D / heads)."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def whisper_encoder_block(block, hidden: Tensor, keys: Tensor | None) -> Tensor:
    """One pre-norm block of transformers' Whisper encoder on (B, T, D).

    `keys` (B, 1, 1, T): True = may be attended, or what is added to the scores."""
    attention, heads = block.self_attn, block.self_attn.num_heads
    normed = block.self_attn_layer_norm(hidden)
    query, key, value = (split_heads(p(normed), heads) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + block.fc2(nn.functional.gelu(block.fc1(block.final_layer_norm(hidden))))
