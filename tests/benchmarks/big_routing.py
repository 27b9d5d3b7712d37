"""A routing file of any size, for benchmarks of the dashboard only: random weights, written column by column.

    python tests/benchmarks/big_routing.py FOLDER [UTTERANCES] [LAYERS]

The weights are drawn, they come from no model: nothing that they show means anything.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonifuse_core.routing import SCHEMA
from harmonifuse_core.tasks import EMOTIONS

CHUNK = 20_000


def write_big_routing(path: Path, utterances: int, layers: int = 13, seed: int = 0) -> Path:
    """Two tasks and two stages for each utterance, so four rows each; rows of one utterance stand together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, utterances, CHUNK):
            numbers = np.arange(start, min(start + CHUNK, utterances))
            writer.write_table(_table(np.repeat(numbers, 4), layers, draw))
    return path


def _table(number: np.ndarray, layers: int, draw: np.random.Generator) -> pa.Table:
    count = len(number)
    text, lm = np.arange(count) % 4 < 2, np.arange(count) % 2 == 1
    logits = draw.normal(0, 0.4, (count, layers)) + np.where(text, 1.5, -0.5)[:, None] * np.linspace(-1, 1, layers)
    alpha = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    emotion = np.array(EMOTIONS)[draw.integers(0, 8, count)]
    heard = np.where(draw.random(count) < 0.7, emotion, "neutral")
    sentence = np.array([f"utterance {n} says some words of a usual length here" for n in number])
    errors = draw.integers(0, 4, count)
    lists = {"alpha": alpha, "share": alpha[:, ::-1], "bias": alpha * 0, "score": logits.astype(np.float32)}
    offsets = np.arange(0, count * layers + 1, layers, dtype=np.int32)
    columns = {name: pa.ListArray.from_arrays(offsets, values.ravel()) for name, values in lists.items()}
    columns |= {
        "utterance": [f"big-{n:08d}" for n in number], "task": np.where(text, "asr", "ser"),
        "prompt": np.where(text, "Transcribe the speech.", "Recognize the speaker's emotion."),
        "stage": np.where(lm, "lm", "encoder"), "prediction": np.where(text, sentence, heard),
        "reference": np.where(text, sentence, emotion), "error": np.where(text, errors / 9, heard != emotion),
        "errors": pa.array(errors, mask=~text), "reference_words": pa.array(np.full(count, 9), mask=~text),
        "probability": draw.random(count), "speaker": [f"speaker-{n % 997}" for n in number],
        "gender": np.where(number % 2, "f", "m"), "dataset": np.char.add("corpus-", (number % 5).astype(str)),
        "split": np.where(number % 10, "train", "test"), "label": pa.array(emotion, mask=text),
        "duration": draw.uniform(1, 12, count), "audio": [f"wav/{n}.flac" for n in number],
        "truncated": np.zeros(count, bool),
    }  # fmt: skip
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name)
        arrays.append(pa.nulls(count, field.type) if values is None else pa.array(values).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


if __name__ == "__main__":
    target = Path(sys.argv[1]) / "big.parquet"
    sizes = [int(value) for value in sys.argv[2:4]]
    write_big_routing(target, *(sizes or [100_000]))
