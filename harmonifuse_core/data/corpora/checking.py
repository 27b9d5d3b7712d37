"""From an Entry to a line of the manifest, or to a reason against it."""

import os
import re
from pathlib import Path

import soundfile as sf

from harmonifuse_core.data.audio import SAMPLE_RATE, AudioError, decode_waveform
from harmonifuse_core.data.containers import identify
from harmonifuse_core.data.corpora.entries import Corpus, CorpusError, Entry, LeftOut, Reason
from harmonifuse_core.data.corpora.probing import Header, UnusableAudio, probe
from harmonifuse_core.data.corpora.reading import inside, shown
from harmonifuse_core.data.corpora.reporting import CUT_OFF, NO_TEXT, SHORTER, Report

SAME = 0.1  # seconds; lists round their times, and a part this close to the whole file is the whole file
WHOLE_SHARE = 0.999
RESERVED = {"id", "audio_filepath", "duration", "text", "speaker", "sample_rate", "dataset", "split"}


class Checker:
    """Turns entries into lines; what it refuses goes into the report. `ids` holds the accepted ones."""

    def __init__(
        self, corpus: Corpus, raw: Path, out: Path, need_text: bool, cut: bool, audio_root: str, report: Report
    ):
        self.corpus, self.report, self.need_text, self.cut = corpus, report, need_text, cut
        self.raw = raw if raw.is_dir() else raw.parent
        self.roots = [self.raw, *([Path(audio_root)] if audio_root else [])]
        self.out_folder = Path(os.path.realpath(out.parent))
        self.audio_folder = out.with_suffix(".audio")
        self.may_fill = not (self.audio_folder.exists() and any(self.audio_folder.iterdir())) or bool(
            report.request.get("force")
        )
        self.ids: set[str] = set()
        self.decoded: tuple[Path | None, object] = (None, None)

    def row(self, entry: Entry) -> dict | None:
        """The line of the manifest (without its final split), None where the entry is left out."""
        try:
            return self._row(entry)
        except UnusableAudio as problem:
            name = shown(entry.audio, self.raw) if isinstance(entry.audio, Path) else ""
            detail = problem.detail + (f": {name}" if name and name != entry.where else "")
            self._refuse(entry, problem.reason, detail)
            return None

    def _row(self, entry: Entry) -> dict | None:
        if entry.id in self.ids:
            return self._refuse(entry, Reason.DUPLICATE, "an utterance of this id is in the manifest already")
        text = None if entry.text is None else " ".join(entry.text.split())
        if not text and (self.need_text or (self.corpus.needs_text and text is not None)):
            return self._refuse(entry, Reason.NO_TEXT, "" if text is None else "the transcript has no words")
        audio, header = self._audio(entry)
        try:
            path = Path(os.path.relpath(os.path.realpath(audio), self.out_folder)).as_posix()
            path.encode()
            entry.id.encode()
        except UnicodeEncodeError:
            return self._refuse(entry, Reason.DAMAGED, "its name is not UTF-8: rename the file")
        if text == "":
            self.report.remarks[NO_TEXT].append(entry.id)
        if header.share < WHOLE_SHARE:
            self.report.remarks[CUT_OFF].append(entry.id)
        if entry.claimed is not None and header.seconds < entry.claimed - SAME:
            self.report.remarks[SHORTER].append(entry.id)
        self.ids.add(entry.id)
        labels = {
            name: value for name, value in entry.labels.items() if value not in (None, "") and name not in RESERVED
        }
        row = {"id": entry.id, "audio_filepath": path, "duration": max(round(header.seconds, 3), 0.001)}
        row |= {"text": text} if text else {}
        row |= labels
        row |= {"speaker": entry.speaker} if entry.speaker else {}
        return row | {
            "sample_rate": header.rate, "dataset": entry.dataset or self.corpus.name, "split": entry.split
        }  # fmt: skip

    def _refuse(self, entry: Entry, reason: Reason, detail: str) -> None:
        parts = [part for part in (entry.where, detail) if part]
        self.report.leave_out(LeftOut(entry.id, reason, ": ".join(parts)))

    def _audio(self, entry: Entry) -> tuple[Path, Header]:
        if isinstance(entry.audio, bytes):
            return self._written(entry, entry.audio)
        if not any(inside(entry.audio, root) for root in self.roots):
            raise UnusableAudio(Reason.OUTSIDE, "give --audio-root where the audio really is there")
        header = probe(entry.audio)
        start, seconds = entry.start, entry.seconds
        if entry.frames is not None:
            start, seconds = entry.frames[0] / header.rate, (entry.frames[1] - entry.frames[0]) / header.rate
        left = header.seconds - start
        if start < 0 or left <= 0 or (seconds is not None and seconds <= 0):
            raise UnusableAudio(
                Reason.DAMAGED, f"part from {start:g} s, {seconds} s long, of a recording of {header.seconds:.3f} s"
            )
        if seconds is not None and seconds > left + SAME:
            self.report.remarks[SHORTER].append(entry.id)
        length = left if seconds is None else min(seconds, left)
        if start <= SAME / 10 and header.seconds - length <= SAME:
            return entry.audio, header
        if not self.cut:
            raise UnusableAudio(
                Reason.PART,
                f"{start:g} to {start + length:g} s of {header.seconds:.3f} s; --cut writes such parts as files",
            )
        return self._part(entry, start, length)

    def _part(self, entry: Entry, start: float, length: float) -> tuple[Path, Header]:
        """Cut a part out of its recording (the last one stays decoded: parts of one recording come together)."""
        if self.decoded[0] != entry.audio:
            try:
                self.decoded = (entry.audio, decode_waveform(entry.audio))
            except AudioError as error:
                raise UnusableAudio(Reason.UNREADABLE, str(error)) from None
        begin, end = round(start * SAMPLE_RATE), round((start + length) * SAMPLE_RATE)
        piece = self.decoded[1][begin:end]
        if not len(piece):
            raise UnusableAudio(Reason.ZERO_LENGTH, f"no samples between {start:g} and {start + length:g} s")
        return self._written(entry, piece)

    def _written(self, entry: Entry, audio) -> tuple[Path, Header]:
        """Bytes of a file, or samples at 16 kHz, to a file beside the manifest."""
        if not self.may_fill:
            raise CorpusError(
                f"{self.audio_folder} exists already and is not empty: remove it, or --force to write into it"
            )
        encoded = isinstance(audio, bytes)
        suffix = ".flac"
        if encoded:
            container = identify(audio)
            suffix = container.suffixes[0] if container else ".bin"
        self.audio_folder.mkdir(exist_ok=True)
        # the number keeps names apart that differ only in what a file name cannot hold
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", entry.id)[:80].strip(".") or "utterance"
        path = self.audio_folder / f"{len(self.ids):07d}-{plain}{suffix}"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            if encoded:
                temporary.write_bytes(audio)
            else:
                sf.write(temporary, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            header = probe(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path, header
