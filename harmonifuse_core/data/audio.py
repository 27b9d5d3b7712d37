"""Recordings in: any common format to mono 16 kHz float32, bounded in size, with a clear word for whatever is wrong.

`load_audio` is for files from outside (an upload, a folder of a user); `decode_waveform` for training corpora, which
are trusted. Both give the same samples. The format is told by the content (`containers.py`), read in blocks
(`readers.py`), mixed and resampled on the way (`mixdown.py`); nothing is ever written to disk.
"""

import hashlib
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmonifuse_core.data.containers import CONTAINERS, Container, describe_stranger, identify
from harmonifuse_core.data.limits import SAMPLE_RATE, AudioError, AudioLimits, plain_name
from harmonifuse_core.data.mixdown import Mixdown, mix_down
from harmonifuse_core.data.segmentation import segment

__all__ = ["SAMPLE_RATE", "AudioError", "AudioLimits", "Clip", "decode_waveform", "load_audio", "segment"]

SILENCE = 1e-4  # -80 dBFS
QUIET = 1e-2  # -40 dBFS
CLIPPED_SHARE = 1e-3
DEFAULT_LIMITS = AudioLimits()
OVERSHOOT = 1.1  # lossy decoders and resampling pass full scale by a little: no news
TRUSTED = AudioLimits(max_bytes=2**32, max_seconds=86_400.0, min_seconds=0.0, max_channels=1024)


@dataclass(frozen=True)
class Clip:
    """One recording, ready for the encoder.

    waveform: (S,) float32 mono at 16 kHz, finite, within -1..1. seconds: S / 16000. sha256: hex digest of the file's
    bytes. name: the file's name as harmless text. warnings: sentences for the listener, empty where all is well.
    """

    waveform: np.ndarray
    seconds: float
    source_rate: int
    source_channels: int
    sha256: str
    name: str
    warnings: tuple[str, ...] = ()


def load_audio(source: str | Path | bytes, *, name: str | None = None, limits: AudioLimits = DEFAULT_LIMITS) -> Clip:
    """Decode a recording that may be anything: wrong, huge, broken, mislabelled.

    source: a path, or the bytes of a file (which never touch the disk). name: what messages call it; the path as given
    by default. Raises AudioError for everything that is wrong with the recording, TypeError for another kind of source.
    """
    if not isinstance(source, (str, Path, bytes, bytearray, memoryview)):
        raise TypeError(f"source is a {type(source).__name__}: give a path or the bytes of a file")
    given = isinstance(source, (str, Path))
    shown = plain_name(name or (str(source) if given else "audio"))
    label = plain_name(name or (Path(source).name if given else "audio"))
    try:
        data = _read_file(source, limits) if given else _check_bytes(bytes(source), limits)
        container = _identify(data)
        mix, warnings = _decode(data, container, limits)
        _check_signal(mix, limits)
    except AudioError as error:
        raise AudioError(f"{shown}: {error}") from error.__cause__
    waveform, peak = _within_full_scale(mix.waveform)
    warnings += _remarks(mix, peak, container, label)
    digest = hashlib.sha256(data).hexdigest()
    return Clip(waveform, len(waveform) / SAMPLE_RATE, mix.rate, mix.channels, digest, label, tuple(warnings))


def decode_waveform(path: str | Path) -> np.ndarray:
    """A trusted corpus file to (S,) float32 mono 16 kHz: the samples of `load_audio`, without its bounds on length and
    loudness (silence passes) and without the digest. Raises AudioError for what cannot be decoded."""
    try:
        data = _read_file(path, TRUSTED)
        mix, _ = _decode(data, _identify(data), TRUSTED)
    except AudioError as error:
        raise AudioError(f"{plain_name(str(path))}: {error}") from error.__cause__
    return _within_full_scale(mix.waveform)[0]


def _read_file(path: str | Path, limits: AudioLimits) -> bytes:
    """All bytes of a regular file; its size is looked at before it is opened."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError("is a directory: name one audio file")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("is not a regular file: copy the recording to a file first")
        _check_size(status.st_size, limits)
        with open(path, "rb") as file:
            return _check_bytes(file.read(limits.max_bytes + 1), limits)  # it may have grown since
    except FileNotFoundError as error:
        raise AudioError("no such file: check the path") from error
    except AudioError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot be read ({reason}): check path and rights") from error


def _check_size(size: int, limits: AudioLimits) -> None:
    if size == 0:
        raise AudioError("is empty (0 bytes): record or copy it again")
    if size > limits.max_bytes:
        given, most = (f"{count / 2**20:.4g} MB" for count in (size, limits.max_bytes))
        raise AudioError(f"{given} is too big, at most {most}: cut it, or convert it to FLAC or Opus")


def _check_bytes(data: bytes, limits: AudioLimits) -> bytes:
    _check_size(len(data), limits)
    return data


def _identify(data: bytes) -> Container:
    container = identify(data)
    if container is None:
        raise AudioError(f"is {describe_stranger(data)}: give WAV, FLAC, Ogg/Opus, MP3, M4A/AAC, MP4 or WebM")
    return container


def _decode(data: bytes, container: Container, limits: AudioLimits) -> tuple[Mixdown, list[str]]:
    """Mean of the channels, or where they cancel each other the loudest one, decoded in a second pass."""
    mix = mix_down(data, container, limits)
    warnings = list(mix.notes)
    if mix.cancels:
        used = f"only channel {mix.loudest + 1} is used"
        warnings.append(f"the {mix.channels} channels cancel each other (opposite phase): {used}")
        mix = mix_down(data, container, limits, channel=mix.loudest)
    return mix, warnings


def _check_signal(mix: Mixdown, limits: AudioLimits) -> None:
    if mix.seconds < limits.min_seconds:
        raise AudioError(f"{mix.seconds:.2g} s is too short, at least {limits.min_seconds:g} s: record a longer one")
    if mix.swing < SILENCE:
        peak = f"peak {_dbfs(mix.swing):.0f} dBFS" if mix.swing else "all samples equal"
        raise AudioError(f"no signal: the recording is silent ({peak}): check the microphone and its level")


def _within_full_scale(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Scaled down where it passes full scale (a constant factor distorts nothing), and its peak before that."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return (waveform / np.float32(peak) if peak > 1 else waveform), peak


def _remarks(mix: Mixdown, peak: float, container: Container, label: str) -> list[str]:
    remarks = []
    if mix.swing < QUIET:
        remarks.append(f"very quiet: peak {_dbfs(mix.swing):.0f} dBFS")
    if mix.clipped > CLIPPED_SHARE and peak <= OVERSHOOT:
        remarks.append(f"probably clipped: {mix.clipped:.1%} of the samples are at full scale")
    if peak > OVERSHOOT:
        remarks.append(f"louder than full scale (peak {peak:.3g}): scaled down")
    if mix.rate < SAMPLE_RATE:
        remarks.append(f"resampled from {mix.rate / 1000:g} kHz: no content above {mix.rate / 2000:g} kHz")
    suffix = Path(label).suffix.lower()
    if suffix not in container.suffixes and any(suffix in other.suffixes for other in CONTAINERS):
        remarks.append(f"named {suffix}, but its content is {container.title}")
    return remarks


def _dbfs(amplitude: float) -> float:
    return 20 * math.log10(amplitude)
