"""What a study is: systems (changes of one base config) x seeds, evaluations, and the claims that comparisons test.

A study file is YAML; `harmonifuse_core/configs/studies/` holds the shipped ones. A cell is one system with one seed.
"""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path

import yaml

from harmonifuse_core.config import Config
from harmonifuse_core.fields import assign, from_dict, read_values, to_dict
from harmonifuse_core.inference.evaluation import check_label_map
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.inference.sources import Source

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
METRICS = ("wer", "ua", "wa")
BETTER, NOT_WORSE = "better", "not worse"
SEED_FIELD = "training.seed"


def _check_name(what: str, name: str):
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: use small letters, digits and hyphens")


def _distinct(what: str, names: Sequence[str]):
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{what} are {list(names)}: give at least one, each once")


@dataclass(frozen=True)
class System:
    """One way to train.

    Args:
        name: short key, in files and tables.
        note: one line for the reader.
        set: dotted fields of the base config and their values (`model.gate.mode: shared`; lists by index:
            `data.train.1.label_noise: 0.2`).
        tasks: train and answer these only; the corpora and batch sizes of the others are left out. Empty: all.
    """

    name: str
    note: str = ""
    set: dict = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def __post_init__(self):
        _check_name("system", self.name)
        if SEED_FIELD in self.set:
            raise ValueError(f"system {self.name} sets {SEED_FIELD}: the study's `seeds` do that")


@dataclass(frozen=True)
class EvaluationSet:
    """Utterances that every system with one of `tasks` is scored on.

    Args:
        manifest, split, speakers, exclude_speakers, ids, label_map: as for `python -m harmonifuse_core.evaluate`.
        per_speaker: the first N utterances of each speaker in the manifest's order (0: all).
    """

    name: str
    tasks: tuple[str, ...]
    manifest: str
    split: str = ""
    speakers: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    ids: str = ""
    label_map: dict = field(default_factory=dict)
    per_speaker: int = 0

    def __post_init__(self):
        _check_name("evaluation", self.name)
        _distinct(f"evaluation {self.name}: tasks", self.tasks)
        if self.per_speaker < 0:
            raise ValueError(f"evaluation {self.name}: per_speaker is {self.per_speaker}; 0 takes all")

    def sources(self) -> list[Source]:
        """In the manifest's order. Raises ManifestError or SourceError."""
        chosen = Selection(
            self.manifest, self.split, self.speakers, self.exclude_speakers, self.ids, label_map=self.label_map
        )
        kept, seen = [], {}
        for source in chosen.sources():
            speaker = source.utterance.speaker or source.utterance.id
            seen[speaker] = seen.get(speaker, 0) + 1
            if not self.per_speaker or seen[speaker] <= self.per_speaker:
                kept.append(source)
        return kept


@dataclass(frozen=True)
class Contrast:
    """One comparison: `system` is expected to be `better` than `baseline`, or `not worse` by more than `margin`.

    Args:
        metric: `wer`, `ua` or `wa`; empty: `wer` for text, `ua` for classes.
        evaluation: empty: the only evaluation of `task`.
        margin: as a fraction (0.02 = 2 points). For `not worse`, the loss that is tolerated. For `better`, the least
            gain that matters: where even the interval's upper end stays below it, the claim is not supported (0: none).
    """

    system: str
    baseline: str
    task: str
    metric: str = ""
    evaluation: str = ""
    expect: str = BETTER
    margin: float = 0.0

    def __post_init__(self):
        if self.expect not in (BETTER, NOT_WORSE):
            raise ValueError(f"expect is {self.expect!r}; use {BETTER!r} or {NOT_WORSE!r}")
        if self.metric and self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is unknown; use one of {', '.join(METRICS)}")
        if not 0 <= self.margin < 1 or (self.expect == NOT_WORSE and not self.margin):
            raise ValueError(f"margin is {self.margin}; give a fraction (0.02 = 2 points), above 0 for not worse")
        if self.system == self.baseline:
            raise ValueError(f"{self.system!r} is compared with itself: name another baseline")


@dataclass(frozen=True)
class Claim:
    """text: a sentence that can be true or false. source: where it stands, or which open question it answers.

    It is supported where all of its comparisons are, and not supported where one is not.
    """

    name: str
    text: str
    comparisons: tuple[Contrast, ...]
    source: str = ""

    def __post_init__(self):
        _check_name("claim", self.name)
        if not self.comparisons:
            raise ValueError(f"claim {self.name} has no comparisons: name a system and its baseline")


@dataclass(frozen=True)
class Cell:
    """One system with one seed. key: hash of its config and of the evaluations; rows under another key are stale."""

    system: System
    seed: int
    config: Config
    key: str

    @property
    def name(self) -> str:
        return f"{self.system.name}.seed-{self.seed}"


