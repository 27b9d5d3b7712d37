"""Pooled features of a corpus: read in one pass over the audio, kept in a cache that a killed run goes on with.

The cache is keyed by the weights (a folder a reader) and by the audio (sha256 of each file's bytes): renamed files,
other manifests and other targets read nothing anew. Memory is flat in the size of the corpus: a window of decoded
audio (`inference/sources.py`), one batch of states, and the pooled rows of one part. Arrays: (B, L1, F) float32 by
key.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from harmonifuse_core.data.audio import SAMPLE_RATE, Clip
from harmonifuse_core.inference.evaluation import Failure
from harmonifuse_core.inference.parallel import length_batches
from harmonifuse_core.inference.sources import Source, read_windows

BATCH_SECONDS, BATCH_SIZE = 40.0, 32
PART_SECONDS = 120.0  # of speech in one file of the cache: what a kill may cost


class Reader(Protocol):
    """digest: of everything that the arrays depend on but the audio."""

    digest: str
    max_seconds: float

    def read(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]: ...


class FeatureCache:
    """One reader's arrays below `folder`, one file for some `PART_SECONDS` of speech."""

    def __init__(self, folder: Path, digest: str):
        self.folder = Path(folder) / f"{digest}.cache"
        self._places: dict[str, tuple[Path, int]] = {}
        for part in sorted(self.folder.glob("part-*.safetensors")):
            self._index(part)

    def _index(self, part: Path):
        try:
            with safe_open(part, "numpy") as file:
                names = json.loads(file.metadata()["audio"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            part.unlink(missing_ok=True)  # damaged: it is read anew
            return
        self._places |= {name: (part, row) for row, name in enumerate(names)}

    def __contains__(self, audio: str) -> bool:
        return audio in self._places

    def __len__(self) -> int:
        return len(self._places)

    def write(self, audio: Sequence[str], arrays: dict[str, np.ndarray]):
        """The file is whole or not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"part-{hashlib.sha256('/'.join(audio).encode()).hexdigest()[:16]}.safetensors"
        temporary = part.with_name(f".{part.name}.{os.getpid()}.part")
        try:
            save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, temporary,
                      {"audio": json.dumps(list(audio))})  # fmt: skip
            temporary.replace(part)
        finally:
            temporary.unlink(missing_ok=True)
        self._places |= {name: (part, row) for row, name in enumerate(audio)}

    def array_names(self) -> list[str]:
        """Of the arrays in any of the files; none where the cache is empty."""
        part = next((part for part, _ in self._places.values()), None)
        if part is None:
            return []
        with safe_open(part, "numpy") as file:
            return sorted(file.keys())

    def layers(self, key: str, audio: Sequence[str]) -> np.ndarray:
        """(L1, N, F): layers first, utterances in the order of `audio`. Raises KeyError for what is not there."""
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, name in enumerate(audio):
            part, row = self._places[name]
            wanted.setdefault(part, []).append((place, row))
        result = None
        for part, places in wanted.items():
            with safe_open(part, "numpy") as file:
                array = file.get_tensor(key)
            if result is None:
                result = np.empty((array.shape[1], len(audio), array.shape[2]), np.float32)
            to, rows = np.array(places).T
            result[:, to] = array[rows].transpose(1, 0, 2)
        return result


@dataclass(frozen=True)
class Corpus:
    """Sources that could be read, with the sha256 of their files; and what could not."""

    sources: tuple[Source, ...]
    audio: tuple[str, ...]
    failed: tuple[Failure, ...] = ()


def file_digest(path: Path) -> str | None:
    """sha256 of a file's bytes; None where it cannot be read: decoding will say why."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def extract(
    sources: Sequence[Source], readers: Sequence[Reader], caches: Sequence[FeatureCache],
    on_read: Callable[[int], None] = lambda count: None,
) -> Corpus:  # fmt: skip
    """Fill the caches with what they lack, decoding every recording once for all readers. on_read(recordings) tells
    how many have come through. Recordings that some reader refuses are left out, with the reason."""
    digests = {s.utterance.id: file_digest(s.utterance.audio) for s in sources}
    lacking = [s for s in sources if not all(digests[s.utterance.id] in cache for cache in caches)]
    on_read(len(sources) - len(lacking))
    failed: dict[str, Failure] = {}
    for window in read_windows(lacking):
        good: list[tuple[Source, Clip]] = []
        for source, clip in zip(window.sources, window.clips, strict=True):
            if isinstance(clip, Clip):
                good.append((source, clip))
            else:
                failed[source.utterance.id] = Failure(source.utterance.id, source.path, clip)
        for reader, cache in zip(readers, caches, strict=True):
            for source, reason in _read(reader, cache, good):
                failed[source.utterance.id] = Failure(source.utterance.id, source.path, reason)
        on_read(len(window.sources))
    kept = [s for s in sources if s.utterance.id not in failed]
    return Corpus(tuple(kept), tuple(digests[s.utterance.id] for s in kept), tuple(failed.values()))


def _read(reader: Reader, cache: FeatureCache, good: Sequence[tuple[Source, Clip]]) -> Iterator[tuple[Source, str]]:
    """Write parts of what the cache lacks; yields what the reader refuses."""
    waiting, seen = [], set()
    for source, clip in good:
        if clip.seconds > reader.max_seconds:
            yield source, f"{clip.seconds:.1f} s is longer than {reader.max_seconds:g} s: cut the recording"
        elif clip.sha256 not in cache and clip.sha256 not in seen:
            seen.add(clip.sha256)
            waiting.append((source, clip))
    names, arrays, seconds = [], [], 0.0
    batches = length_batches([clip.seconds for _, clip in waiting], BATCH_SECONDS, BATCH_SIZE)
    for number, batch in enumerate(batches):
        for rows, found in _attempt(reader, [waiting[i] for i in batch]):
            if isinstance(found, str):
                yield rows[0][0], found
                continue
            names += [clip.sha256 for _, clip in rows]
            arrays.append(found)
            seconds += sum(len(clip.waveform) for _, clip in rows) / SAMPLE_RATE
        if names and (seconds >= PART_SECONDS or number == len(batches) - 1):
            cache.write(names, {key: np.concatenate([a[key] for a in arrays]) for key in arrays[0]})
            names, arrays, seconds = [], [], 0.0


def _attempt(reader: Reader, rows: list) -> Iterator[tuple[list, dict[str, np.ndarray] | str]]:
    """The batch's arrays; where it is refused, each recording's own, or the reason."""
    try:
        yield rows, reader.read([clip.waveform for _, clip in rows])
    except ValueError as error:
        if len(rows) == 1:
            yield rows, f"the model cannot take it ({error})"
            return
        for row in rows:
            yield from _attempt(reader, [row])
