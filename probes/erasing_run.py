"""Erasure over a corpus: two streaming passes of the run, one that fits the erasers and one that measures."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from harmonifuse_core.analysis.material import SpeechBatch, read_batch, with_targets
from harmonifuse_core.analysis.result import Table
from harmonifuse_core.data.batching import generator
from harmonifuse_core.inference.parallel import length_batches
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from probes.erasing import Halves, conditions_of, erasure_table, measure
from probes.features import Corpus
from probes.probing import Material

BATCH_SECONDS, BATCH_SIZE = 120.0, 16


def erase_layers(text: str, layers: int) -> list[int | None]:
    """Of --erase-layers; every layer and all at once where empty. Raises ValueError."""
    if not text.strip():
        return [*range(layers + 1), None]
    found = []
    for part in (p.strip() for p in text.split(",") if p.strip()):
        if part != "all" and not (part.isdigit() and int(part) <= layers):
            raise ValueError(f"--erase-layers {part!r}: give layers from 0 to {layers}, or all")
        found.append(None if part == "all" else int(part))
    return list(dict.fromkeys(found))


def erase(
    model: HarmoniFuse, corpus: Corpus, material: Material, concept: str, layers: Sequence[int | None], limit: int,
    words: bool = True, label_map: Mapping[str, str] | None = None,
    on_read: Callable[[int], None] = lambda count: None,
) -> Table:  # fmt: skip
    """Raises ValueError where the concept is no target with classes, or one half of the speakers lacks it."""
    target = next((t for t in material.targets if t.name == concept), None)
    if target is None or target.kind != "classes":
        known = ", ".join(t.name for t in material.targets if t.kind == "classes") or "none"
        raise ValueError(f"--erase {concept}: it must be a target with classes; of those probed: {known}")
    ids = [source.utterance.id for source in corpus.sources]
    chosen = sampled(target.known.nonzero()[0].tolist(), limit, material.options.seed)
    codes = {ids[i]: int(target.labels[i, 0]) for i in chosen}
    speakers = {ids[i]: material.speakers[i] for i in chosen}
    halves = Halves(codes, speakers, len(target.classes), material.options.seed)
    sources = [corpus.sources[i] for i in chosen]
    for batch in batches(model, sources, label_map or {}):
        halves.add(batch)
        on_read(len(batch.items))
    conditions, measured = conditions_of(layers), []
    for batch in batches(model, sources, label_map or {}):
        measured += measure(model, batch, halves, conditions, words)
        on_read(len(batch.items))
    return erasure_table(concept, measured, conditions, halves, material, ids, model)


def sampled(rows: Sequence[int], limit: int, seed: int) -> list[int]:
    order = generator(seed, "erasure").permutation(len(rows))[:limit]
    return sorted(rows[i] for i in order)


def batches(model: HarmoniFuse, sources: Sequence[Source], label_map: Mapping[str, str]) -> Iterator[SpeechBatch]:
    """Decoded and encoded, one batch in memory at a time."""
    items = [with_targets(source, model.config.tasks, label_map, {}) for source in sources]
    for rows in length_batches([item.seconds for item in items], BATCH_SECONDS, BATCH_SIZE):
        batch, _ = read_batch(model, [items[row] for row in rows])
        if batch is not None:
            yield batch
