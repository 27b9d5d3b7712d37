"""Utterances of a corpus with their targets: text, class, units; what the corpus lacks; label noise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harmonifuse_core.config import CorpusConfig, DataConfig
from harmonifuse_core.data.manifest import Utterance, read_manifest
from harmonifuse_core.randomness import generator
from harmonifuse_core.tasks import TaskConfig


@dataclass(frozen=True)
class Example:
    """One utterance of a corpus with its target: `text` (transcription; with `units`, CTC), or `label` index and
    `allowed` classes."""

    utterance: Utterance
    corpus: CorpusConfig
    text: str | None = None
    label: int | None = None
    allowed: tuple[bool, ...] = ()
    units: tuple[int, ...] = ()


def styled(text: str, style: str) -> str:
    """Lower-case prompts in the style of Whisper's output: `sentence` sets a capital, the pronoun I and a full stop."""
    text = " ".join(text.split())
    if style != "sentence" or not text:
        return text
    words = ["I" + word[1:] if word == "i" or word.startswith("i'") else word for word in text.split()]
    text = " ".join(words)
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def load_examples(
    corpus: CorpusConfig, task: TaskConfig, data: DataConfig, transcripts: dict[str, str]
) -> list[Example]:
    """Examples of one corpus; utterances without a target or outside the length limits are left out."""
    rows = read_manifest(corpus.manifest, corpus.split)
    rows = [
        u
        for u in rows
        if (not corpus.speakers or u.speaker in corpus.speakers) and u.speaker not in corpus.exclude_speakers
    ]
    rows = [u for u in rows if re.search(corpus.ids, u.id)]
    rows = [u for u in rows if not u.duration or data.min_seconds <= u.duration <= data.max_seconds]
    examples = []
    if corpus.assumed_label and task.writes_text:
        raise ValueError(
            f"{corpus.manifest}: assumed_label {corpus.assumed_label!r} is for a classification task, and {task.name} "
            f"is {task.kind}: leave it out"
        )
    if task.is_transcription:
        for u in rows:
            text = transcripts.get(u.id) if corpus.teacher else u.field(task.field)
            if text:
                examples.append(Example(u, corpus, text=text if corpus.teacher else styled(text, corpus.text_style)))
    elif task.writes_text:
        examples = [e for u in rows if (e := unit_example(u, corpus, task)).units]
    else:
        found = [(u, u.field(task.field)) for u in rows]
        names = [(u, corpus.assumed_label if raw is None else corpus.label_map.get(raw, raw)) for u, raw in found]
        if task.edges:
            names = [(u, name if name in (*task.labels, "") else task.class_of(name)) for u, name in names]
        unknown = sorted({name for _, name in names if name and name not in task.labels})
        if unknown:
            raise ValueError(
                f"{corpus.manifest}: label {unknown[0]!r} is none of the classes of task {task.name} "
                f"({', '.join(task.labels)}); map it in label_map, or map it to '' to leave it out"
            )
        present = {name for _, name in names if name}
        allowed = tuple(label in present for label in task.labels)
        examples = [Example(u, corpus, label=task.labels.index(name), allowed=allowed) for u, name in names if name]
    if not examples:
        raise ValueError(
            f"{corpus.manifest} (split {corpus.split or 'all'}): no utterance has a {task.field!r} for task {task.name}"
        )
    return examples


def unit_example(utterance: Utterance, corpus: CorpusConfig, task: TaskConfig) -> Example:
    """With the units of a CTC task; none where the utterance has no text."""
    try:
        units = task.split_units(utterance.field(task.field) or "", corpus.label_map)
    except ValueError as error:
        raise ValueError(f"{corpus.manifest}, {utterance.id!r}: {error}") from None
    return Example(utterance, corpus, task.join_units(units), units=tuple(task.labels.index(unit) for unit in units))


def with_label_noise(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Each label with probability `share` replaced by another class that the corpus has, all others alike.

    Which utterances, and by what, depends on (seed, id) alone: the noise of a smaller share is part of a larger one's.
    Raises ValueError where the corpus has one class only.
    """
    if not share:
        return list(examples)
    present = [label for label, known in enumerate(examples[0].allowed) if known]
    if len(present) < 2:
        raise ValueError(f"{examples[0].corpus.manifest}: label_noise needs two classes, the corpus has one")
    noisy = []
    for example in examples:
        rng = generator(seed, "label noise", example.utterance.id)
        hit, others = rng.random() < share, [label for label in present if label != example.label]
        noisy.append(replace(example, label=others[int(rng.integers(len(others)))]) if hit else example)
    return noisy
