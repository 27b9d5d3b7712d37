"""Blocks of any rate and channel count to one 16 kHz mono waveform, and what was seen on the way."""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import soxr

from harmonifuse_core.data.containers import Container
from harmonifuse_core.data.limits import SAMPLE_RATE, AudioError, AudioLimits
from harmonifuse_core.data.readers import Unreadable, readers_for

FULL_SCALE = 0.99  # 8-bit files end at 127/128
CANCELLING = 0.1  # mean of the channels holds less than this part of what unrelated channels would leave


@dataclass(frozen=True)
class Mixdown:
    """waveform (S,) float32 at 16 kHz, unscaled. swing: half of the range of the mono signal at the source rate, free
    of any constant offset. clipped: part of the source samples at full scale."""

    waveform: np.ndarray
    rate: int
    channels: int
    seconds: float
    swing: float
    clipped: float
    loudest: int
    cancels: bool
    notes: tuple[str, ...]


class _Mixer:
    """Takes blocks one at a time: at no moment more than a block of the source is held."""

    def __init__(self, limits: AudioLimits, channel: int | None) -> None:
        self.limits, self.channel = limits, channel
        self.rate = self.channels = self.frames = self.clipped = self.nonfinite = self.first_nonfinite = 0
        self.low, self.high = np.inf, -np.inf
        self.power = np.zeros(0)
        self.mono_power = 0.0
        self.resampler: soxr.ResampleStream | None = None
        self.chunks: list[np.ndarray] = []

    def add(self, rate: int, block: np.ndarray) -> None:
        """block: (n, channels) float32 at `rate` Hz. Raises AudioError past the limits."""
        if not self.frames:
            self._start(rate, block.shape[1])
        elif (rate, block.shape[1]) != (self.rate, self.channels):
            place = f"{self.frames / self.rate:.1f} s"
            raise AudioError(f"its rate or channels change midway, at {place}: convert it to WAV first")
        with np.errstate(all="ignore"):  # NaN and huge values are reported in words below
            mono = block[:, self.channel or 0] if self.channels == 1 or self.channel is not None else block.mean(axis=1)
            if not np.isfinite(mono).all():
                mono = self._without_nonfinite(block, mono)
            if self.channels > 1:
                self.power += np.einsum("nc,nc->c", block, block, dtype=np.float64)
                self.mono_power += float(np.einsum("n,n->", mono, mono, dtype=np.float64))
            self.clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self.low, self.high = min(self.low, float(mono.min())), max(self.high, float(mono.max()))
        self.frames += len(block)
        if self.frames > self.limits.max_seconds * rate:
            raise AudioError(f"more than {self.limits.max_seconds:g} s is too long: cut it into parts")
        mono = np.ascontiguousarray(mono)
        self.chunks.append(self.resampler.resample_chunk(mono) if self.resampler else mono)

    def _start(self, rate: int, channels: int) -> None:
        self.limits.check_header(rate, channels, 0.0)
        self.rate, self.channels, self.power = rate, channels, np.zeros(channels)
        if rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def _without_nonfinite(self, block: np.ndarray, mono: np.ndarray) -> np.ndarray:
        wrong = ~np.isfinite(block)
        if not wrong.any():  # finite channels whose sum is beyond float32
            wrong = ~np.isfinite(mono)[:, None]
        if not self.nonfinite:
            self.first_nonfinite = self.frames + int(wrong.any(axis=1).argmax())
        self.nonfinite += int(wrong.sum())
        return np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)

    def finish(self, notes: list[str]) -> Mixdown:
        """Flush the resampler. Raises AudioError where samples were NaN, infinite or beyond float32."""
        if self.resampler:
            self.chunks.append(self.resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        waveform = np.concatenate(self.chunks)
        if self.nonfinite:
            count = f"{self.nonfinite} sample{'s are' if self.nonfinite > 1 else ' is'} NaN or infinite"
            place = f"sample {self.first_nonfinite} ({self.first_nonfinite / self.rate:.3f} s)"
            raise AudioError(f"{count}, the first at {place}: export it as 16-bit PCM")
        if not np.isfinite(waveform).all():
            raise AudioError(f"samples up to {max(-self.low, self.high):.1e} are too large: export it as 16-bit PCM")
        unrelated = float(self.power.sum()) / self.channels**2  # power of the mean if the channels were independent
        return Mixdown(
            waveform=waveform,
            rate=self.rate,
            channels=self.channels,
            seconds=self.frames / self.rate,
            swing=(self.high - self.low) / 2,
            clipped=self.clipped / (self.frames * self.channels),
            loudest=int(self.power.argmax()),
            cancels=self.channels > 1 and self.mono_power < CANCELLING * unrelated,
            notes=tuple(notes),
        )


def mix_down(data: bytes, container: Container, limits: AudioLimits, channel: int | None = None) -> Mixdown:
    """Decode a whole file to mono 16 kHz: the mean of its channels, or one of them. Raises AudioError."""
    reasons = []
    for reader in readers_for(container, data):
        notes: list[str] = []
        mixer = _Mixer(limits, channel)
        try:
            with closing(reader(data, container, limits, notes)) as blocks:
                for rate, block in blocks:
                    mixer.add(rate, block)
            return mixer.finish(notes)
        except Unreadable as error:
            reasons.append(str(error))
    state = f"it is damaged, cut off or empty ({reasons[0]})"
    raise AudioError(f"cannot be decoded as {container.title}, {state}: record or export it again")
