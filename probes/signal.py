"""Numbers measured on the recording itself: pitch, energy, speaking rate, duration, signal-to-noise ratio."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from harmonifuse_core.data.audio import SAMPLE_RATE

VERSION = 1  # of the definitions; measurements of another version are made again
FRAME, HOP = 1024, 160  # samples: 64 ms, 10 ms
LOWEST, HIGHEST = 65.0, 500.0  # Hz
PERIODIC, NEAR = 0.5, 0.9  # normalised correlation from which a frame is voiced; share of the highest peak
DIP, SPEECH = 2.0, 25.0  # dB
FLOOR = 1e-5  # -100 dBFS


@dataclass(frozen=True)
class Measure:
    unit: str
    definition: str


MEASURES = {
    "pitch": Measure(
        "semitones re 100 Hz",
        "Median pitch of voiced frames, by normalised cross-correlation (after Talkin 1995) from 65 to 500 Hz: the "
        "shortest lag whose peak has 0.9 of the highest; voiced: a peak of 0.5 or more, within 25 dB of the loudest "
        "frame; missing under 10 voiced frames.",
    ),
    "energy": Measure("dBFS", "Root mean square of the whole recording, in decibels."),
    "rate": Measure(
        "peaks / s",
        "Speaking rate: peaks of the smoothed level in voiced frames that stand 2 dB above the dips beside them (after "
        "de Jong & Wempe 2009), a second between the first and the last speech frame (within 25 dB of the loudest).",
    ),
    "duration": Measure("s", "Length of the recording."),
    "snr": Measure(
        "dB",
        "Estimate: mean power of the loudest half of the 10 ms frames over that of the quietest tenth, in decibels, "
        "from 0 to 80; a recording without pauses looks noisy.",
    ),
}


def measure(waveform: np.ndarray) -> np.ndarray:
    """(S,) at 16 kHz -> float32, one number a `MEASURES`; NaN where it is not defined."""
    frames = _frames(np.asarray(waveform, np.float32))
    decibels = 20 * np.log10(np.maximum(np.sqrt(np.square(frames).mean(1)), FLOOR))
    speech = decibels > decibels.max() - SPEECH
    pitch, voiced = _pitch(frames, speech)
    energy = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))), FLOOR))
    rate = _rate(decibels, speech, voiced)
    values = (pitch, energy, rate, len(waveform) / SAMPLE_RATE, _signal_to_noise(waveform))
    return np.array(values, np.float32)


def _frames(waveform: np.ndarray) -> np.ndarray:
    """(n, FRAME), centred every `HOP` samples."""
    padded = np.pad(waveform, FRAME // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]


def _pitch(frames: np.ndarray, speech: np.ndarray) -> tuple[float, np.ndarray]:
    """Median in semitones re 100 Hz, and which frames are voiced."""
    lags = np.arange(int(SAMPLE_RATE / LOWEST) + 2)
    window, shortest = FRAME - len(lags), int(SAMPLE_RATE / HIGHEST)
    own = np.fft.rfft(frames[:, :window], 2 * FRAME)
    cross = np.fft.irfft(np.conj(own) * np.fft.rfft(frames, 2 * FRAME))[:, : len(lags)]
    squares = np.pad(np.cumsum(np.square(frames, dtype=np.float64), 1), ((0, 0), (1, 0)))
    energy = squares[:, lags + window] - squares[:, lags]
    match = cross / np.sqrt(np.maximum(energy[:, :1] * energy, 1e-20))  # (n, lags)
    inner = match[:, shortest:-1]
    peaks = (inner >= match[:, shortest - 1 : -2]) & (inner >= match[:, shortest + 1 :])
    heights = np.where(peaks, inner, -1)
    highest = heights.max(1)
    voiced = speech & (highest >= PERIODIC)
    first = (heights >= NEAR * highest[:, None]).argmax(1) + shortest  # the shortest period that fits about as well
    found = SAMPLE_RATE / first[voiced]
    return (float(np.median(12 * np.log2(found / 100))) if len(found) >= 10 else np.nan), voiced


def _rate(decibels: np.ndarray, speech: np.ndarray, voiced: np.ndarray) -> float:
    places = np.flatnonzero(speech)
    seconds = (places[-1] - places[0] + 1) * HOP / SAMPLE_RATE
    smooth = np.convolve(decibels, np.hanning(9) / np.hanning(9).sum(), mode="same")
    peaks, _ = find_peaks(smooth, prominence=DIP)
    return float(np.count_nonzero(voiced[peaks] & speech[peaks]) / seconds) if seconds >= 0.2 else np.nan


def _signal_to_noise(waveform: np.ndarray) -> float:
    frames = waveform[: len(waveform) // HOP * HOP].astype(np.float64).reshape(-1, HOP)
    if len(frames) < 20:
        return np.nan
    power = np.sort(np.square(frames).mean(1))
    loud, quiet = power[len(power) // 2 :].mean(), power[: max(1, len(power) // 10)].mean()
    return float(np.clip(10 * np.log10(max(loud, FLOOR**2) / max(quiet, FLOOR**2)), 0, 80))
