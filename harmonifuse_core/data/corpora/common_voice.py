"""Mozilla Common Voice (Ardila et al., LREC 2020): read sentences in many languages, from volunteers.

Raw layout (an unpacked release; several languages may lie side by side):

    cv-corpus-17.0-2024-03-15/en/train.tsv, dev.tsv, test.tsv, validated.tsv, other.tsv, invalidated.tsv
    cv-corpus-17.0-2024-03-15/en/clips/common_voice_en_123.mp3

    client_id  path  sentence  up_votes  down_votes  age  gender  accents  variant  locale  segment

Releases differ in columns (`sentence_id`, `sentence_domain`; `accent` for `accents`; gender `male_masculine`) and in
counts, so what is found is compared with the rows of the .tsv files. Columns are not quoted. train, dev and test are
subsets of validated: a clip that stands in two of the chosen files is a duplicate. The speaker is client_id, cut to
16 digits.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.entries import Corpus, CorpusError, Entries, Entry, LeftOut, Option, Published
from harmonifuse_core.data.corpora.reading import Row, gender, lines, table, visible

LISTS = ("train", "dev", "test", "validated", "other", "invalidated")
COLUMNS = ("client_id", "path", "sentence")


def entries(raw: Path, options) -> Entries:
    for folder, listing in _listings(raw, options):
        for row in table(listing, raw, COLUMNS, tabs=True):
            yield row if isinstance(row, LeftOut) else _entry(row, folder, listing.stem)


def _listings(raw: Path, options) -> list[tuple[Path, Path]]:
    if unknown := [name for name in options["lists"] if name not in LISTS]:
        raise CorpusError(f"list {unknown[0]!r} is unknown; Common Voice has: {', '.join(LISTS)}")
    folders = [raw, *visible(raw.glob("*")), *visible(raw.glob("*/*"))]
    folders = [folder for folder in folders if (folder / "clips").is_dir() and any(folder.glob("*.tsv"))]
    if missing := set(options["languages"]) - {folder.name for folder in folders}:
        known = ", ".join(folder.name for folder in folders) or "none"
        raise CorpusError(f"language {sorted(missing)[0]!r} is not in {raw}; there are: {known}")
    return [
        (folder, folder / f"{name}.tsv")
        for folder in folders
        for name in options["lists"]
        if (not options["languages"] or folder.name in options["languages"]) and (folder / f"{name}.tsv").is_file()
    ]


def _entry(row: Row, folder: Path, split: str) -> Entry:
    name = row["path"] if Path(row["path"]).suffix else row["path"] + ".mp3"  # the first releases left .mp3 out
    return Entry(
        id=Path(name).stem or row.where,
        audio=folder / "clips" / name,
        text=row["sentence"],
        speaker=f"cv-{row['client_id'][:16]}" if row["client_id"] else "",
        split=split,
        labels={
            "language": row["locale"] or folder.name, "gender": gender(row["gender"]), "age_group": row["age"],
            "accent": row["accents"] or row["accent"],
        },
        where=row.where,
    )  # fmt: skip


def published(raw: Path, options) -> Published:
    rows: dict[str, int] = {}
    for _, listing in _listings(raw, options):
        rows[listing.stem] = rows.get(listing.stem, 0) + max(0, sum(1 for _ in lines(listing, raw)) - 1)
    return Published(sum(rows.values()), by="split", parts=rows, note="rows of the .tsv files")


CORPUS = Corpus(
    name="common_voice",
    title="Common Voice",
    licence="CC0 1.0",
    source="https://commonvoice.mozilla.org/datasets",
    entries=entries,
    layout="LANGUAGE/train.tsv and LANGUAGE/clips/*.mp3",
    published=Published(note="differs by release and language"),
    published_for=published,
    needs_text=True,
    counted=("language", "gender", "age_group"),
    options=(
        Option("lists", f"lists to take, with commas between, of {', '.join(LISTS)}", ("train", "dev", "test"), list),
        Option("languages", "language folders to take, with commas between (default: all there are)", (), list),
    ),
)
