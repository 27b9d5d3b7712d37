"""Numbers measured on the recording itself: pitch, energy, speaking rate, duration, signal-to-noise ratio."""

from dataclasses import dataclass

import librosa
import numpy as np
from scipy.signal import find_peaks

from harmonifuse_core.data.audio import SAMPLE_RATE

VERSION = 1  # of the definitions; measurements of another version are made again
FRAME, HOP = 1024, 160  # samples: 64 ms, 10 ms
LOWEST, HIGHEST = 65.0, 500.0  # Hz
PERIODIC = 0.5  # normalised autocorrelation at the period, from which a frame counts as voiced
DIP, SPEECH = 2.0, 25.0  # dB
FLOOR = 1e-5  # -100 dBFS


@dataclass(frozen=True)
class Measure:
    unit: str
    definition: str


MEASURES = {
    "pitch": Measure(
        "semitones re 100 Hz",
        "Median pitch of voiced frames (YIN 65 to 500 Hz; voiced: within 25 dB of the loudest frame, and a normalised "
        "autocorrelation at the period of 0.5 or more); missing under 10 voiced frames.",
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
    level = librosa.feature.rms(y=waveform, frame_length=FRAME, hop_length=HOP)[0]
    decibels = 20 * np.log10(np.maximum(level, FLOOR))
    speech = decibels > decibels.max() - SPEECH
    pitch, voiced = _pitch(waveform, speech)
    energy = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))), FLOOR))
    rate = _rate(decibels, speech, voiced)
    values = (pitch, energy, rate, len(waveform) / SAMPLE_RATE, _signal_to_noise(waveform))
    return np.array(values, np.float32)


def _pitch(waveform: np.ndarray, speech: np.ndarray) -> tuple[float, np.ndarray]:
    """Median in semitones re 100 Hz, and which frames are voiced."""
    if len(waveform) < FRAME:
        return np.nan, np.zeros(len(speech), bool)
    track = librosa.yin(waveform, fmin=LOWEST, fmax=HIGHEST, sr=SAMPLE_RATE, frame_length=FRAME, hop_length=HOP)
    padded = np.pad(waveform, FRAME // 2)
    voiced = np.zeros(len(speech), bool)
    for frame in np.flatnonzero(speech[: len(track)]):
        part, lag = padded[frame * HOP : frame * HOP + FRAME], round(SAMPLE_RATE / track[frame])
        a, b = part[:-lag], part[lag:]
        size = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
        voiced[frame] = size > 0 and float(np.dot(a, b)) / size >= PERIODIC
    found = track[: len(voiced)][voiced[: len(track)]]
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
