"""A waveform as pictures: mel spectrogram and envelope. Nothing here is ever an input of a model.

The spectrogram is librosa's to a thousandth of a decibel, without librosa: that brings numba, which takes a server
seconds to import and 130 MB to keep.
"""

import warnings
from functools import lru_cache

import numpy as np

from harmonifuse_core.data.limits import SAMPLE_RATE

HOP = 160  # 10 ms
WINDOW = 400  # 25 ms
FFT = 1024  # longer than the window: the lowest mel bands would otherwise fall between two bins and stay empty
DYNAMIC_RANGE = 80.0
FRAMES = 4096  # transformed at once: memory does not grow with the clip


def mel_spectrogram(waveform: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """Mel power in dB below the loudest cell, (n_mels, T) float32 in -80..0, T = 1 + S // 160.

    waveform: (S,) at 16 kHz; digital silence gives -80 throughout. Raises ValueError for another shape or n_mels < 1.
    """
    waveform = _one_channel(waveform)
    if n_mels < 1:
        raise ValueError(f"n_mels is {n_mels}: give at least 1")
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, FFT // 2), FFT)[::HOP]
    bands, window = _bands(n_mels), _window()
    power = np.empty((n_mels, len(frames)), np.float32)
    for start in range(0, len(frames), FRAMES):
        spectrum = np.abs(np.fft.rfft(frames[start : start + FRAMES] * window)) ** 2
        power[:, start : start + FRAMES] = (spectrum @ bands).T
    loudest = float(power.max(initial=0.0))
    if loudest == 0:
        return np.full(power.shape, -DYNAMIC_RANGE, np.float32)
    floor = loudest * 10 ** (-DYNAMIC_RANGE / 10)
    decibels = 10 * np.log10(np.maximum(power, floor) / loudest)
    return np.maximum(decibels, -DYNAMIC_RANGE).astype(np.float32)  # the floor itself is rounded


@lru_cache(maxsize=4)
def _bands(n_mels: int) -> np.ndarray:
    """(F, n_mels) triangles on Slaney's scale, each of the same area."""
    from transformers.audio_utils import mel_filter_bank  # with torch: only pages that draw need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands that lie between two bins: with many of them, some stay empty
        return mel_filter_bank(1 + FFT // 2, n_mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")


def _window() -> np.ndarray:
    """A periodic Hann window in the middle of a frame, (FFT,)."""
    return np.pad(np.hanning(WINDOW + 1)[:-1], (FFT - WINDOW) // 2)


def envelope(waveform: np.ndarray, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample of P equal stretches, each (P,) float32; P = points, or S where that is less.

    A plot of the two shows every peak, which thinning out the samples would lose. Raises ValueError for points < 1.
    """
    waveform = _one_channel(waveform)
    if points < 1:
        raise ValueError(f"points is {points}: give at least 1")
    count = min(points, len(waveform))
    if count == 0:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    starts = np.arange(count) * len(waveform) // count
    return np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)


def _one_channel(waveform: np.ndarray) -> np.ndarray:
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {waveform.shape}: give one channel, (S,)")
    return waveform
