"""What is logged of alpha: one record an utterance, task and stage; Parquet writer and reader; statistics.

    with RoutingWriter(run.part("routing", "dev.parquet")) as writer:
        writer.write(records_of(utterance, answers, references))
    frame = read_routing(run.part("routing", "dev.parquet"), filters={"stage": "encoder"})
    routing_statistics(frame).as_dict()

Shapes: `L1` states of a stage, layer 0 is the state before the first block. Entropies and divergences are in bits.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from harmonifuse_core.metrics import WordErrors

STAGES = ("encoder", "lm")
ROWS_IN_MEMORY = 4096


class RoutingError(ValueError):
    """Routing cannot be written or read; the message names the file or value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class RoutingRecord:
    """Weights of one fusion (`stage`) for one utterance and task; None where a value does not apply or is not known.

    Args:
        alpha, bias, score, share: (L1,) floats; alpha = softmax(bias + score), share = alpha_l * norm(h_l), normalised.
            The LM's are of the answer position (classes) or the mean over the tokens (text).
        prediction, reference: transcript, or class of the model.
        error: word errors / max(1, reference words), or 0 / 1 for classes; None without a reference.
        errors, reference_words: the counts behind it, for rates of groups (text only).
        probability: of the predicted class; for text the geometric mean of its tokens' probabilities.
        label: the class by the manifest's own name; `reference` is None where the model does not know it.
        duration: seconds. audio: path as in the manifest, never absolute.
        truncated: the text stopped at the length limit or at a repetition.
    """

    utterance: str
    task: str
    prompt: str
    stage: str
    alpha: tuple[float, ...]
    bias: tuple[float, ...]
    score: tuple[float, ...]
    share: tuple[float, ...]
    prediction: str
    reference: str | None = None
    error: float | None = None
    errors: int | None = None
    reference_words: int | None = None
    probability: float | None = None
    speaker: str | None = None
    gender: str | None = None
    age: str | None = None
    language: str | None = None
    dataset: str | None = None
    split: str | None = None
    intensity: str | None = None
    label: str | None = None
    duration: float | None = None
    audio: str | None = None
    truncated: bool = False


_TYPES = {
    **dict.fromkeys(("alpha", "bias", "score", "share"), pa.list_(pa.float32())),
    **dict.fromkeys(("error", "probability", "duration"), pa.float64()),
    **dict.fromkeys(("errors", "reference_words"), pa.int32()),
    "truncated": pa.bool_(),
}
SCHEMA = pa.schema([(field.name, _TYPES.get(field.name, pa.string())) for field in fields(RoutingRecord)])
METADATA = ("speaker", "gender", "age", "language", "dataset", "split", "intensity")


@dataclass(frozen=True)
class Reference:
    """What an answer is compared with. value: transcript or model class; counts: its word errors (text only);
    label: the manifest's own name of the class."""

    value: str | None = None
    counts: WordErrors | None = None
    label: str | None = None


def records_of(
    utterance, answers: Mapping, references: Mapping[str, Reference] | None = None, *, audio="", seconds=0.0
) -> list[RoutingRecord]:
    """Two records (encoder, lm) for each task of one utterance's answers.

    utterance: a manifest's `Utterance`. answers: {task: HarmoniFuseOutput}. references: {task: Reference}. audio: path
    to log, of which only the name is kept where it is absolute. seconds: decoded length, else the manifest's.
    """
    shown = Path(audio).name if Path(audio).is_absolute() else audio
    common = {name: utterance.field(name) for name in METADATA}
    common |= {"utterance": utterance.id, "duration": seconds or utterance.duration or None, "audio": shown or None}
    records = []
    for task, answer in answers.items():
        reference = (references or {}).get(task) or Reference()
        scored = _scored(answer, reference) | common | {"prompt": answer.prompt, "truncated": answer.truncated}
        for stage, weights in zip(STAGES, (answer.encoder, answer.lm), strict=True):
            parts = {n: tuple(map(float, getattr(weights, n))) for n in ("alpha", "bias", "score", "share")}
            records.append(RoutingRecord(task=task, stage=stage, label=reference.label, **scored, **parts))
    return records


