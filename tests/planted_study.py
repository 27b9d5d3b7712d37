"""A small study with a planted answer: of two ways to train on tones that tell an emotion, only one learns."""

import json
from pathlib import Path

import yaml
from factories import tiny_config, tiny_corpus

from harmonifuse_core.config import CorpusConfig
from harmonifuse_core.fields import to_dict
from harmonifuse_core.tasks import SER

STEPS = 24


def planted_study(folder: Path, **changes) -> Path:
    """`learns` against `idle`, which stays at its initial weights, with seeds 0 to 2; `changes` replace fields."""
    folder.mkdir(parents=True, exist_ok=True)
    _, ser = tiny_corpus(folder / "corpus", n=16)
    base = tiny_config(
        "whisper", model__tasks=(SER,), data__train=(CorpusConfig(str(ser), "ser"),), training__steps=STEPS,
        training__learning_rate=1.2e-2, training__log_every=4, model__lm__speech_token=True,
        training__batch_size={"ser": 16},
    )  # fmt: skip
    values = {
        "name": "planted",
        "title": "A planted study",
        "question": "Does training help?",
        "base": to_dict(base),
        "seeds": [0, 1, 2],
        "systems": [
            {"name": "learns", "note": "as it should"},
            {"name": "idle", "set": {"training.learning_rate": 0.0, "training.gate_rate": 0.0}},
        ],
        "evaluations": [{"name": "tones", "tasks": ["ser"], "manifest": str(ser)}],
        "claims": [
            {"name": "training", "text": "Training beats none.", "source": "a test",
             "comparisons": [{"system": "learns", "baseline": "idle", "task": "ser"}]},
        ],
    }  # fmt: skip
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return path


def table_of(folder: Path) -> dict:
    return json.loads((folder / "table.json").read_text())