@dataclass(frozen=True)
class Study:
    """base: plain values of the base config. set: fields that differ from it for every system."""

    name: str
    base: dict
    systems: tuple[System, ...]
    evaluations: tuple[EvaluationSet, ...]
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    title: str = ""
    question: str = ""
    description: str = ""
    set: dict = field(default_factory=dict)

    def __post_init__(self):
        _check_name("study", self.name)
        _distinct("seeds", self.seeds)
        _distinct("systems", [s.name for s in self.systems])
        _distinct("evaluations", [e.name for e in self.evaluations])
        if self.claims:
            _distinct("claims", [c.name for c in self.claims])
        if len({c.name.lower() for c in self.cells()}) != len(self.systems) * len(self.seeds):
            raise ValueError("two cells have one name: rename a system")
        tasks = {task.name: task for system in self.systems for task in self.config(system).model.tasks}
        for evaluation in self.evaluations:
            if unknown := [name for name in evaluation.tasks if name not in tasks]:
                raise ValueError(f"evaluation {evaluation.name}: no system has a task {unknown[0]!r}")
            check_label_map(evaluation.label_map, list(tasks.values()))
        for claim in self.claims:
            for contrast in claim.comparisons:
                self._check_contrast(claim, contrast)

    def _check_contrast(self, claim: Claim, contrast: Contrast):
        where = f"claim {claim.name}"
        for name in (contrast.system, contrast.baseline):
            if contrast.task not in [task.name for task in self.config(self.system(name, where)).model.tasks]:
                raise ValueError(f"{where}: system {name} has no task {contrast.task!r}")
        self.resolved(contrast)

    def system(self, name: str, where: str = "study") -> System:
        for system in self.systems:
            if system.name == name:
                return system
        raise ValueError(f"{where}: system {name!r} is unknown; there are {', '.join(s.name for s in self.systems)}")

    def resolved(self, contrast: Contrast) -> Contrast:
        """With metric and evaluation filled in. Raises ValueError where they cannot be told."""
        names = [e.name for e in self.evaluations if contrast.task in e.tasks]
        chosen = contrast.evaluation or (names[0] if len(names) == 1 else "")
        if chosen not in names:
            raise ValueError(f"evaluation {contrast.evaluation!r} of task {contrast.task}: name one of {names}")
        task = self.config(self.system(contrast.system)).model.task(contrast.task)
        metric = contrast.metric or ("wer" if task.is_transcription else "ua")
        if (metric == "wer") != task.is_transcription:
            raise ValueError(f"metric {metric!r} does not fit task {task.name}, which is a {task.kind}")
        return replace(contrast, evaluation=chosen, metric=metric)

    def config(self, system: System, seed: int = 0) -> Config:
        """The whole config of one cell. Raises ValueError as `config.load_yaml` does."""
        values = copy.deepcopy(self.base)
        for key, value in {**self.set, **system.set, SEED_FIELD: seed}.items():
            assign(values, key, value)
        if system.tasks:
            _keep_tasks(values, system)
        return from_dict(Config, values)

    def cells(self) -> list[Cell]:
        """Seed by seed, so that every system has an answer before any has two."""
        return [self.cell(system, seed) for seed in self.seeds for system in self.systems]

    def cell(self, system: System, seed: int) -> Cell:
        config = self.config(system, seed)
        names = [task.name for task in config.model.tasks]
        scored = [e for e in self.evaluations if set(e.tasks) & set(names)]
        if not scored:
            raise ValueError(f"system {system.name}: no evaluation scores any of its tasks ({', '.join(names)})")
        # Words are of no consequence, nor is where states are kept; that they are (in float16) is.
        data = replace(config.data, state_cache="kept" if config.data.state_cache else "", state_cache_gigabytes=20.0)
        numbers = replace(config, data=data, title="", description="")
        values = {"config": stated(numbers), "evaluations": [stated(e) for e in scored]}
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return Cell(system, seed, config, hashlib.sha256(text.encode()).hexdigest()[:16])


def stated(value):
    """As `fields.to_dict`, without what has its default: a field that a later version adds changes no key."""
    if is_dataclass(value):
        return {f.name: stated(v) for f in fields(value) if (v := getattr(value, f.name)) != _default(f)}
    if isinstance(value, (tuple, list)):
        return [stated(v) for v in value]
    return value


def _default(field_):
    return field_.default_factory() if field_.default_factory is not MISSING else field_.default


def _keep_tasks(values: dict, system: System):
    """Drop the other tasks from plain config values, with their corpora, batch sizes and initial logits."""
    entries = values.get("model", {}).get("tasks", ["asr", "ser"])
    names = [entry if isinstance(entry, str) else entry.get("name") for entry in entries]
    if unknown := [name for name in system.tasks if name not in names]:
        raise ValueError(f"system {system.name}: task {unknown[0]!r} is none of the base config's ({', '.join(names)})")
    model, data, training = (values.setdefault(part, {}) for part in ("model", "data", "training"))
    model["tasks"] = [entry for entry, name in zip(entries, names, strict=True) if name in system.tasks]
    for role in ("train", "dev"):
        if role in data:
            data[role] = [corpus for corpus in data[role] if corpus.get("task") in system.tasks]
    if "batch_size" in training:
        kept = (*system.tasks, "default")
        training["batch_size"] = {task: size for task, size in training["batch_size"].items() if task in kept}
    for part in ("gate", "lm"):
        chosen = model.get(part, {}).get("last_logit_tasks")
        if chosen:
            kept = [name for name in chosen if name in system.tasks]
            model[part] |= {"last_logit_tasks": kept} if kept else {"last_logit_tasks": [], "last_logit": 0.0}


def load_study(path: str | Path) -> Study:
    """Read a study file. `base` names a config file beside it, or holds the config itself. Raises ValueError."""
    path = Path(path)
    values = read_values(path)
    if isinstance(base := values.get("base"), str):
        values["base"] = read_values(path.parent / base)
    try:
        return from_dict(Study, values)
    except ValueError as error:
        raise ValueError(f"study {path.name}: {error}") from None


def study_text(study: Study) -> str:
    """The study with its base config inside, as YAML: what a study folder keeps."""
    return yaml.safe_dump(to_dict(study), sort_keys=False, allow_unicode=True, width=120)
