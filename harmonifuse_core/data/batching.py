"""What a training step sees: corpora interleaved by weight, length buckets, collation.

All of it is a pure function of (seed, step), so `--resume` needs no sampler state: the same step draws the same
utterances, prompts and augmentation.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from harmonifuse_core.config import AugmentConfig, DataConfig, TrainingConfig
from harmonifuse_core.data.audio import SAMPLE_RATE, decode_waveform
from harmonifuse_core.data.augmentation import augment, mixed
from harmonifuse_core.data.examples import Example, load_examples, with_label_noise
from harmonifuse_core.data.interleaving import Interleaving
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.randomness import generator
from harmonifuse_core.tasks import TaskConfig

BLOCK_BATCHES = 24  # batches that are cut from one sorted pool: short against long clips, without sorting everything


@dataclass(frozen=True)
class TaskBatch:
    """Utterances of one task. waveforms (B, S) float, zero behind `lengths` (B,) samples.

    prompts: B strings. token_ids: B lists of text ids without end token (transcription). labels (B,), allowed (B, C).
    units: B lists of numbers of the task's labels (CTC).
    mixed_labels (B,), shares (B,): of mixed utterances, the other label, and the first one's share.
    """

    waveforms: torch.Tensor
    lengths: torch.Tensor
    prompts: Sequence[str]
    token_ids: Sequence[list[int]] | None = None
    labels: torch.Tensor | None = None
    allowed: torch.Tensor | None = None
    mixed_labels: torch.Tensor | None = None
    shares: torch.Tensor | None = None
    units: Sequence[list[int]] | None = None
    ids: Sequence[str] = ()

    def to(self, device) -> "TaskBatch":
        moved = {
            f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, chosen: Sequence[int]) -> "TaskBatch":
        """These utterances alone, without padding that only the others need."""
        values = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, torch.Tensor):
                values[f.name] = value[list(chosen)]
            else:
                values[f.name] = [value[i] for i in chosen] if value else value
        values["waveforms"] = values["waveforms"][:, : int(values["lengths"].max())]
        return TaskBatch(**values)


class TaskSchedule:
    """The batches of one task, in order: `batch(step)` gives the examples of that step."""

    def __init__(self, corpora: Sequence[list[Example]], batch_size: int, max_seconds: float, seed: int, task: str):
        self.corpora, self.batch_size, self.max_seconds = corpora, batch_size, max_seconds
        self.seed, self.task = seed, task
        weights = np.array([rows[0].corpus.weight for rows in corpora])
        pool = batch_size * BLOCK_BATCHES
        self.quota = [max(1, round(pool * w)) for w in weights / weights.sum()]  # draws of each corpus in a block
        self.blocks, self.batches = 0, []

    def batch(self, step: int) -> list[Example]:
        while step >= len(self.batches):
            self._extend()
        return self.batches[step]

    def _draw(self, index: int, start: int, count: int):
        """Utterances `start` to `start + count` of the endless stream of shuffled passes over corpus `index`."""
        rows, pass_of = self.corpora[index], {}
        for position in range(start, start + count):
            epoch, place = divmod(position, len(rows))
            if epoch not in pass_of:
                pass_of[epoch] = generator(self.seed, self.task, index, epoch).permutation(len(rows))
            yield rows[pass_of[epoch][place]]

    def _extend(self):
        pool = [e for i, count in enumerate(self.quota) for e in self._draw(i, self.blocks * count, count)]
        rng = generator(self.seed, self.task, "block", self.blocks)
        jitter = rng.uniform(0.9, 1.1, len(pool))  # neighbours in length change from block to block
        order = np.argsort([(e.utterance.duration or 5.0) * j for e, j in zip(pool, jitter, strict=True)])
        batches, current, longest = [], [], 0.0
        for i in order:
            seconds = max(longest, pool[i].utterance.duration or 5.0)
            if current and (len(current) == self.batch_size or seconds * (len(current) + 1) > self.max_seconds):
                batches.append(current)
                current, seconds = [], pool[i].utterance.duration or 5.0
            current.append(pool[i])
            longest = seconds
        batches.append(current)
        self.batches += [batches[i] for i in rng.permutation(len(batches))]
        self.blocks += 1


class AudioCache:
    """Decoded audio in memory, as int16, up to a limit; what does not fit is decoded again each time."""

    def __init__(self, megabytes: int):
        self.room, self.clips = megabytes * 2**20, {}

    def get(self, utterance: Utterance) -> np.ndarray:
        if (clip := self.clips.get(utterance.audio)) is None:
            clip = np.round(np.clip(decode_waveform(utterance.audio), -1, 1) * 32767).astype(np.int16)
            if clip.nbytes <= self.room:
                self.room -= clip.nbytes
                self.clips[utterance.audio] = clip
        return clip.astype(np.float32) / 32767


def collate(
    examples: Sequence[Example], task: TaskConfig, tokenizer, audio: Callable[[Utterance], np.ndarray],
    rngs: Sequence[np.random.Generator] | None = None, augmentation: AugmentConfig | None = None,
) -> TaskBatch:  # fmt: skip
    """Examples to a TaskBatch. With `rngs` (training) prompts are drawn and audio is augmented, else defaults."""
    plain, clips, prompts = [audio(example.utterance) for example in examples], [], []
    for index, (example, clip) in enumerate(zip(examples, plain, strict=True)):
        prompt = task.default_prompt
        if rngs is not None:
            prompt = task.prompts[int(rngs[index].integers(len(task.prompts)))]
            if augmentation is not None:
                settings = augmentation.changed(example.corpus.augment)
                others = plain[:index] + plain[index + 1 :]
                clip = augment(clip, settings, rngs[index], time_warp=not example.corpus.teacher, voices=others)
        clips.append(clip)
        prompts.append(prompt)
    labels = allowed = token_ids = mixed_labels = shares = units = None
    if task.is_transcription:
        token_ids = [tokenizer.encode(e.text) for e in examples]
    elif task.writes_text:
        units = [list(e.units) for e in examples]
    else:
        labels = torch.tensor([e.label for e in examples])
        allowed = torch.tensor([e.allowed for e in examples])
        if rngs is not None and augmentation is not None and augmentation.mixup_probability:
            clips, partners, shares = mix(clips, examples, rngs, augmentation.mixup_probability)
            mixed_labels, shares = labels[partners], torch.tensor(shares, dtype=torch.float32)
    waveforms, lengths = pad_waveforms(clips)
    return TaskBatch(
        waveforms,
        lengths,
        prompts,
        token_ids,
        labels,
        allowed,
        mixed_labels,
        shares,
        units,
        [e.utterance.id for e in examples],
    )


def mix(clips: Sequence[np.ndarray], examples: Sequence[Example], rngs, probability: float):
    """Mixed clips, each one's partner (itself where it stays as it is) and its own share in it."""
    results, partners, shares = [], [], []
    for index, (example, rng) in enumerate(zip(examples, rngs, strict=True)):
        same = [i for i, e in enumerate(examples) if e.corpus is example.corpus]  # the same classes are known of both
        wanted, partner, share = rng.random() < probability, same[int(rng.integers(len(same)))], rng.beta(0.5, 0.5)
        if not wanted or partner == index:
            partner, share = index, 1.0
        results.append(mixed(clips[index], clips[partner], share) if partner != index else clips[index])
        partners.append(partner)
        shares.append(float(share))
    return results, partners, shares