def _scored(answer, reference: Reference) -> dict:
    if answer.text is None:
        error = None if reference.value is None else float(answer.label != reference.value)
        probability = answer.probabilities[answer.label]
        return {"prediction": answer.label, "reference": reference.value, "error": error, "probability": probability}
    probability = math.exp(float(answer.token_logprobs.mean())) if len(answer.token_logprobs) else None
    scored = {"prediction": answer.text, "reference": reference.value, "probability": probability}
    if counts := reference.counts:
        errors, words = counts.word_errors, counts.reference_words
        scored |= {"error": errors / max(1, words), "errors": errors, "reference_words": words}
    return scored


# --- files ---


def _temporary(path: Path) -> Path:
    """Where a file is written until it is whole: beside `path`, so that the last step is a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` at the end; an error leaves what was there before."""
    temporary = _temporary(Path(path))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def shard_path(folder: str | Path, index: int, suffix: str = ".parquet") -> Path:
    """File of one shard: `read_routing(folder)` reads them all as one."""
    return Path(folder) / f"part-{index:05d}{suffix}"


class RoutingWriter:
    """Records to one Parquet file, in row groups, so that memory stays flat; the file appears whole, on `close`.

    As a context manager it closes at the end and discards on an error. One of many: `RoutingWriter(shard_path(...))`.
    """

    def __init__(self, path: str | Path, rows_in_memory: int = ROWS_IN_MEMORY):
        self.path, self.rows_in_memory, self.rows = Path(path), rows_in_memory, []
        if self.path.suffix != ".parquet":
            raise RoutingError(f"routing is written to a .parquet file, not {self.path.name!r}")
        self._part = _temporary(self.path)
        self._parquet = pq.ParquetWriter(self._part, SCHEMA, compression="zstd")

    def write(self, records: Iterable[RoutingRecord]):
        self.rows += records
        if len(self.rows) >= self.rows_in_memory:
            self._flush()

    def _flush(self):
        if self.rows:
            columns = {name: [getattr(record, name) for record in self.rows] for name in SCHEMA.names}
            self._parquet.write_table(pa.table(columns, schema=SCHEMA))
            self.rows = []

    def close(self):
        """Write what is left and put the file in its place."""
        self._flush()
        self._parquet.close()
        self._part.replace(self.path)

    def discard(self):
        """Leave no file, and what stood at `path` before as it was."""
        self._parquet.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close() if kind is None else self.discard()


def read_routing(
    path: str | Path, columns: Sequence[str] | None = None, filters: Mapping[str, object] | None = None
) -> pd.DataFrame:
    """Rows of a routing file, or of all `part-*.parquet` of a folder, as a frame.

    columns: which (all when None). filters: {column: value or list of values}; both are pushed down to the file.
    alpha, bias, score and share come as (L1,) float32 arrays. Raises RoutingError.
    """
    path = Path(path)
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise RoutingError(f"{path} is missing: `python -m harmonifuse_core.evaluate ... --save NAME` writes routing")
    for name in [*(columns or ()), *(filters or {})]:
        if name not in SCHEMA.names:
            raise RoutingError(f"routing has no column {name!r}; it has {', '.join(SCHEMA.names)}")
    chosen = None
    for name, wanted in (filters or {}).items():
        values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
        part = ds.field(name).isin(pa.array(values, SCHEMA.field(name).type))
        chosen = part if chosen is None else chosen & part
    try:
        for file in files:
            if lacking := {"utterance", "task", "stage", "alpha"} - set(pq.read_schema(file).names):
                raise RoutingError(f"{file} is no routing file: it has no column {min(lacking)!r}")
        rows = ds.dataset(files, schema=SCHEMA, format="parquet")
        return rows.to_table(columns=columns and list(columns), filter=chosen).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise RoutingError(f"{path} is damaged or no routing file ({error}): make it again") from error


# --- statistics ---


@dataclass(frozen=True)
class StageStatistics:
    """One task's weights at one stage over N utterances.

    mean, std: (L1,) over utterances. entropy: mean over utterances, bits, at most log2(L1). centre, centre_std: centre
    of mass over depth, in layers (0 to L). spread: entropy of the mean minus mean entropy, bits: the Jensen-Shannon
    divergence of the utterances among themselves, 0 where all have the same weights.
    """

    task: str
    stage: str
    utterances: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    entropy: float
    centre: float
    centre_std: float
    spread: float


