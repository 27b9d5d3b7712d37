"""The run folder: the only code that knows the layout below `runs/`.

config.yaml  environment.json  README.md (model card)  metrics.jsonl  train.log
model/       encoder.json lm.json tokenizer.json weights.json weights-K.safetensors (float16)
evaluation/  NAME.json                 routing/  NAME.parquet
analysis/    NAME.json NAME.parquet    probes/   NAME.json NAME.parquet
checkpoints/ step-N/ best-NAME/ (not committed)     tensorboard/ (not committed)

and of the study folder, which holds many small runs without their weights:
study.yaml  environment.json  README.md  table.json  cells.parquet  utterances.parquet  alphas.parquet
cells/       CELL.json CELL.parquet (until all are there)    models/ CELL/ (a run folder, if asked for)
scratch/     CELL/ (of the cell that is trained, not committed)
"""

import hashlib
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import AutoConfig

from harmonifuse_core.allocation import keep_freed_memory
from harmonifuse_core.config import Config, load_yaml, save_yaml
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.model.tokenizer import load_tokenizer
from harmonifuse_core.model.weights import load_shards, save_shards

PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "librosa",
    "soundfile",
    "soxr",
    "jiwer",
)


class RunError(ValueError):
    """A run folder is missing, incomplete or damaged; the message says which part and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    name = property(lambda self: self.path.name)
    config_file = property(lambda self: self.path / "config.yaml")
    environment_file = property(lambda self: self.path / "environment.json")
    card_file = property(lambda self: self.path / "README.md")
    metrics_file = property(lambda self: self.path / "metrics.jsonl")
    log_file = property(lambda self: self.path / "train.log")
    model = property(lambda self: self.path / "model")
    weights_index = property(lambda self: self.path / "model" / "weights.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    trackers = property(lambda self: self.path / "tensorboard")

    def part(self, kind: str, name: str = "") -> Path:
        """`kind` is evaluation, routing, analysis or probes; `name` a plain file name inside it."""
        if kind not in ("evaluation", "routing", "analysis", "probes"):
            raise RunError(f"a run folder has no part {kind!r}")
        if name and (Path(name).name != name or name.startswith(".")):
            raise RunError(f"{name!r} is not a plain file name")
        return self.path / kind / name if name else self.path / kind

    def best(self, name: str) -> "RunFolder":
        """The model with the best dev score of task `name`, or `joint`: a run folder inside of this one."""
        return RunFolder(self.checkpoints / f"best-{name}")

    def config(self) -> Config:
        if not self.config_file.is_file():
            raise RunError(f"{self.path} is not a run folder: it has no config.yaml")
        return load_yaml(self.config_file)

    def weights_digest(self) -> str:
        """Twelve hex digits that tell these weights from others. Raises RunError where there are none."""
        if not self.has_model():
            raise RunError(f"{self.path} has no model")
        digest = hashlib.sha256()
        for file in sorted(self.model.glob("weights-*.safetensors")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:12]

    def has_model(self) -> bool:
        return self.weights_index.is_file()

    def names(self, kind: str, suffix: str) -> list[str]:
        """File names (with suffix) present in a part."""
        return sorted(p.name for p in self.part(kind).glob(f"*{suffix}"))

    def read_json(self, kind: str, name: str) -> dict:
        try:
            return json.loads(self.part(kind, name).read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {kind}/{name}") from None
        except json.JSONDecodeError as error:
            raise RunError(f"{self.path}/{kind}/{name} is damaged ({error}); make it again") from None

    def metrics(self) -> list[dict]:
        """Rows of metrics.jsonl; a last line that a kill cut off is passed over."""
        rows = []
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.is_file() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows


@dataclass(frozen=True)
class StudyFolder:
    """Paths of one study."""

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    name = property(lambda self: self.path.name)
    study_file = property(lambda self: self.path / "study.yaml")
    environment_file = property(lambda self: self.path / "environment.json")
    card_file = property(lambda self: self.path / "README.md")
    table_file = property(lambda self: self.path / "table.json")
    parts = property(lambda self: self.path / "cells")

    def rows(self, kind: str) -> Path:
        """`kind` is cells, utterances or alphas."""
        if kind not in ("cells", "utterances", "alphas"):
            raise RunError(f"a study folder has no rows of {kind!r}")
        return self.path / f"{kind}.parquet"

    def part(self, cell: str, suffix: str) -> Path:
        """File of one cell; its JSON is written last, so a cell is there when that is."""
        return self.parts / f"{cell}{suffix}"

    def part_names(self) -> list[str]:
        """Cells that are there on their own."""
        return sorted(p.name.removesuffix(".json") for p in self.parts.glob("*.json"))

    def scratch(self, cell: str = "") -> Path:
        return self.path / "scratch" / cell

    def model(self, cell: str) -> RunFolder:
        return RunFolder(self.path / "models" / cell)


def write_text(path: Path, text: str):
    """Write a file so that it is old, or new, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value):
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def find_runs(root: str | Path = "runs") -> list[RunFolder]:
    """Folders below `root` that hold a config.yaml, by name."""
    return [RunFolder(p) for p in sorted(Path(root).glob("*")) if p.is_dir() and (p / "config.yaml").is_file()]


