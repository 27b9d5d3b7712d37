"""JSONL manifests: one object a line; `audio_filepath` is relative to the manifest's own folder."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = ("id", "audio_filepath", "duration", "text", "speaker", "dataset", "split")


class ManifestError(ValueError):
    """A line of a manifest cannot be used; the message names file, line, value and remedy."""


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest.

    audio: absolute path. duration: seconds, 0 where the manifest has none. labels: every further field as text
    (`emotion`, `gender`, `age`, `language`, `intensity`, ...).
    """

    id: str
    audio: Path
    duration: float = 0.0
    text: str | None = None
    speaker: str = ""
    dataset: str = ""
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def field(self, name: str) -> str | None:
        """Value of a manifest field by name, None where it is missing or empty."""
        value = getattr(self, name) if name in KNOWN else self.labels.get(name)
        return str(value) if value not in (None, "") else None


def parse_line(line: str, folder: Path, where: str) -> Utterance:
    """One JSON object to an Utterance. Raises ManifestError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"{where}: not a JSON object ({error.msg} at column {error.colno}); write one object a line"
        ) from None
    if not isinstance(row, dict):
        raise ManifestError(f'{where}: {line.strip()[:60]!r} is not an object; write {{"audio_filepath": ...}}')
    path = row.get("audio_filepath")
    if not isinstance(path, str) or not path.strip():
        raise ManifestError(
            f"{where}: audio_filepath is {path!r}; give the path of an audio file, relative to the manifest"
        )
    duration = row.get("duration", 0.0)
    if (
        isinstance(duration, bool)
        or not isinstance(duration, (int, float))
        or not math.isfinite(duration)
        or duration < 0
    ):
        raise ManifestError(f"{where}: duration is {duration!r}; give seconds, or leave the field out")
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        raise ManifestError(f"{where}: text is {text!r}; give a string, or leave the field out")
    labels = {k: str(v) for k, v in row.items() if k not in KNOWN and isinstance(v, (str, int, float)) and v != ""}
    return Utterance(
        id=str(row.get("id") or Path(path).stem),
        audio=(folder / path).resolve(),
        duration=float(duration),
        text=text,
        speaker=str(row.get("speaker") or ""),
        dataset=str(row.get("dataset") or ""),
        split=str(row.get("split") or ""),
        labels=labels,
    )


def read_manifest(path: str | Path, split: str = "") -> list[Utterance]:
    """Read the utterances of `split` (all when empty). Raises ManifestError on the first bad line or a repeated id."""
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"manifest {str(path)!r} does not exist")
    utterances, lines_of, splits = [], {}, set()
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            try:
                line = raw.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ManifestError(f"{path.name}, line {number}: not UTF-8 text ({error.reason})") from None
            if not line.strip():
                continue
            utterance = parse_line(line, path.parent, f"{path.name}, line {number}")
            if utterance.id in lines_of:
                raise ManifestError(
                    f"{path.name}, line {number}: id {utterance.id!r} stands in line {lines_of[utterance.id]} already; "
                    "ids must differ"
                )
            lines_of[utterance.id] = number
            splits.add(utterance.split)
            if not split or utterance.split == split:
                utterances.append(utterance)
    if not utterances:
        known = ", ".join(sorted(filter(None, splits))) or "none"
        raise ManifestError(
            f"{path.name} has no utterance{f' of split {split!r}' if split else ''}; its splits are: {known}"
        )
    return utterances
