"""Waveform augmentation for training: speed, gain, noise, voices, room, band limit; a function of its generator."""

from collections.abc import Sequence

import numpy as np
import soxr

from harmonifuse_core.config import AugmentConfig
from harmonifuse_core.data.audio import SAMPLE_RATE


def augment(
    waveform: np.ndarray, config: AugmentConfig, rng: np.random.Generator, time_warp: bool = True,
    voices: Sequence[np.ndarray] = (),
) -> np.ndarray:  # fmt: skip
    """Return a changed copy of `waveform` (S,) float32; `time_warp` off keeps its length.

    voices: other speech, for babble; without any there is none.
    """
    if time_warp and config.trim_probability and rng.random() < config.trim_probability:
        waveform = trim_silence(waveform, rng)
    if time_warp and config.speed:
        factor = float(rng.choice(config.speed))
        if factor != 1.0:  # speed and pitch together, as in Ko et al. 2015
            waveform = soxr.resample(waveform, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ")
    if rng.random() < config.room_probability:
        waveform = reverberate(waveform, rng)
    if rng.random() < config.band_probability:
        waveform = limit_band(waveform, rng)
    if rng.random() < config.noise_probability:
        waveform = add_noise(waveform, rng, config.noise_snr_db)
    if config.babble_probability and rng.random() < config.babble_probability and len(voices):
        waveform = add_babble(waveform, rng, config.babble_snr_db, voices)
    if config.gain_db:
        waveform = waveform * np.float32(10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20))
    return np.clip(waveform, -1.0, 1.0).astype(np.float32)


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit power whose power falls with frequency to the `exponent` (0 white, 1 pink, 2 brown)."""
    spectrum = rng.standard_normal(samples // 2 + 1) + 1j * rng.standard_normal(samples // 2 + 1)
    spectrum /= np.maximum(np.arange(len(spectrum)), 8) ** (exponent / 2)
    noise = np.fft.irfft(spectrum, samples)
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def add_noise(waveform: np.ndarray, rng: np.random.Generator, snr_db: tuple[float, float]) -> np.ndarray:
    """Add coloured noise at a signal-to-noise ratio drawn from `snr_db`."""
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-rng.uniform(*snr_db) / 20)
    return waveform + np.float32(level) * coloured_noise(len(waveform), rng.uniform(0, 2), rng)


def add_babble(
    waveform: np.ndarray, rng: np.random.Generator, snr_db: tuple[float, float], voices: Sequence[np.ndarray]
) -> np.ndarray:
    """Add 3 to 6 of `voices` (fewer if there are fewer), equally loud, each repeated from a place of its own.

    Their sum lies at a signal-to-noise ratio drawn from `snr_db`. Silent voices add nothing.
    """
    babble = np.zeros(len(waveform), np.float32)
    for chosen in rng.permutation(len(voices))[: rng.integers(3, 7)]:
        voice = voices[chosen]
        start = int(rng.integers(len(voice)))
        voice = np.resize(np.roll(voice, -start), len(waveform))
        babble += voice / (np.sqrt(np.mean(voice**2)) + np.float32(1e-9))
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-rng.uniform(*snr_db) / 20)
    return waveform + np.float32(level) * babble / (babble.std() + np.float32(1e-9))


def reverberate(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with an exponentially decaying noise tail (reverberation time 0.1 to 0.5 s) behind a direct path."""
    seconds = rng.uniform(0.1, 0.5)
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(times)) * np.exp(-6.9 * times / seconds)
    response *= rng.uniform(0.1, 0.6) / (np.sqrt(np.sum(response**2)) + 1e-9)
    response[0] = 1.0
    size = 1 << (len(waveform) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]
    return (wet * (np.sqrt(np.mean(waveform**2)) / (np.sqrt(np.mean(wet**2)) + 1e-9))).astype(np.float32)


def limit_band(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Telephone-like band: nothing below 50-300 Hz and above 3.4-6 kHz, with soft edges."""
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    low, high = rng.uniform(50, 300), rng.uniform(3400, 6000)
    keep = 1 / (1 + np.exp(-(frequencies - low) / 30)) / (1 + np.exp((frequencies - high) / 100))
    return np.fft.irfft(np.fft.rfft(waveform) * keep, len(waveform)).astype(np.float32)


def trim_silence(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut what lies before and behind the speech (20 ms frames within 40 dB of the loudest), but 0 to 0.3 s each."""
    size = SAMPLE_RATE // 50
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    if not len(frames):
        return waveform
    power = np.mean(frames**2, 1)
    loud = np.flatnonzero(power >= power.max() * 1e-4) * size
    before, behind = (rng.uniform(0, 0.3, 2) * SAMPLE_RATE).astype(int)
    return waveform[max(0, loud[0] - before) : loud[-1] + size + behind]


def mixed(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """`share` of the waveform `one` plus the rest of `other`, as long as the longer."""
    sum_ = np.zeros(max(len(one), len(other)), np.float32)
    sum_[: len(one)] += np.float32(share) * one
    sum_[: len(other)] += np.float32(1 - share) * other
    return sum_
