"""From a file's bytes to blocks of samples, through libsndfile or FFmpeg, never holding more than a block of each.

A reader yields (rate in Hz, block (n, channels) float32) and appends to `notes` what a listener should know.
"""

import io
import re
from collections.abc import Callable, Iterator

import av
import numpy as np
import soundfile as sf

from harmonifuse_core.data.containers import MP3, OGG, WAV, Container, id3_length, ogg_is_whole, ogg_streams
from harmonifuse_core.data.limits import AudioError, AudioLimits

BLOCK_FRAMES = 16_384
UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 for a FLAC stream of unstated length
STREAMED_BYTES = 0x7FFF_F000  # sizes from here on are what programs write that cannot go back to the header
MP3_IN_WAV = b"\x55\x00"  # format code in the fmt chunk; noisy in libsndfile like any MP3
CUT_TOLERANCE = 0.1  # seconds; encoder padding makes containers a few hundredths off

av.logging.set_level(None)

Blocks = Iterator[tuple[int, np.ndarray]]
Reader = Callable[[bytes, Container, AudioLimits, list[str]], Blocks]


class Unreadable(Exception):
    """This reader cannot make sense of the bytes; another may."""


class _Buffer(io.BytesIO):
    """Bytes for libsndfile. A damaged header makes it seek before the start; an exception inside its C callback would
    be printed to stderr, so the position simply stays."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _ForwardFile(sf.SoundFile):
    """A SoundFile that only goes forward. The base class seeks after every read, which corrupts MP3 (measured: errors
    of 0.3 of full scale) and fails on FLAC of unstated length."""

    def seekable(self) -> bool:
        return False


def readers_for(container: Container, data: bytes) -> tuple[Reader, ...]:
    """Readers worth trying for this file, best first."""
    chained = container is OGG and ogg_streams(data) > 1
    mp3_inside = container is WAV and data[20:22] == MP3_IN_WAV
    if container.soundfile and not chained and not mp3_inside:
        return soundfile_blocks, ffmpeg_blocks
    return (ffmpeg_blocks,)


def soundfile_blocks(data: bytes, container: Container, limits: AudioLimits, notes: list[str]) -> Blocks:
    """Read through libsndfile. Raises AudioError for broken limits, Unreadable for bytes it cannot decode."""
    try:
        with _ForwardFile(_Buffer(data)) as file:
            promised = file.frames if file.frames < UNKNOWN_FRAMES else 0
            limits.check_header(file.samplerate, file.channels, promised / max(file.samplerate, 1))
            done = 0
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                done += len(block)
                yield file.samplerate, block
            if not done:
                raise Unreadable("a header without samples")
            if done < promised - CUT_TOLERANCE * file.samplerate:
                notes.append(_cut_note(done / promised))
            elif (share := _share_present(file.extra_info)) < 1:
                notes.append(_cut_note(share))
            elif container is OGG and not ogg_is_whole(data):
                notes.append("the end of the Ogg stream is missing: the recording may be cut off")
    except sf.SoundFileError as error:
        raise Unreadable(getattr(error, "error_string", "") or "damaged data") from error


def _share_present(log: str) -> float:
    """Part of the promised bytes that is there, from lines of libsndfile's log: `data : 96000 (should be 47978)`."""
    for promised, present in re.findall(r": (\d+) \(should be (\d+)\)", log):
        if 0 < int(promised) < STREAMED_BYTES and int(present) < 0.99 * int(promised):
            return int(present) / int(promised)
    return 1.0


def _cut_note(share: float) -> str:
    return f"cut off: only {share:.0%} of the length its header promises is there"


def ffmpeg_blocks(data: bytes, container: Container, limits: AudioLimits, notes: list[str]) -> Blocks:
    """Read through FFmpeg, packet by packet; damaged packets are left out and counted. Raises as soundfile_blocks."""
    try:
        opened = av.open(io.BytesIO(data), format=container.demuxer, metadata_errors="ignore")
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    with opened:
        if not opened.streams.audio:
            raise AudioError(f"{container.title} file without an audio track: export the sound as WAV, FLAC or MP3")
        stream = opened.streams.audio[0]
        if stream.codec_context is None:
            raise Unreadable("a codec that is not known here")
        promised = _promised_seconds(opened, data, container)
        limits.check_header(stream.rate or limits.min_rate, stream.channels or 1, promised)  # 0: not stated
        good = bad = 0
        seconds = 0.0
        resampler = av.AudioResampler(format="fltp")  # planar floats at the file's own rate and channels
        for frames in _decoded(opened):
            bad += frames is None
            for frame in frames or ():
                try:
                    pieces = resampler.resample(frame)
                except (av.FFmpegError, ValueError) as error:
                    raise AudioError("its rate or channels change midway: convert it to WAV first") from error
                for piece in pieces:
                    good += 1
                    block = piece.to_ndarray().T  # (n, channels)
                    seconds += len(block) / piece.sample_rate
                    yield piece.sample_rate, block
        if not good or bad > good:
            raise Unreadable(f"{bad} damaged packets, {good} sound ones")
        if bad:
            notes.append(f"{bad} damaged packets are left out: words may be missing")
        if seconds < promised - CUT_TOLERANCE:
            notes.append(_cut_note(seconds / promised))
        elif container is OGG and not ogg_is_whole(data):
            notes.append("the end of the Ogg stream is missing: the recording may be cut off")


def _decoded(opened: av.container.InputContainer) -> Iterator[list[av.AudioFrame] | None]:
    """Frames of each packet of the first audio track; None for a packet that cannot be decoded."""
    packets = opened.demux(opened.streams.audio[0])
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            yield None
            return  # the container itself breaks off here: nothing after this can be found
        try:
            yield packet.decode()
        except av.FFmpegError:
            yield None


def _promised_seconds(opened: av.container.InputContainer, data: bytes, container: Container) -> float:
    """Length that the header states, 0 where it is only FFmpeg's guess from the bit rate."""
    if container is MP3:
        start = id3_length(data)
        head = data[start : start + 2048]
        trusted = b"Xing" in head or b"Info" in head
    else:
        trusted = container.indexed
    stream = opened.streams.audio[0]
    if trusted and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if trusted and opened.duration and not opened.streams.video:
        return opened.duration / av.time_base
    return 0.0
