"""Recordings of a command line or manifest, read ahead by threads and answered window by window.

What `infer`, `evaluate` and `calibrate` share. Memory is flat in the number of files: at most three windows of decoded
audio are held, two that the model works on and the one that is being read.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from harmonifuse_core.data.audio import AudioError, Clip, load_audio
from harmonifuse_core.data.containers import CONTAINERS
from harmonifuse_core.data.manifest import Utterance, read_manifest
from harmonifuse_core.inference.parallel import Workers
from harmonifuse_core.inference.predict import Answers, PredictOptions, predict_stream
from harmonifuse_core.model.harmonifuse import HarmoniFuse

AUDIO_SUFFIXES = frozenset(suffix for container in CONTAINERS for suffix in container.suffixes)
# The first window is small, so that the model starts while others are read; later ones are big, since they batch well.
FIRST_CLIPS, GROWTH, MOST_CLIPS = 64, 8, 512
MOST_SECONDS = 1200.0  # 77 MB
THREADS = 2
WINDOWS = 2  # that are answered at once


class SourceError(ValueError):
    """The inputs of a command cannot be used; the message names the value and the remedy."""


@dataclass(frozen=True)
class Source:
    """One recording. path: as the manifest or the user wrote it, as harmless text; `utterance.audio` is opened."""

    utterance: Utterance
    path: str


@dataclass(frozen=True)
class Answered:
    """What came of one recording: `answers`, or `error` with its reason. seconds: decoded length.

    cost: wall seconds spent on it, its share by length of its window's.
    """

    source: Source
    seconds: float = 0.0
    answers: Answers | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    cost: float = 0.0


# --- what to read ---


def harmless(text: str) -> str:
    """Bytes of a file name that are no UTF-8 become question marks: JSON and Parquet could not hold them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def manifest_sources(manifest: str | Path, rows: Sequence[Utterance]) -> list[Source]:
    folder = Path(manifest).parent.resolve()
    return [Source(u, harmless(Path(os.path.relpath(u.audio, folder)).as_posix())) for u in rows]


def collect(inputs: Sequence[str]) -> list[Source]:
    """Files, folders (searched recursively for audio, sorted) and manifests (.jsonl), in the order given; ids differ.

    A file that does not exist is a source whose reading will fail. Raises SourceError or ManifestError.
    """
    found: list[Source] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = sorted(
                f for root, _, names in os.walk(path) for f in (Path(root) / n for n in names) if _is_audio(f)
            )
            if not files:
                raise SourceError(
                    f"folder {given!r} holds no audio file ({', '.join(sorted(AUDIO_SUFFIXES)[:8])}, ...)"
                )
            found += [_file_source(file, file.relative_to(path).with_suffix("").as_posix()) for file in files]
        elif path.suffix.lower() == ".jsonl":
            found += manifest_sources(path, read_manifest(path))
        else:
            found.append(_file_source(path, path.stem))
    return _distinct(found)


def _is_audio(file: Path) -> bool:
    return file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".")


def _file_source(file: Path, name: str) -> Source:
    return Source(Utterance(id=harmless(name) or "(unnamed)", audio=file), harmless(str(file)))


def _distinct(sources: list[Source]) -> list[Source]:
    """Ids that stand for two recordings become paths, and the same path twice gets a number."""
    times, seen, distinct = Counter(s.utterance.id for s in sources), Counter(), []
    for source in sources:
        name = source.utterance.id if times[source.utterance.id] == 1 else source.path
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        utterance = source.utterance
        if name != utterance.id:
            utterance = Utterance(**{**vars(utterance), "id": name})
        distinct.append(Source(utterance, source.path))
    return distinct


def shard(sources: Sequence[Source], count: int, index: int) -> list[Source]:
    """Every `count`-th source from `index` on. Raises SourceError."""
    if count < 1 or not 0 <= index < count:
        raise SourceError(
            f"--num-shards {count} --shard-index {index}: the index goes from 0 to the number of shards minus 1"
        )
    return list(sources[index::count])