def find_studies(root: str | Path = "runs") -> list[StudyFolder]:
    """Folders below `root` that hold a study.yaml, by name."""
    return [StudyFolder(p) for p in sorted(Path(root).glob("*")) if p.is_dir() and (p / "study.yaml").is_file()]


def jobs_folder(root: str | Path = "runs") -> Path:
    """Where the dashboard keeps what it started beside itself; neither a run nor a study, and not committed."""
    return Path(root) / ".jobs"


def open_run(name: str, root: str | Path = "runs") -> RunFolder:
    """A run by plain name below `root`; a name that would leave `root` is refused."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise RunError(f"run {name!r} is not a plain folder name below {root}")
    run = RunFolder(Path(root) / name)
    if not run.config_file.is_file():
        known = ", ".join(r.name for r in find_runs(root)) or "none"
        raise RunError(f"run {name!r} does not exist below {root}; there are: {known}")
    return run


def environment() -> dict:
    """Versions and machine, for the record."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(), "platform": platform.platform(), "processor": platform.machine(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "packages": versions,
    }  # fmt: skip


def save_model(model: HarmoniFuse, run: RunFolder, config: Config):
    """Write config, Hugging Face configs, tokenizer, float16 weights; an older model stays until the new is whole."""
    partial, old = run.path / "model.part", run.path / "model.old"
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    model.encoder.hf_config.to_json_file(partial / "encoder.json")
    model.lm.hf_config.to_json_file(partial / "lm.json")
    model.tokenizer.save(partial)
    save_shards(model, partial)
    temporary = run.path / ".config.yaml.part"
    save_yaml(config, temporary)
    temporary.replace(run.config_file)  # late, so that a stop while weights are written leaves the old pair
    if run.model.exists():
        run.model.rename(old)
    partial.rename(run.model)
    shutil.rmtree(old, ignore_errors=True)


def refuse_existing(output: RunFolder):
    """Raise RunError where a command would write a new run over something."""
    if output.path.exists():
        raise RunError(f"{output.path} exists; name a new folder")


def save_derived(model: HarmoniFuse, run: RunFolder, output: RunFolder, config: Config, made: dict):
    """Write a run that was made from `run` without training: its curves and log are those of `run`, `made` says how.

    What `run` itself was made of stays under `made_from`.
    """
    output.path.mkdir(parents=True)
    for file in (run.metrics_file, run.log_file):
        if file.is_file():
            shutil.copy(file, output.path / file.name)
    now = environment()
    if run.environment_file.is_file():
        earlier = json.loads(run.environment_file.read_text())
        made = made | {"made_from": {"run": run.name} | {k: v for k, v in earlier.items() if k not in now}}
    write_json(output.environment_file, now | made)
    save_model(model, output, config)


def load(path: str | Path, device: str | torch.device = "cpu") -> HarmoniFuse:
    """The model of a run folder, in eval mode, float32, exactly the weights that were saved. Fetches nothing."""
    run = path if isinstance(path, RunFolder) else RunFolder(Path(path))
    config = run.config()
    if not run.has_model():
        raise RunError(
            f"{run.path} has no model: train it with `python -m harmonifuse_core.train --config {run.config_file}`"
        )
    tokenizer = load_tokenizer(str(run.model))
    encoder_hf = AutoConfig.from_pretrained(run.model / "encoder.json")
    lm_hf = AutoConfig.from_pretrained(run.model / "lm.json")
    model = build_model(config.model, encoder_hf=encoder_hf, lm_hf=lm_hf, tokenizer=tokenizer)
    load_shards(model, run.model)
    keep_freed_memory()
    return model.to(device).eval()
