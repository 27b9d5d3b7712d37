"""nEMO (Christop, LREC-COLING 2024, arXiv 2404.06292): 9 Polish actors, 6 emotions, 90 sentences.

Raw layout (github.com/amu-cai/nEMO; the Hugging Face release is parquet: use `hf_datasets` for that):

    data.tsv            file_id  emotion  raw_text  normalized_text  speaker_id  gender  age
    samples/WR0_surprised_64.wav        speaker, emotion, number of the sentence

In data.tsv the speakers stand behind eight blanks. Everybody reads the same sentences: for speech recognition hold out
speakers and sentences together (`--also-disjoint sentence`). The transcripts are the normalised ones.
"""

from pathlib import Path

from harmonifuse_core.data.corpora.entries import BY_SPEAKER, Corpus, Entries, Entry, LeftOut, Published, classify
from harmonifuse_core.data.corpora.reading import first_folder, gender, table, whole

EMOTIONS = {
    "anger": "angry", "fear": "fearful", "happiness": "happy", "neutral": "neutral", "sadness": "sad",
    "surprised": "surprised",
}  # fmt: skip
COUNTS = {"neutral": 809, "sad": 769, "happy": 749, "angry": 749, "fearful": 736, "surprised": 669}
COLUMNS = ("file_id", "emotion", "normalized_text", "speaker_id")


def entries(raw: Path, options) -> Entries:
    root = first_folder(raw, ("nEMO", "*"), "data.tsv")
    if root is None:
        return
    for row in table(root / "data.tsv", raw, COLUMNS, tabs=True):
        if isinstance(row, LeftOut):
            yield row
            continue
        stem = row["file_id"].removesuffix(".wav")
        emotion = classify(row["emotion"], EMOTIONS, f"nemo-{stem}", row.where, "emotion")
        if isinstance(emotion, LeftOut):
            yield emotion
            continue
        yield Entry(
            id=f"nemo-{stem}",
            audio=root / "samples" / f"{stem}.wav",
            text=row["normalized_text"],
            speaker=f"nemo-{row['speaker_id']}",
            labels={
                "emotion": emotion, "sentence": stem.rsplit("_", 1)[-1], "gender": gender(row["gender"]),
                "age": whole(row["age"]), "language": "pl",
            },
            where=row.where,
        )  # fmt: skip


CORPUS = Corpus(
    name="nemo",
    title="nEMO",
    licence="CC BY-NC-SA 4.0",
    source="https://github.com/amu-cai/nEMO",
    entries=entries,
    layout="data.tsv and samples/*.wav",
    published=Published(sum(COUNTS.values()), by="emotion", parts=COUNTS),
    rate=24_000,
    needs_text=True,
    splits=BY_SPEAKER,
    counted=("emotion", "gender"),
)
