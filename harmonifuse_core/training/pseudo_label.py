"""Labels for a corpus that has none, by a model: a manifest with the labels it is sure of, and all its probabilities.

    python -m harmonifuse_core.prepare pseudo-label --run RUN --task ser --manifest emilia.jsonl --output OUT.jsonl

Answers are written line by line to OUT.jsonl.parts/, so that a kill costs one window of recordings; of several shards,
the one that ends last puts the manifest together.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.inference.sources import Source, manifest_sources, shard
from harmonifuse_core.runs import write_json, write_text
from harmonifuse_core.training.labellers import Labeller, row_of

WINDOW = 64  # recordings that are answered, then written


@dataclass(frozen=True)
class PseudoLabels:
    """What came of a shard: `labelled` confidently, `unsure`, `failed`; `kept`: had a label of their own. manifest:
    written, or None while other shards are missing."""

    labelled: int
    unsure: int
    failed: int
    kept: int
    manifest: Path | None


def write_pseudo_labels(
    labeller: Labeller, manifest: str | Path, output: str | Path, *, split: str = "", threshold: float = 0.0,
    num_shards: int = 1, shard_index: int = 0, on_done: Callable[[int], None] | None = None,
) -> PseudoLabels:  # fmt: skip
    """Label the utterances of `manifest` that lack `labeller.field`; go on where an earlier process stopped.

    threshold: least probability of a label that is kept. Raises ValueError for bad arguments, or answers of others.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"--threshold is {threshold}; use 0 (all labels) to below 1")
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists: choose another --output, or remove it")
    rows = read_manifest(manifest, split)
    sources = shard(manifest_sources(manifest, rows), num_shards, shard_index)
    parts = output.with_name(f"{output.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    _check_same(parts, labeller, threshold, Path(manifest).name, split, num_shards)
    part = parts / f"{shard_index:05d}.jsonl"
    done = answers_in(part)
    left = [s for s in sources if s.utterance.field(labeller.field) is None and s.utterance.id not in done]
    write_text(part, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done.values()))
    with part.open("a", encoding="utf-8") as file:
        for start in range(0, len(left), WINDOW):
            window = left[start : start + WINDOW]
            file.writelines(row_of(item, labeller, threshold) + "\n" for item in labeller.label(window))
            file.flush()
            if on_done is not None:
                on_done(len(window))
    return _counted(sources, answers_in(part), labeller.field, _join(parts, manifest, rows, labeller.field, output))


def _check_same(parts: Path, labeller: Labeller, threshold: float, manifest: str, split: str, num_shards: int):
    """Answers of one labeller and threshold only lie in a folder."""
    record = {"labeller": labeller.name, "threshold": threshold, "manifest": manifest, "split": split}
    record["shards"] = num_shards
    file = parts / "labeller.json"
    if not file.is_file():
        write_json(file, record)
    elif (found := json.loads(file.read_text())) != record:
        name = next(key for key in record if found.get(key) != record[key])
        raise ValueError(
            f"{parts} holds answers with {name} {found.get(name)!r}, not {record[name]!r}: remove it, or choose another"
            " --output"
        )


def answers_in(part: Path) -> dict[str, dict]:
    """{id: row} of a shard's file; a last line that a kill cut off is passed over."""
    found = {}
    for line in part.read_text(encoding="utf-8").splitlines() if part.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["id"]] = row
    return found


def _counted(sources: Sequence[Source], answers: dict[str, dict], field: str, manifest: Path | None) -> PseudoLabels:
    rows = [answers.get(s.utterance.id) for s in sources]
    labelled = sum(row is not None and field in row for row in rows)
    failed = sum(row is not None and f"{field}_error" in row for row in rows)
    kept = rows.count(None)
    return PseudoLabels(labelled, len(rows) - labelled - failed - kept, failed, kept, manifest)


def _join(parts: Path, manifest: str | Path, rows, field: str, output: Path) -> Path | None:
    """The manifest's lines with what was found, once every utterance is answered; paths lead from the new place."""
    answers = {}
    for part in sorted(parts.glob("*.jsonl")):
        answers |= answers_in(part)
    wanted = {u.id: u for u in rows}
    if any(u.field(field) is None and u.id not in answers for u in rows):
        return None
    lines = []
    for line in Path(manifest).read_text(encoding="utf-8-sig").splitlines():
        row = json.loads(line) if line.strip() else {}
        name = str(row.get("id") or Path(row.get("audio_filepath", "")).stem)
        if (utterance := wanted.get(name)) is not None:
            here = _relative(utterance.audio, output.parent.resolve())
            row |= {"id": name, "audio_filepath": here} | answers.get(name, {})
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(output, "".join(lines))
    return output


def _relative(audio: Path, folder: Path) -> str:
    return Path(os.path.relpath(audio, folder)).as_posix()
