"""Curves leave the loop as plain numbers, to trackers that are installed, and to none that are not."""

import pytest
from factories import tiny_config, tiny_corpus

from harmonifuse_core.config import CorpusConfig, save_yaml
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.train import main
from harmonifuse_core.training.tracking import Trackers, scalars


def test_every_number_of_a_row_has_a_path():
    row = {"step": 3, "gradient_norm": 2, "tasks": {"asr": {"loss": 0.5, "lm_alpha": [0.25, 0.75]}}}
    assert dict(scalars(row)) == {
        "gradient_norm": 2.0, "tasks/asr/loss": 0.5, "tasks/asr/lm_alpha/00": 0.25, "tasks/asr/lm_alpha/01": 0.75
    }  # fmt: skip


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asr, _ = tiny_corpus(tmp_path / "corpus")
    config = tiny_config("whisper", data__train=(CorpusConfig(str(asr), "asr"),), training__steps=2)
    save_yaml(config, tmp_path / "c.yaml")
    run = RunFolder(tmp_path / "run")
    assert main(["--config", str(tmp_path / "c.yaml"), "--run", str(run.path), "--device", "cpu"]) == 0
    (events,) = run.trackers.rglob("events*")
    found = EventAccumulator(str(events))
    found.Reload()
    curve = found.Scalars("tasks/asr/loss")
    assert [point.step for point in curve] == [1, 2]
    assert [p.value for p in curve] == pytest.approx([row["tasks"]["asr"]["loss"] for row in run.metrics()], rel=1e-5)


def test_a_tracker_that_is_not_there_is_refused(tmp_path):
    pytest.importorskip("accelerate")
    with pytest.raises(ValueError, match="--trackers nonsense"):
        Trackers("nonsense", RunFolder(tmp_path), cpu=True)