def pad_waveforms(clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack clips (S_i,) to (B, S) with zeros behind, and their lengths (B,)."""
    lengths = torch.tensor([len(clip) for clip in clips])
    waveforms = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(waveforms, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(np.ascontiguousarray(clip))
    return waveforms, lengths


class InterleavedBatches:
    """`step(n)` gives every task's TaskBatch of optimiser step n, and the examples behind it."""

    def __init__(
        self, data: DataConfig, training: TrainingConfig, tasks: Sequence[TaskConfig], tokenizer, transcripts=None
    ):
        self.data, self.training, self.seed, self.tokenizer = data, training, training.seed, tokenizer
        self.audio, self.tasks, self.corpora, self.counts = AudioCache(data.cache_megabytes), {}, {}, {}
        for task in tasks:
            named = [
                (c, with_label_noise(load_examples(c, task, data, transcripts or {}), c.label_noise, training.seed))
                for c in data.train
                if c.task == task.name
            ]
            if named:
                self.tasks[task.name] = task
                self.corpora[task.name] = [rows for _, rows in named]
                self.counts[task.name] = {f"{c.manifest} {c.split}".strip(): len(rows) for c, rows in named}
        if not self.tasks:
            raise ValueError("data.train names no corpus for any of the model's tasks: nothing to learn from")
        sizes = {name: training.batch_size_of(name) for name in self.tasks}
        utterances = {name: sum(counts.values()) for name, counts in self.counts.items()}
        self.interleaving = Interleaving(training.interleaving, sizes, utterances, training.steps)
        self.schedules: dict[tuple[str, int], TaskSchedule] = {}
        self.places: list[dict[str, tuple[int, int]]] = []
        self._drawn: Counter[tuple[str, int]] = Counter()

    def _place(self, number: int) -> dict[str, tuple[int, int]]:
        """{task: (batch size, how many batches of this task and size came before)} of step `number`."""
        while number >= len(self.places):
            plan = self.interleaving.plan(len(self.places))
            for key in plan.items():
                self._drawn[key] += 1
            self.places.append({name: (size, self._drawn[name, size] - 1) for name, size in plan.items()})
        return self.places[number]

    def _schedule(self, name: str, size: int) -> TaskSchedule:
        if (name, size) not in self.schedules:
            usual = size == self.training.batch_size_of(name)
            key = name if usual else f"{name}-{size}"  # another stream of draws for every size
            self.schedules[name, size] = TaskSchedule(
                self.corpora[name], size, self.training.max_batch_seconds, self.seed, key
            )
        return self.schedules[name, size]

    def examples(self, number: int) -> dict[str, list[Example]]:
        """The utterances of step `number`, by task."""
        return {name: self._schedule(name, size).batch(place) for name, (size, place) in self._place(number).items()}

    def step(self, number: int, part: int = 0, parts: int = 1) -> tuple[dict[str, TaskBatch], dict[str, list[Example]]]:
        """Batches and examples of step `number`, or what falls to `part` of `parts` (every `parts`-th utterance).

        A part without an utterance of a task has no entry for it.
        """
        batches, chosen = {}, {}
        for name, examples in self.examples(number).items():
            rngs = [generator(self.seed, name, number, i) for i in range(len(examples))]
            mine = list(range(part, len(examples), parts))
            if not mine:
                continue
            chosen[name] = [examples[i] for i in mine]
            arguments = self.tasks[name], self.tokenizer, self.audio.get
            if parts > 1 and self._mixes(examples):  # partners and voices are drawn from the whole batch
                batches[name] = collate(examples, *arguments, rngs, self.data.augment).rows(mine)
            else:
                batches[name] = collate(chosen[name], *arguments, [rngs[i] for i in mine], self.data.augment)
        return batches, chosen

    def _mixes(self, examples: Sequence[Example]) -> bool:
        """Whether one utterance's sound may need the others'."""
        settings = [self.data.augment.changed(e.corpus.augment) for e in examples]
        return any(s.mixup_probability or s.babble_probability for s in settings)


def seconds_of(batch: TaskBatch) -> float:
    """Seconds of speech in a batch, padding excluded."""
    return float(batch.lengths.sum()) / SAMPLE_RATE
