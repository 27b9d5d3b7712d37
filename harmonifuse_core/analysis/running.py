"""Analyses over a corpus in batches: in memory, or through a run folder, where a killed or sharded run goes on.

A plan fixes the batches before anything is decoded: rows depend neither on the number of processes nor on kills.
Rows of finished batches wait in `analysis/NAME.PLAN.parts/` of the run until all batches of all shards are there.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from harmonifuse_core.analysis.material import SURVEY, SpeechBatch, Spoken, read_batch
from harmonifuse_core.analysis.registry import Analysis, AnalysisOptions, Context
from harmonifuse_core.analysis.result import KIND, AnalysisResult, plain, read_rows, save_result
from harmonifuse_core.inference.parallel import length_batches
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.randomness import generator
from harmonifuse_core.runs import RunError, RunFolder, write_text

BATCH_SECONDS, BATCH_SIZE = 120.0, 16
VERSION = 1  # of what the rows mean; rows of another version are not gone on with


@dataclass(frozen=True)
class Plan:
    """batches, survey: of one corpus each; survey: at most `SURVEY` of the utterances again, for `Analysis.survey`."""

    batches: tuple[tuple[Spoken, ...], ...]
    survey: tuple[tuple[Spoken, ...], ...]

    @property
    def utterances(self) -> int:
        return sum(map(len, self.batches))


def make_plan(corpora: Sequence[Sequence[Spoken]], seed: int = 0) -> Plan:
    """Batches of like length within each corpus. Raises ValueError where an id stands twice: rows are paired by it."""
    times = Counter(item.id for items in corpora for item in items)
    if twice := [name for name, count in times.items() if count > 1]:
        raise ValueError(
            f"utterance id {twice[0]!r} stands {times[twice[0]]} times: rows are paired by id, make it unique"
        )
    together = [item for items in corpora for item in items]
    order = generator(seed, "survey").permutation(len(together))[:SURVEY]
    chosen = {together[i].id for i in order}
    sample = [[item for item in items if item.id in chosen] for items in corpora]
    return Plan(
        tuple(batch for items in corpora for batch in batched(items)),
        tuple(batch for items in sample for batch in batched(items)),
    )


def batched(items: Sequence[Spoken]) -> list[tuple[Spoken, ...]]:
    """A lone utterance joins the batch before it: it needs another one to be compared with."""
    groups = length_batches([item.seconds for item in items], BATCH_SECONDS, BATCH_SIZE)
    joined: list[list[int]] = []
    for group in groups:
        if joined and (len(group) == 1 or len(joined[-1]) == 1):
            joined[-1] += group
        else:
            joined.append(list(group))
    return [tuple(items[i] for i in sorted(group)) for group in joined]


def model_digest(run: RunFolder) -> str:
    """Of the model's files and the config."""
    digest = hashlib.sha256(run.config_file.read_bytes())
    for file in sorted(run.model.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def fingerprint(plan: Plan, analysis: Analysis, options: AnalysisOptions, model: str) -> str:
    """Of everything that the rows depend on: utterances and labels, seed, prompts, and the `model_digest`."""
    items = [[(i.id, i.source.path, *sorted(i.targets.items())) for i in batch] for batch in plan.batches]
    asked = [options.seed, options.words, list(options.prompts)]
    text = json.dumps([VERSION, analysis.name, model, items, asked])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@torch.inference_mode()
def rows_of(
    model: HarmoniFuse, batch: SpeechBatch, analysis: Analysis, options: AnalysisOptions, survey: bool = False
) -> list[dict]:
    """Raw rows of one batch, ready for JSON."""
    model.eval()
    function = analysis.survey if survey else analysis.collect
    return [plain(row) for row in function(model, batch, options)]


def analyse_batches(
    model: HarmoniFuse, batches: Sequence[SpeechBatch], analysis: Analysis, context: Context | None = None
) -> AnalysisResult:
    """In memory: encoded batches to a result; the survey is taken over all of them."""
    context = context or Context(model)
    options = context.options
    if analysis.survey:
        found = [row for batch in batches for row in rows_of(model, batch, analysis, options, survey=True)]
        options = replace(options, survey=pd.DataFrame(found))
    rows = [row for batch in batches for row in rows_of(model, batch, analysis, options)]
    return analysis.summarise(pd.DataFrame(rows), context)


class Job:
    """One analysis of one plan in one run folder, whose model has this `model_digest`."""

    def __init__(self, run: RunFolder, plan: Plan, analysis: Analysis, options: AnalysisOptions, model: str):
        self.run, self.plan, self.analysis, self.options = run, plan, analysis, options
        self.key = fingerprint(plan, analysis, options, model)
        self.folder = run.part(KIND, f"{analysis.name}.{self.key}.parts")

    def part(self, index: int, kind: str = "rows") -> Path:
        return self.folder / f"{kind}-{index:05d}.json"

    def finished(self) -> bool:
        """The run holds the rows of exactly this plan."""
        try:
            return self.run.read_json(KIND, f"{self.analysis.name}.json").get("plan") == self.key
        except RunError:
            return False

    def discard(self):
        """Take the parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self):
        """Begin anew: neither parts nor a result of this plan."""
        if self.finished():
            for suffix in (".json", ".parquet"):
                self.run.part(KIND, f"{self.analysis.name}{suffix}").unlink(missing_ok=True)
        self.discard()

    def missing(self, kind: str = "rows") -> list[int]:
        batches = self.plan.batches if kind == "rows" else self.plan.survey if self.analysis.survey else ()
        return [i for i in range(len(batches)) if not self.part(i, kind).is_file()]

    def write(self, index: int, rows: list[dict], kind: str = "rows"):
        write_text(self.part(index, kind), json.dumps(rows, allow_nan=False))

    def read(self, kind: str = "rows") -> pd.DataFrame:
        count = len(self.plan.batches if kind == "rows" else self.plan.survey)
        parts = [json.loads(self.part(i, kind).read_text()) for i in range(count)]
        return pd.DataFrame([row for rows in parts for row in rows])

    def merge(self, context: Context, record: Mapping) -> AnalysisResult:
        """Sum up all rows, write the result and take the parts away. Raises ValueError where they do not suffice."""
        rows = read_rows(self.run, self.analysis.name) if self.finished() else self.read()
        result = self.analysis.summarise(rows, context)
        seen = set(rows["utterance"]) if len(rows) else set()
        silent = [item.id for batch in self.plan.batches for item in batch if item.id not in seen]
        save_result(self.run, result, rows, {**record, "plan": self.key, "left_out": silent})
        self.discard()
        return result


def run_jobs(
    model: HarmoniFuse, jobs: Sequence[Job], shards: int = 1, index: int = 0, *,
    on_batch: Callable[[int, str], None] = lambda utterances, what: None,
    on_error: Callable[[str], None] = lambda message: None,
) -> None:  # fmt: skip
    """Write the missing parts of shard `index` of `shards`: its own batches, and every survey that is not there yet.

    Every batch is decoded and encoded once for all jobs. on_batch(utterances, "survey" or "rows") after each.
    """
    for number, batch, waiting in _work(jobs, "survey", 1, 0):
        _do(model, number, batch, waiting, "survey", on_error)
        on_batch(len(batch), "survey")
    surveys = {job.key: job.read("survey") for job in jobs if job.analysis.survey and not job.finished()}
    for number, batch, waiting in _work(jobs, "rows", shards, index):
        _do(model, number, batch, waiting, "rows", on_error, surveys)
        on_batch(len(batch), "rows")


def _work(
    jobs: Sequence[Job], kind: str, shards: int, index: int
) -> Iterator[tuple[int, tuple[Spoken, ...], list[Job]]]:
    """(number, batch, the jobs that lack it) of what this shard has to do."""
    lacking = {job.key: set() if job.finished() else set(job.missing(kind)) for job in jobs}
    plan = jobs[0].plan
    for number, batch in enumerate(plan.batches if kind == "rows" else plan.survey):
        waiting = [job for job in jobs if number in lacking[job.key]]
        if waiting and number % shards == index:
            yield number, batch, waiting


def work_left(jobs: Sequence[Job], shards: int = 1, index: int = 0) -> dict[str, int]:
    """Utterances that this shard still has to go through: {"survey": ..., "rows": ...}."""
    return {
        "survey": sum(len(batch) for _, batch, _ in _work(jobs, "survey", 1, 0)),
        "rows": sum(len(batch) for _, batch, _ in _work(jobs, "rows", shards, index)),
    }


def _do(model, number: int, items, waiting: Sequence[Job], kind: str, on_error, surveys=None):
    batch, errors = read_batch(model, items)
    for error in errors:
        on_error(error)
    for job in waiting:
        options = job.options
        if surveys and job.key in surveys:
            options = replace(options, survey=surveys[job.key])
        rows = rows_of(model, batch, job.analysis, options, kind == "survey") if batch is not None else []
        job.write(number, rows, kind)
