"""NVIDIA NeMo manifests (docs.nvidia.com/nemo: ASR datasets): one JSON object a line.

    {"audio_filepath": "wavs/a.wav", "duration": 3.45, "text": "this is a nemo tutorial", "speaker": "7"}
    {"audio_filepath": "wavs/b.wav", "offset": 3.45, "duration": 1.45, "text": "a part of a longer file"}

The raw folder is one manifest, or a folder of them (*.json, *.jsonl): the file name, without `_manifest`, is the
split. Paths are relative to the manifest's folder, or to `--audio-root`. The id is the path without its suffix, where
no field `id` stands. Parts of recordings are left out and named, unless `--cut` asks for files of their own.
"""

import re
from pathlib import Path

from harmonifuse_core.data.corpora.columns import OPTIONS, dataset_name, make_entry
from harmonifuse_core.data.corpora.entries import Corpus, Entries, Entry, LeftOut, Published, Reason
from harmonifuse_core.data.corpora.reading import Row, number, objects, shown, visible

USED = ("audio_filepath", "audio_file", "duration", "offset")


def entries(raw: Path, options) -> Entries:
    folder = raw if raw.is_dir() else raw.parent
    ours = {options["out"].resolve(), options["out"].with_suffix(".report.json").resolve()}  # they may lie there too
    listings = visible(path for path in raw.glob("*.json*") if path.resolve() not in ours) if raw.is_dir() else [raw]
    for listing in listings:
        for row in objects(listing, folder):
            yield row if isinstance(row, LeftOut) else _entry(row, listing, folder, raw, options)


def _entry(row: Row, listing: Path, folder: Path, raw: Path, options) -> Entry | LeftOut:
    path = row["audio_filepath"] or row["audio_file"]
    if not isinstance(path, str) or not path:
        return LeftOut(row.where, Reason.DAMAGED, f"audio_filepath is {path!r}")
    base = Path(options["audio_root"] or folder)
    audio, offset, seconds = base / path, number(row["offset"] or 0), number(row["duration"]) or None
    if offset is None:
        return LeftOut(path, Reason.DAMAGED, f"{row.where}: offset is {row['offset']!r}")
    name = re.sub(r"\.\w+$", "", shown(audio, base) if audio.is_relative_to(base) else path)
    split = re.sub(r"_?manifest_?", "", listing.stem)
    return make_entry(
        row.values, audio, name + (f"@{offset:g}" if offset else ""), row.where, options, split=split, skip=USED,
        dataset=dataset_name(raw, options), start=offset, seconds=seconds,
    )  # fmt: skip


CORPUS = Corpus(
    name="nemo_jsonl",
    title="NVIDIA NeMo manifest",
    licence="that of your data",
    source="https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html",
    entries=entries,
    layout="*.json or *.jsonl with audio_filepath in each line",
    published=Published(note="the data are your own"),
    needs_text=True,
    options=OPTIONS,
)
