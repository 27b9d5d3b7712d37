"""Other people's column names: what the importers (SpeechBrain, NeMo, Hugging Face, Kaldi) have in common.

A column is taken for a field by `--columns field=column`, else by the first of its usual names. Every other column that
holds a short plain value is kept under its own name.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmonifuse_core.data.corpora.entries import CorpusError, Entry, LeftOut, Option, Reason
from harmonifuse_core.data.corpora.reading import gender

USUAL = {
    "id": ("id", "ID", "utt_id", "utterance_id", "file_id", "segment_id"),
    "text": ("text", "wrd", "words", "sentence", "transcript", "transcription", "normalized_text"),
    "speaker": ("speaker", "spk_id", "speaker_id", "spk", "client_id", "speakerid"),
    "emotion": ("emotion", "emo", "EmoClass", "major_emotion"),
    "gender": ("gender", "sex"),
    "language": ("language", "lang", "locale", "source_lang"),
    "split": ("split",),
}
EMOTION_WORDS = {
    "anger": "angry", "ang": "angry", "happiness": "happy", "hap": "happy", "joy": "happy", "sadness": "sad",
    "neu": "neutral", "fear": "fearful", "disgusted": "disgust", "surprise": "surprised",
}  # fmt: skip
SPLITS = {"valid": "dev", "validation": "dev", "val": "dev", "development": "dev", "training": "train"}
LONGEST = 200  # characters of a column that is kept though nobody asked for it
OPTIONS = (
    Option("columns", "which column holds a field, e.g. text=sentence,emotion=label", (), list),
    Option("labels", "the emotions there are; others are unknown labels (default: whatever stands there)", (), list),
    Option("dataset", "name in the manifest (default: the folder's name)"),
    Option("language", "language of everything, where no column says it"),
)


def column_map(options: Mapping[str, Any]) -> dict[str, str]:
    """`--columns` as field -> column. Raises CorpusError."""
    chosen = {}
    for pair in options["columns"]:
        field, _, column = pair.partition("=")
        if not field or not column:
            raise CorpusError(f"--columns {pair!r}: write field=column, e.g. emotion=label")
        chosen[field] = column
    return chosen


def split_name(word: str) -> str:
    """train, dev and test under their usual other names."""
    return SPLITS.get(word.lower(), word)


def dataset_name(raw: Path, options: Mapping[str, Any]) -> str:
    return options["dataset"] or (raw.resolve().name if raw.is_dir() else raw.stem)


def make_entry(
    values: Mapping[str, Any], audio: Path | bytes, item: str, where: str, options: Mapping[str, Any], *,
    split: str = "", skip: tuple[str, ...] = (), **more,
) -> Entry | LeftOut:  # fmt: skip
    """One record of an importer.

    values: the record by column. item: id where no column has one. skip: columns that are used up (paths, times).
    more: fields of Entry that the importer has worked out itself.
    """
    chosen, taken = column_map(options), {}
    for name in {**USUAL, **chosen}:
        columns = (chosen[name],) if name in chosen else [c for c in USUAL[name] if c not in chosen.values()]
        column = next((column for column in columns if column in values), None)
        if column is None and name in chosen:
            known = ", ".join(map(str, values))
            raise CorpusError(f"{where}: there is no column {chosen[name]!r} for {name}; the columns are: {known}")
        if column is not None:
            taken[name] = values[column]
            skip = (*skip, column)
    item = str(taken.pop("id", "") or item)
    labels = {name: value for name, value in values.items() if name not in skip and _plain(value)}
    labels |= {
        name: value for name, value in taken.items() if name not in ("text", "speaker", "split") and _plain(value)
    }
    if "gender" in labels:
        labels["gender"] = gender(str(labels["gender"]))
    if options["language"] and not labels.get("language"):
        labels["language"] = options["language"]
    emotion = str(taken.get("emotion") or "").strip()
    emotion = EMOTION_WORDS.get(emotion.lower(), emotion)
    if options["labels"]:
        if not emotion:
            return LeftOut(item, Reason.NO_LABEL, f"{where}: no emotion")
        if emotion not in options["labels"]:
            known = ", ".join(options["labels"])
            return LeftOut(item, Reason.UNKNOWN_LABEL, f"{where}: emotion {emotion!r} is none of {known}")
    if emotion:
        labels["emotion"] = emotion
    text = taken.get("text")
    return Entry(
        id=item,
        audio=audio,
        text=None if "text" not in taken else "" if text is None else str(text),
        speaker=str(taken.get("speaker") or ""),
        split=split_name(str(taken.get("split") or split)),
        labels=labels,
        where=where,
        **more,
    )


def _plain(value) -> bool:
    """Worth keeping as a label: numbers, and text that is not a document."""
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
