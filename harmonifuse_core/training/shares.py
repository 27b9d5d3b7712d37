"""A step's batch cut into parts, for several processes and for accumulation: what each part's mean counts in the whole.

A loss is a mean over tokens or utterances. The mean of the whole is the sum over parts of each part's mean times its
share of what is counted; every term of the loss counts something of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch

from harmonifuse_core.data.batching import InterleavedBatches, TaskBatch, seconds_of
from harmonifuse_core.data.examples import Example
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.training.processes import Processes
from harmonifuse_core.training.teacher import TeacherFolder


@dataclass(frozen=True)
class Counts:
    """What the terms of one task's loss are means over.

    items: tokens, utterances or units of the task's own loss; utterances; answers: positions that answer;
    taught_frames, taught_tokens: of utterances with a teacher. As weights (`of`): this part's share of each.
    """

    items: float = 1.0
    utterances: float = 1.0
    answers: float = 1.0
    taught_frames: float = 1.0
    taught_tokens: float = 1.0

    def of(self, whole: "Counts") -> "Counts":
        """The share of each count in the whole's; 0 where there is none."""
        mine, all_ = asdict(self), asdict(whole)
        return Counts(**{name: mine[name] / all_[name] if all_[name] else 0.0 for name in mine})


NOTHING = Counts(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Share:
    """One task's utterances in one part. weights: of each term (None: this part is the whole). muted: a stand-in for an
    empty share, so that all processes exchange statistics the same number of times."""

    task: str
    batch: TaskBatch
    examples: Sequence[Example]
    weights: Counts | None = None
    muted: bool = False


def shares_of(
    step: int, batches: InterleavedBatches, model: HarmoniFuse, teacher: TeacherFolder | None, processes: Processes,
    accumulation: int,
) -> list[list[Share]]:  # fmt: skip
    """This process's parts of `step`, each a list of shares by task. One process without accumulation has one part."""
    if processes.count * accumulation == 1:
        found, examples = batches.step(step)
        return [[Share(task, batch, examples[task]) for task, batch in found.items()]]
    tasks, parts = list(batches.examples(step)), []
    stand_in = batches.step(step, 0, 2**31) if processes.count > 1 else None  # the first utterance of each task
    for number in range(accumulation):
        found, examples = batches.step(step, number * processes.count + processes.index, processes.count * accumulation)
        part = [Share(task, found[task], examples[task]) for task in tasks if task in found]
        if stand_in is not None:
            empty = [t for t in tasks if t not in found]
            part += [Share(task, stand_in[0][task], stand_in[1][task], muted=True) for task in empty]
            part.sort(key=lambda share: tasks.index(share.task))
        parts.append(part)
    return weighed(parts, tasks, model, teacher, processes)


def weighed(
    parts: list[list[Share]], tasks: Sequence[str], model: HarmoniFuse, teacher: TeacherFolder | None,
    processes: Processes,
) -> list[list[Share]]:  # fmt: skip
    """The same parts with each share's weights, after one exchange of what every process holds."""
    counts = [[NOTHING if s.muted else counts_of(s, model, teacher) for s in part] for part in parts]
    names, mine = [f.name for f in fields(Counts)], {task: dict.fromkeys(asdict(NOTHING), 0.0) for task in tasks}
    for part, numbers in zip(parts, counts, strict=True):
        for share, count in zip(part, numbers, strict=True):
            for name in names:
                mine[share.task][name] += getattr(count, name)
    flat = iter(processes.total_of([mine[task][name] for task in tasks for name in names]))
    whole = {task: Counts(**{name: next(flat) for name in names}) for task in tasks}
    return [
        [Share(s.task, s.batch, s.examples, c.of(whole[s.task]), s.muted) for s, c in zip(part, numbers, strict=True)]
        for part, numbers in zip(parts, counts, strict=True)
    ]


def counts_of(share: Share, model: HarmoniFuse, teacher: TeacherFolder | None) -> Counts:
    batch, utterances = share.batch, len(share.batch)
    items = answers = utterances
    if batch.token_ids is not None:
        items = answers = sum(len(ids) + 1 for ids in batch.token_ids)
    elif batch.units is not None:
        items = sum(map(len, batch.units))
    taught = [i for i, e in enumerate(share.examples) if e.corpus.teacher] if teacher is not None else []
    taught_frames = taught_tokens = 0
    if taught:
        frames = model.encoder.count_frames(batch.lengths[taught]).tolist()
        targets = [teacher.target(share.examples[i].utterance.id) for i in taught]
        taught_frames = sum(min(n, len(t.normalised_state)) for n, t in zip(frames, targets, strict=True))
        taught_tokens = sum(len(t.top_ids) for t in targets)
    return Counts(items, utterances, answers, taught_frames, taught_tokens)


def merged_entries(
    parts: Sequence[Sequence[Share]], entries: Sequence[Sequence[dict]], processes: Processes
) -> dict[str, dict]:
    """The log entries of all parts and processes as one entry a task.

    Losses come weighted and are summed, as items and seconds are; alphas and their parameters are averaged by
    utterances; spreads over utterances are left out, since parts do not know them.
    """
    found: dict[str, dict] = {}
    for part, rows in zip(parts, entries, strict=True):
        for share, entry in zip(part, rows, strict=True):
            if share.weights is None:
                found[share.task] = entry
                continue
            target = found.setdefault(share.task, {})
            for name, value in entry.items():
                if name.endswith("_std"):
                    continue
                weight = share.weights.utterances if isinstance(value, list) else float(not share.muted)
                scaled = weight * torch.tensor(value, dtype=torch.float64)
                target[name] = target[name] + scaled if name in target else scaled
    if any(share.weights is not None for part in parts for share in part):
        found = {task: _exchanged(entry, processes) for task, entry in found.items()}
    return found


def _exchanged(entry: Mapping[str, torch.Tensor], processes: Processes) -> dict:
    names = sorted(entry)
    flat = iter(processes.total_of([v for name in names for v in entry[name].flatten().tolist()]))
    summed = {name: [next(flat) for _ in range(entry[name].numel())] for name in names}
    return {n: [round(v, 5) for v in summed[n]] if entry[n].ndim else summed[n][0] for n in entry}


def speech_seconds(share: Share) -> float:
    return 0.0 if share.muted else seconds_of(share.batch)
