"""Which file format some bytes are, told by their content: an extension is a claim, the first bytes are the fact."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Container:
    """One file format.

    demuxer: FFmpeg's name of it; it is always given, so that no playlist format (which could open other files) is
    ever probed. soundfile: libsndfile reads it. indexed: its header states a length that can be trusted.
    """

    title: str
    demuxer: str
    suffixes: tuple[str, ...]
    soundfile: bool = False
    indexed: bool = False


WAV = Container("WAV", "wav", (".wav", ".wave", ".rf64", ".bwf"), soundfile=True)
W64 = Container("Wave64", "w64", (".w64",), soundfile=True)
AIFF = Container("AIFF", "aiff", (".aif", ".aiff", ".aifc"), soundfile=True)
CAF = Container("CAF", "caf", (".caf",), soundfile=True)
AU = Container("AU", "au", (".au", ".snd"), soundfile=True)
SPHERE = Container("NIST SPHERE", "nistsphere", (".sph", ".nist", ".wav"), soundfile=True)
FLAC = Container("FLAC", "flac", (".flac",), soundfile=True)
OGG = Container("Ogg", "ogg", (".ogg", ".oga", ".opus", ".spx"), soundfile=True)
# libsndfile reads MP3 too, but its decoder (mpg123) writes to the process's stderr on every damaged frame, which
# nothing in Python can stop; FFmpeg gives the same samples to 1e-6 and is silent
MP3 = Container("MP3", "mp3", (".mp3", ".mp2", ".mpga"))
AAC = Container("AAC", "aac", (".aac",))
MP4 = Container("MP4/M4A", "mov", (".m4a", ".mp4", ".m4b", ".mov", ".3gp", ".m4v"), indexed=True)
MATROSKA = Container("WebM/Matroska", "matroska", (".webm", ".mkv", ".mka", ".weba"), indexed=True)
CONTAINERS = (WAV, W64, AIFF, CAF, AU, SPHERE, FLAC, OGG, MP3, AAC, MP4, MATROSKA)

_STARTS = (
    (b"RF64", WAV),
    (b"riff\x2e\x91\xcf\x11", W64),
    (b"caff", CAF),
    (b".snd", AU),
    (b"NIST_1A", SPHERE),
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b"\x1aE\xdf\xa3", MATROSKA),
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_STRANGERS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"MThd", "a MIDI score, which holds no sound"),
    (b"#!AMR", "an AMR recording"),
    (b"\x30\x26\xb2\x75", "a Windows Media file"),
    (b"RIFF", "a RIFF file other than WAV"),
)


def id3_length(data: bytes) -> int:
    """Bytes of the ID3v2 tag at the start, 0 where there is none. Its size is 4 x 7 bits."""
    if len(data) < 10 or data[:3] != b"ID3":
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size


def identify(data: bytes) -> Container | None:
    """The format of a whole file's bytes, None where it is none that is read here."""
    for start, container in _STARTS:
        if data.startswith(start):
            return container
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return WAV
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if data[4:8] in _MP4_BOXES:
        return MP4
    tag = id3_length(data)
    frame = data[tag : tag + 4]
    if tag and frame == b"fLaC":
        return FLAC
    if len(frame) == 4 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0:
        if frame[1] & 0x06 == 0:  # layer 0 does not exist in MPEG audio: it marks AAC in ADTS frames
            return AAC if frame[1] & 0xF6 == 0xF0 else None
        reserved = frame[1] & 0x18 == 0x08 or frame[2] >> 4 == 15 or frame[2] & 0x0C == 0x0C
        return None if reserved else MP3
    return MP3 if tag else None


def describe_stranger(data: bytes) -> str:
    """What bytes that are no known audio look like, in words for a message."""
    for start, words in _STRANGERS:
        if data.startswith(start):
            return words
    head = data[:512]
    if head.isascii() and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "text"
    return f"bytes of no known audio format (they start with {data[:4].hex(' ')})"


def ogg_is_whole(data: bytes) -> bool:
    """Whether the last Ogg page is complete and carries the end-of-stream flag (RFC 3533, section 6)."""
    last = data.rfind(b"OggS")
    if last < 0 or len(data) < last + 27:
        return False
    table = data[last + 27 : last + 27 + data[last + 26]]
    end = last + 27 + data[last + 26] + sum(table)
    return bool(data[last + 5] & 4) and len(data) >= end


def ogg_streams(data: bytes) -> int:
    """How many logical streams begin in an Ogg file; libsndfile would read only the first of a chain."""
    return data.count(b"OggS\x00\x02")