# --- reading and answering ---


@dataclass(frozen=True)
class _Window:
    """Decoded sources in order: a Clip, or the words of an error."""

    sources: list[Source]
    clips: list[Clip | str]


def _decode(source: Source) -> Clip | str:
    try:
        return load_audio(source.utterance.audio, name=source.path)
    except AudioError as error:
        return str(error)


def _read_window(decoders, remaining: Iterator[Source], most: int, stop: threading.Event) -> _Window:
    """Up to `most` clips or `MOST_SECONDS`; few are decoded at a time, since each may be as long as allowed."""
    window, flying, total = _Window([], []), deque(), 0.0
    while True:
        while (
            len(flying) < 2 * THREADS
            and len(window.clips) + len(flying) < most
            and total < MOST_SECONDS
            and not stop.is_set()
            and (source := next(remaining, None)) is not None
        ):
            flying.append((source, decoders.submit(_decode, source)))
        if not flying:
            return window
        source, future = flying.popleft()
        clip = future.result()
        window.sources.append(source)
        window.clips.append(clip)
        total += clip.seconds if isinstance(clip, Clip) else 0.0


def read_windows(sources: Sequence[Source]) -> Iterator[_Window]:
    """Decode in threads, one window ahead of whoever consumes."""
    remaining, stop, most = iter(sources), threading.Event(), FIRST_CLIPS
    with ThreadPoolExecutor(THREADS, "decode") as decoders, ThreadPoolExecutor(1, "read") as reader:
        try:
            pending = reader.submit(_read_window, decoders, remaining, most, stop)
            while (window := pending.result()).sources:
                most = min(GROWTH * most, MOST_CLIPS)
                pending = reader.submit(_read_window, decoders, remaining, most, stop)
                yield window
        finally:
            stop.set()


def answer_sources(
    model: HarmoniFuse, sources: Sequence[Source], options: PredictOptions = PredictOptions()
) -> Iterator[Answered]:  # fmt: skip
    """Answer every recording, in the order of `sources`; one that cannot be read is Answered with its error.

    The next window's first batches begin while the last ones of this are worked on, so that no core waits.
    """
    flying, started = deque(), time.perf_counter()
    with ThreadPoolExecutor(WINDOWS, "window") as answering, Workers(model.device) as workers:
        most = WINDOWS if workers.count > 1 else 1
        windows = chain(read_windows(sources), repeat(None))
        while (window := next(windows)) or flying:
            if window:
                flying.append((window, answering.submit(_answer_window, model, window, options, workers)))
            if window and len(flying) < most:
                continue
            window, future = flying.popleft()
            answers = future.result()
            spent, started = time.perf_counter() - started, time.perf_counter()
            total = sum(clip.seconds for clip in window.clips if isinstance(clip, Clip))
            for source, clip, answer in zip(window.sources, window.clips, answers, strict=True):
                if isinstance(answer, str):
                    yield Answered(source, error=answer)
                else:
                    yield Answered(source, clip.seconds, answer, None, clip.warnings, spent * clip.seconds / total)


def _answer_window(
    model: HarmoniFuse, window: _Window, options: PredictOptions, workers: Workers
) -> list[Answers | str]:
    """Answers in order; what could not be read keeps its reason, and a clip that the model refuses (too short for its
    front end, say) gets one."""
    results = [clip if isinstance(clip, str) else None for clip in window.clips]
    good = [i for i, clip in enumerate(window.clips) if isinstance(clip, Clip)]
    waveforms = [window.clips[i].waveform for i in good]
    try:
        for place, answer in predict_stream(model, waveforms, options, workers):
            results[good[place]] = answer
    except ValueError:
        for index in (i for i, result in enumerate(results) if result is None):
            clip = window.clips[index]
            try:
                results[index] = dict(predict_stream(model, [clip.waveform], options, workers))[0]
            except ValueError as error:
                results[index] = f"{clip.name}: the model cannot take it ({error})"
    return results
