"""One task's augmented utterances as training would draw them, for what is fitted to them in closed form."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from harmonifuse_core.config import Config
from harmonifuse_core.data.batching import InterleavedBatches, TaskBatch


class Draws:
    """Batches of one task, in the order that training would draw them, each once. `weights` replace the corpora's."""

    def __init__(self, config: Config, task: str, tokenizer, weights: Mapping[str, float] | None = None):
        corpora, weights = tuple(corpus for corpus in config.data.train if corpus.task == task), weights or {}
        stems = [Path(corpus.manifest).stem for corpus in corpora]
        if unknown := sorted(set(weights) - set(stems)):
            raise ValueError(f"--weights {unknown[0]}: task {task!r} learns from {', '.join(stems) or 'no corpus'}")
        corpora = tuple(
            replace(corpus, weight=weights.get(stem, corpus.weight))
            for corpus, stem in zip(corpora, stems, strict=True)
        )
        augment = replace(config.data.augment, mixup_probability=0.0)  # a mixed utterance has no class
        data = replace(config.data, train=corpora, dev=(), teacher="", augment=augment)
        self.batches = InterleavedBatches(data, config.training, config.model.tasks, tokenizer)
        self.task, self.number = task, 0

    def take(self, samples: int, words: str) -> Iterator[TaskBatch]:
        """The next batches, until they hold `samples` utterances."""
        with tqdm(total=samples, unit="utterance", desc=words) as bar:
            while bar.n < samples:
                batch = self.batches.step(self.number)[0][self.task]
                self.number += 1
                yield batch
                bar.update(len(batch))

    def people(self, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Speaker and corpus of these utterances."""
        known = {e.utterance.id: e for rows in self.batches.corpora[self.task] for e in rows}
        return [known[i].utterance.speaker or i for i in ids], [Path(known[i].corpus.manifest).stem for i in ids]
