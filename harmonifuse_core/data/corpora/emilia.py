"""Emilia (He et al., SLT 2024, arXiv 2407.05361): speech from the web in six languages, transcripts by WhisperX.

Raw layout (Amphion, preprocessors/Emilia/README.md), the archives unpacked:

    EN/EN_B00000.jsonl   {"id": "EN_B00000_S00000_W000000",
                          "wav": "EN_B00000/EN_B00000_S00000/mp3/EN_B00000_S00000_W000000.mp3",
                          "text": " You can help my mother", "duration": 6.264, "speaker": "EN_B00000_S00000",
                          "language": "en", "dnsmos": 3.2927}
    EN/EN_B00000/EN_B00000_S00000/mp3/EN_B00000_S00000_W000000.mp3

or, from the WebDataset tars of the Hugging Face release, one `ID.json` beside each `ID.mp3`. One batch of the 114
English ones is about 400 hours: unpack as many as the experiment needs. There are no emotion labels: `prepare pseudo-
label` makes them. Splits are made by speaker; a speaker is one voice of one recording, so a person may stand in
several recordings.
"""

import os
import re
from pathlib import Path

from harmonifuse_core.data.corpora.entries import (
    BY_SPEAKER,
    Corpus,
    CorpusError,
    Entries,
    Entry,
    LeftOut,
    Option,
    Published,
    Reason,
)
from harmonifuse_core.data.corpora.reading import Row, as_object, lines, number, objects, shown

HOURS = {"en": 46_828, "zh": 49_922, "de": 1_590, "fr": 1_381, "ja": 1_715, "ko": 217}
BATCH = re.compile(r"[A-Z]{2}_B\d+\.jsonl")
FIELDS = ("id", "wav", "speaker", "language")


def entries(raw: Path, options) -> Entries:
    wanted = options["languages"] or list(HOURS)
    if unknown := [name for name in wanted if name not in HOURS]:
        raise CorpusError(f"language {unknown[0]!r} is unknown; Emilia has: {', '.join(HOURS)}")
    for folder, names, files in os.walk(raw):  # links to folders are not followed
        here = {name for name in files if not name.startswith(".")}
        listings = [Path(folder, name) for name in sorted(here) if BATCH.fullmatch(name)]
        done = {listing.stem for listing in listings}
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in done)
        for listing in listings:
            yield from _batch(listing, raw, wanted, options["min_dnsmos"])
        yield from _singles(Path(folder), here, raw, wanted, options["min_dnsmos"])


def _batch(listing: Path, raw: Path, wanted, threshold: float) -> Entries:
    named = set()
    for row in objects(listing, raw):
        if isinstance(row, LeftOut):
            yield row
            continue
        named.add(Path(str(row["wav"])).name)
        yield _entry(row, listing.parent / str(row["wav"]), wanted, threshold)
    for folder, names, files in os.walk(listing.with_suffix("")):
        names.sort()
        for name in sorted(files):
            if name.endswith(".mp3") and not name.startswith(".") and name not in named:
                path = shown(Path(folder, name), raw)
                yield LeftOut(Path(name).stem, Reason.NO_ENTRY, f"{path} stands in no line of {listing.name}")


def _singles(folder: Path, files: set[str], raw: Path, wanted, threshold: float) -> Entries:
    """`ID.json` beside `ID.mp3`; other JSON files are not Emilia's."""
    for name in sorted(name for name in files if name.endswith(".mp3")):
        listing = Path(name).with_suffix(".json").name
        if listing not in files:
            yield LeftOut(Path(name).stem, Reason.NO_ENTRY, f"{shown(folder / name, raw)} has no .json beside it")
    for name in sorted(name for name in files if name.endswith(".json") and re.match(r"[A-Z]{2}_", name)):
        text = [line for line in lines(folder / name, raw)]
        bad = next((line for line in text if isinstance(line, LeftOut)), None)
        row = bad or as_object(" ".join(line.text for line in text), shown(folder / name, raw))
        yield row if isinstance(row, LeftOut) else _entry(row, (folder / name).with_suffix(".mp3"), wanted, threshold)


def _entry(row: Row, audio: Path, wanted, threshold: float) -> Entry | LeftOut:
    for name in FIELDS:
        if not isinstance(row[name], str) or not row[name]:
            return LeftOut(str(row["id"] or row.where), Reason.DAMAGED, f"{row.where}: {name} is {row[name]!r}")
    item, language, quality = row["id"], row["language"].lower(), number(row["dnsmos"])
    if language not in HOURS:
        return LeftOut(item, Reason.UNKNOWN_LABEL, f"{row.where}: language {language!r} is none of {', '.join(HOURS)}")
    if language not in wanted:
        return LeftOut(item, Reason.CHOICE, f"language {language}")
    if threshold and (quality is None or quality < threshold):
        return LeftOut(item, Reason.CHOICE, f"dnsmos below {threshold:g}")
    return Entry(
        id=item,
        audio=audio,
        text=str(row["text"] or ""),
        speaker=f"emilia-{row['speaker']}",
        labels={"language": language, "dnsmos": quality},
        where=row.where,
        claimed=number(row["duration"]),
    )


CORPUS = Corpus(
    name="emilia",
    title="Emilia",
    licence="CC BY-NC 4.0 (the audio belongs to its owners)",
    source="https://huggingface.co/datasets/amphion/Emilia-Dataset",
    entries=entries,
    layout="EN_B00000.jsonl beside EN_B00000/, or ID.json beside ID.mp3",
    published=Published(by="language", hours=HOURS, note="the authors publish hours, not utterances"),
    needs_text=True,
    splits=BY_SPEAKER,
    counted=("language",),
    options=(
        Option("languages", f"languages to take, with commas between (default: {', '.join(HOURS)})", (), list),
        Option("min_dnsmos", "leave out what has a lower DNSMOS (the release itself starts at 3.0)", 0.0, float),
    ),
)
