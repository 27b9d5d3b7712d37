"""Length and rate of an audio file from its header, without decoding it."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import av
import soundfile as sf

from harmonifuse_core.data.audio import SAMPLE_RATE, AudioError, AudioLimits, decode_waveform
from harmonifuse_core.data.containers import Container, describe_stranger, identify
from harmonifuse_core.data.corpora.entries import Reason
from harmonifuse_core.data.readers import UNKNOWN_FRAMES, _share_present

HEAD = 65_536  # bytes; enough to tell the format behind most ID3 tags
LIMITS = AudioLimits()
LFS_POINTER = b"version https://git-lfs"


class UnusableAudio(Exception):
    """An audio file that cannot come into a manifest. reason, detail: as in LeftOut."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Header:
    """seconds, rate in Hz; share: part of the promised samples that is there (1.0 unless the file was cut off)."""

    seconds: float
    rate: int
    share: float = 1.0


def probe(path: Path) -> Header:
    """Header of an audio file. Raises UnusableAudio with the reason."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableAudio(Reason.UNREADABLE, "not a regular file")
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableAudio(Reason.MISSING, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnusableAudio(
            Reason.UNREADABLE, f"cannot be opened ({getattr(error, 'strerror', None) or error})"
        ) from None
    if not head:
        raise UnusableAudio(Reason.ZERO_LENGTH, "a file of 0 bytes")
    if head.startswith(LFS_POINTER):
        raise UnusableAudio(
            Reason.UNREADABLE, "a git-lfs pointer instead of the audio: run `git lfs pull` in the raw folder"
        )
    container = identify(head)
    if container is None:
        raise UnusableAudio(Reason.UNREADABLE, describe_stranger(head))
    header = _soundfile(path) if container.soundfile else None
    header = header or _ffmpeg(path, container)
    if header.seconds <= 0:
        raise UnusableAudio(Reason.ZERO_LENGTH, "a header without samples")
    if not LIMITS.min_rate <= header.rate <= LIMITS.max_rate:
        raise UnusableAudio(Reason.RATE, f"{header.rate} Hz, outside {LIMITS.min_rate} to {LIMITS.max_rate} Hz")
    return header


def _soundfile(path: Path) -> Header | None:
    """None where libsndfile cannot read the file: FFmpeg may."""
    try:
        info = sf.info(str(path))
    except (sf.SoundFileError, UnicodeEncodeError):
        return None
    if info.frames >= UNKNOWN_FRAMES:
        return Header(_decoded_seconds(path), info.samplerate)
    return Header(info.frames / max(info.samplerate, 1), info.samplerate, _share_present(info.extra_info))


def _ffmpeg(path: Path, container: Container) -> Header:
    try:
        with av.open(str(path), format=container.demuxer, metadata_errors="ignore") as opened:
            if not opened.streams.audio:
                raise UnusableAudio(Reason.UNREADABLE, f"{container.title} without an audio track")
            stream = opened.streams.audio[0]
            rate = stream.rate or 0
            if stream.duration and stream.time_base:
                return Header(float(stream.duration * stream.time_base), rate)
            if opened.duration:
                return Header(opened.duration / av.time_base, rate)
    except (av.FFmpegError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise UnusableAudio(Reason.UNREADABLE, f"{container.title}: {detail}") from None
    return Header(_decoded_seconds(path), rate or SAMPLE_RATE)


def _decoded_seconds(path: Path) -> float:
    """Only for streams whose header states no length (rare: audio written to a pipe)."""
    try:
        return len(decode_waveform(path)) / SAMPLE_RATE
    except AudioError as error:
        raise UnusableAudio(Reason.UNREADABLE, str(error)) from None
