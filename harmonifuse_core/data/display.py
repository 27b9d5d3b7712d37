"""A waveform as pictures: mel spectrogram and envelope. Nothing here is ever an input of a model."""

import numpy as np

from harmonifuse_core.data.limits import SAMPLE_RATE

HOP = 160  # 10 ms
WINDOW = 400  # 25 ms
FFT = 1024  # longer than the window: the lowest mel bands would otherwise fall between two bins and stay empty
DYNAMIC_RANGE = 80.0


def mel_spectrogram(waveform: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """Mel power in dB below the loudest cell, (n_mels, T) float32 in -80..0, T = 1 + S // 160.

    waveform: (S,) at 16 kHz; digital silence gives -80 throughout. Raises ValueError for another shape or n_mels < 1.
    """
    import librosa  # takes seconds to import, and only pages that draw need it

    waveform = _one_channel(waveform)
    if n_mels < 1:
        raise ValueError(f"n_mels is {n_mels}: give at least 1")
    # padded here, since librosa warns about clips shorter than its window
    padded = np.pad(waveform, FFT // 2)
    window = {"n_fft": FFT, "hop_length": HOP, "win_length": WINDOW, "center": False}
    power = librosa.feature.melspectrogram(y=padded, sr=SAMPLE_RATE, n_mels=n_mels, **window)
    loudest = float(power.max(initial=0.0))
    if loudest == 0:
        return np.full(power.shape, -DYNAMIC_RANGE, np.float32)
    floor = loudest * 10 ** (-DYNAMIC_RANGE / 10)
    return (10 * np.log10(np.maximum(power, floor) / loudest)).astype(np.float32)


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
