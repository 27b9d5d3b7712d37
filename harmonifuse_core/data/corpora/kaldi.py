"""A Kaldi data folder (kaldi-asr.org/doc/data_prep.html), or a folder of them (data/train, data/test: the splits).

    wav.scp     recording  path             (without segments the recording is the utterance)
    text        utterance  WORDS OF IT      (optional; where it is there, an utterance without words is left out)
    utt2spk     utterance  speaker
    spk2gender  speaker    m
    segments    utterance  recording  1.20  4.75        (optional; seconds, -1: to the end)
    utt2lang, utt2emotion, utt2NAME  ...    (optional; each becomes a field NAME)

Paths are relative to the raw folder, or to `--audio-root`; paths outside both are refused. Commands (`sox ... |`) are
never run: make the files first. Archives (`raw.ark:1234`) are refused. A segment that is its whole recording is taken
as it is; any other is left out and named, unless `--cut` asks for files of their own (16 kHz mono FLAC beside the
manifest).
"""

import re
from pathlib import Path

from harmonifuse_core.data.corpora.columns import OPTIONS, dataset_name, make_entry
from harmonifuse_core.data.corpora.entries import Corpus, Entries, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import number, pairs, shown, visible

TABLES = ("utt2spk", "utt2dur", "utt2num_frames", "utt2uniq", "utt2wav")
NAMES = {"lang": "language", "emo": "emotion"}
ARCHIVE = re.compile(r".*\.ark(:\d+)?")


def entries(raw: Path, options) -> Entries:
    for folder in [raw, *visible(raw.glob("*"))]:
        if (folder / "wav.scp").is_file():
            yield from _folder(folder, raw, options)


def _folder(folder: Path, raw: Path, options) -> Entries:
    broken: list[LeftOut] = []
    recordings = {key: (value, where) for key, value, where in reversed(pairs(folder / "wav.scp", raw, broken))}
    listed = pairs(folder / "wav.scp", raw, [])
    texts = {key: value for key, value, _ in pairs(folder / "text", raw, broken)}
    speakers = {key: value for key, value, _ in pairs(folder / "utt2spk", raw, broken)}
    genders = {key: value for key, value, _ in pairs(folder / "spk2gender", raw, broken)}
    extra = {
        NAMES.get(path.name[4:], path.name[4:]): {key: value for key, value, _ in pairs(path, raw, broken)}
        for path in visible(folder.glob("utt2*"))
        if path.name not in TABLES
    }
    segments = pairs(folder / "segments", raw, broken)
    yield from broken
    split = "" if folder == raw else folder.name
    utterances = [_segment(*line, recordings) for line in segments] if (folder / "segments").is_file() else [
        (key, value, where, {}) for key, value, where in listed
    ]  # fmt: skip
    seen = set()
    for found in utterances:
        if isinstance(found, LeftOut):
            seen.add(found.id)
            yield found
            continue
        name, path, where, part = found
        seen.add(name)
        if path.endswith("|") or ARCHIVE.fullmatch(path):
            what = "a command, which is never run" if path.endswith("|") else "an archive"
            yield LeftOut(name, Reason.COMMAND, f"{where}: {what}: {path[:60]!r}; make audio files first")
            continue
        values = {field: table.get(name, "") for field, table in extra.items()}
        values |= {"speaker": speakers.get(name, ""), "gender": genders.get(speakers.get(name, ""), "")}
        values |= {"text": texts.get(name, "")} if (folder / "text").is_file() else {}
        base = Path(options["audio_root"] or raw)
        yield make_entry(
            values, base / path, name, where, options, split=split, dataset=dataset_name(raw, options), **part
        )  # fmt: skip
    for name in sorted(set(texts) - seen):
        lists = "segments" if segments else "wav.scp"
        yield LeftOut(name, Reason.MISSING, f"{shown(folder / 'text', raw)} has it, {lists} has not")


def _segment(name: str, rest: str, where: str, recordings) -> tuple[str, str, str, dict] | LeftOut:
    cells = rest.split()
    times = [number(cell) for cell in cells[1:3]]
    if len(cells) < 3 or None in times:
        return LeftOut(name, Reason.DAMAGED, f"{where}: not `utterance recording start end`")
    if cells[0] not in recordings:
        return LeftOut(name, Reason.MISSING, f"{where}: recording {cells[0]!r} is not in wav.scp")
    start, end = times
    return name, recordings[cells[0]][0], where, {"start": start, "seconds": None if end < 0 else end - start}


CORPUS = Corpus(
    name="kaldi",
    title="Kaldi data folder",
    licence="that of your data",
    source="https://kaldi-asr.org/doc/data_prep.html",
    entries=entries,
    layout="wav.scp, or folders that hold one",
    published=Published(note="the data are your own"),
    needs_text=True,
    options=OPTIONS,
)