@dataclass(frozen=True)
class TaskDivergence:
    """Jensen-Shannon divergence (bits, 0 to 1) of two tasks' weights on the same utterances: mean and std over them."""

    stage: str
    tasks: tuple[str, str]
    utterances: int
    mean: float
    std: float


@dataclass(frozen=True)
class RoutingStatistics:
    stages: tuple[StageStatistics, ...]
    divergences: tuple[TaskDivergence, ...]

    def as_dict(self) -> dict:
        return asdict(self)


def entropy_bits(weights: np.ndarray) -> np.ndarray:
    """(..., L1) distributions -> (...) bits; 0 log 0 is 0."""
    logarithm = np.log2(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logarithm).sum(-1)


def jensen_shannon(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., L1) and (..., L1) -> (...) bits: 0 for equal weights, 1 where no layer is shared (Lin 1991)."""
    value = entropy_bits((a + b) / 2) - (entropy_bits(a) + entropy_bits(b)) / 2
    return np.clip(value, 0.0, 1.0)  # rounding passes the ends by 1e-16


def weight_matrix(frame: pd.DataFrame, weights: str = "alpha") -> np.ndarray:
    """(N, L1) float64 of the frame's rows. Raises RoutingError where rows differ in their number of layers."""
    if sizes := sorted({len(row) for row in frame[weights]}):
        if len(sizes) > 1:
            raise RoutingError(f"rows have {sizes} layers: keep to one stage and one run")
        return np.stack(list(frame[weights])).astype(np.float64)
    raise RoutingError("0 rows of routing: loosen the filter")


def utterance_statistics(frame: pd.DataFrame, weights: str = "alpha") -> pd.DataFrame:
    """One row an utterance, task and stage: `entropy` (bits) and `centre` of mass over depth (layers, 0 to L)."""
    parts = []
    for (task, stage), rows in frame.groupby(["task", "stage"], sort=True):
        matrix = weight_matrix(rows, weights)
        values = {"entropy": entropy_bits(matrix), "centre": matrix @ np.arange(matrix.shape[1])}
        parts.append(pd.DataFrame({"utterance": rows["utterance"].to_numpy(), "task": task, "stage": stage} | values))
    if not parts:
        raise RoutingError("0 rows of routing: loosen the filter")
    return pd.concat(parts, ignore_index=True)


def task_divergence(frame: pd.DataFrame, weights: str = "alpha") -> pd.DataFrame:
    """One row an utterance, stage and pair of tasks that both answered it: `divergence` in bits.

    Of several prompts for one task the first row counts.
    """
    names, parts = ["utterance", "stage", "task_a", "task_b", "divergence"], []
    for stage, rows in frame.groupby("stage", sort=True):
        tables = {t: g.drop_duplicates("utterance").set_index("utterance") for t, g in rows.groupby("task", sort=True)}
        for a, b in combinations(tables, 2):
            both = tables[a].index.intersection(tables[b].index)
            if len(both):
                pair = (weight_matrix(tables[task].loc[both], weights) for task in (a, b))
                columns = (both, stage, a, b, jensen_shannon(*pair))
                parts.append(pd.DataFrame(dict(zip(names, columns, strict=True))))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def routing_statistics(frame: pd.DataFrame, weights: str = "alpha") -> RoutingStatistics:
    """Statistics of every task and stage in the frame and divergences between tasks; `weights` alpha or share."""
    single, stages = utterance_statistics(frame, weights), []
    for (task, stage), rows in frame.groupby(["task", "stage"], sort=True):
        matrix = weight_matrix(rows, weights)
        own = single[(single["task"] == task) & (single["stage"] == stage)]
        mean, entropy = matrix.mean(0), float(own["entropy"].mean())
        stages.append(
            StageStatistics(
                task,
                stage,
                len(matrix),
                tuple(mean.tolist()),
                tuple(matrix.std(0).tolist()),
                entropy,
                float(own["centre"].mean()),
                float(own["centre"].std(ddof=0)),
                max(0.0, float(entropy_bits(mean)) - entropy),
            )  # fmt: skip
        )
    divergences = tuple(
        TaskDivergence(
            stage, (a, b), len(rows), float(rows["divergence"].mean()), float(rows["divergence"].std(ddof=0))
        )
        for (stage, a, b), rows in task_divergence(frame, weights).groupby(["stage", "task_a", "task_b"], sort=True)
    )
    return RoutingStatistics(tuple(stages), divergences)
