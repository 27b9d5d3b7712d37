"""Waveforms to encoder input: Whisper's log-mel at the speech's own length, and zero-mean unit-variance waveforms."""

import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE = 16_000
WINDOW, HOP = 400, 160
FRAME = 2 * HOP  # samples in one Whisper encoder frame (conv2 has stride 2)


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram (Radford et al. 2022), without padding to 30 s.

    A clip gives the same frames alone and in any batch: what lies behind its last sample is silence.
    """

    def __init__(self, bins: int = 80):
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=1 + WINDOW // 2,
            num_mel_filters=bins,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def frames(self, lengths: Tensor, tail: int) -> Tensor:
        """Encoder frames of clips of `lengths` samples with `tail` samples of silence behind them."""
        return (lengths + tail + FRAME - 1) // FRAME

    def forward(self, waveforms: Tensor, lengths: Tensor, tail: int = 0) -> tuple[Tensor, Tensor]:
        """Return the log-mel (B, bins, 2T), zero behind each clip, and the clips' encoder frames (B,).

        B batch, T encoder frames; `waveforms` (B, S) are zero behind `lengths` (B,).
        """
        frames = self.frames(lengths, tail)
        steps = 2 * int(frames.max())
        room = steps * HOP + WINDOW - waveforms.shape[1]
        padded = nn.functional.pad(waveforms.float(), (0, max(room, 0)))[:, : steps * HOP + WINDOW]
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(padded, WINDOW, HOP, window=self.window, return_complex=True)[..., :steps]
            power = spectrum.real.square() + spectrum.imag.square()
            mel = (self.filters @ power).clamp(min=1e-10).log10()  # (B, bins, 2T)
        valid = torch.arange(steps, device=mel.device) < 2 * frames[:, None]
        peak = mel.masked_fill(~valid[:, None], -torch.inf).amax(dim=(1, 2), keepdim=True)
        mel = (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0
        return mel * valid[:, None], frames


def silence_level(mel: Tensor, frames: Tensor) -> Tensor:
    """The value (B,) that silence has in every bin of log-mel (B, bins, 2T) with 2 * `frames` (B,) valid steps."""
    valid = torch.arange(mel.shape[2], device=mel.device) < 2 * frames[:, None]
    return (mel.masked_fill(~valid[:, None], -torch.inf).amax(dim=(1, 2)) - 2.0).clamp(min=-1.5)


def normalise_waveforms(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance over each clip's own samples; zero behind (transformers' `do_normalize`)."""
    valid = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
    count = lengths[:, None].clamp(min=1)
    mean = (waveforms * valid).sum(1, keepdim=True) / count
    centred = (waveforms - mean) * valid
    variance = centred.square().sum(1, keepdim=True) / count
    return centred / (variance + 1e-7).sqrt()


def mask_spans(features: Tensor, frames: Tensor, dim: int, count: int, width: int, fill: float = 0.0) -> Tensor:
    """SpecAugment (Park et al. 2019): fill `count` random spans of up to `width` along `dim` of each clip.

    Time spans stay within the clip's own `frames` and cover at most a fifth of it.
    """
    if not count or not width:
        return features
    size, length = features.shape[dim], features.shape[0]
    limit = frames if dim == features.ndim - 1 or features.ndim == 2 else torch.full_like(frames, size)
    positions = torch.arange(size, device=features.device)
    hidden = torch.zeros(length, size, dtype=torch.bool, device=features.device)
    for _ in range(count):
        widest = torch.minimum(torch.full_like(limit, width), limit // 5).float()
        span = (torch.rand(length, device=features.device) * (widest + 1)).long()
        start = (torch.rand(length, device=features.device) * (limit - span + 1)).long()
        hidden |= (positions >= start[:, None]) & (positions < (start + span)[:, None])
    shape = [length] + [1] * (features.ndim - 1)
    shape[dim] = size
    return features.masked_fill(hidden.view(shape), fill)


def warp_frequency(mel: Tensor, most: float) -> Tensor:
    """Stretch the bins of each clip's (B, bins, T) by a factor from 1 - `most` to 1 + `most`: another vocal tract.

    As Jaitly and Hinton (2013), on the mel axis; bins beyond the last repeat it.
    """
    if not most:
        return mel
    bins = mel.shape[1]
    factor = 1 + most * (2 * torch.rand(len(mel), 1, device=mel.device) - 1)
    place = (torch.arange(bins, device=mel.device) * factor).clamp(max=bins - 1)  # (B, bins)
    low = place.floor().long()
    high, part = (low + 1).clamp(max=bins - 1), (place - low)[..., None]
    below, above = (mel.gather(1, i[..., None].expand_as(mel)) for i in (low, high))
    return below + part * (above - below)
