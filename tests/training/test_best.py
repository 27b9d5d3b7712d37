"""Which scores are the best, what is kept of them, and when training stops for want of better ones."""

import json

import pytest
import torch
from factories import tiny_config, tiny_corpus

from harmonifuse_core import load
from harmonifuse_core.config import CorpusConfig
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.tasks import ASR, SER
from harmonifuse_core.training import loop
from harmonifuse_core.training.best import Best, task_errors
from harmonifuse_core.training.loop import Trainer


def test_errors_of_words_and_classes_are_averaged():
    scores = {"asr.wer": 0.2, "asr.one.wer": 0.9, "ser.ua": 0.6, "ser.two.ua": 0.1}
    assert task_errors(scores, (ASR, SER)) == pytest.approx({"asr": 0.2, "ser": 0.4, "joint": 0.3})
    assert task_errors({"ser.ua": 0.6}, (ASR, SER)) == pytest.approx({"ser": 0.4, "joint": 0.4})


def test_each_task_and_both_together_have_a_best_of_their_own():
    best = Best((ASR, SER))
    assert best.update({"asr.wer": 0.5, "ser.ua": 0.5}) == ["asr", "ser", "joint"]
    assert best.update({"asr.wer": 0.4, "ser.ua": 0.3}) == ["asr"] and best.stale == 1
    assert best.update({"asr.wer": 0.5, "ser.ua": 0.5}) == [] and best.stale == 2
    assert best.update({"asr.wer": 0.45, "ser.ua": 0.55}) == ["ser", "joint"] and best.stale == 0
    again = Best((ASR, SER), [{"asr.wer": 0.5, "ser.ua": 0.5}, {"asr.wer": 0.4, "ser.ua": 0.3}])
    assert (again.scores, again.stale) == (pytest.approx({"asr": 0.4, "ser": 0.5, "joint": 0.5}), 1)


def test_the_best_models_are_kept_exported_and_training_stops(tmp_path, monkeypatch):
    asr, ser = tiny_corpus(tmp_path / "corpus")
    corpora = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser"))
    config = tiny_config(
        "whisper", data__train=corpora, data__dev=corpora, training__steps=12, training__eval_every=1,
        training__keep_best=True, training__patience=2, training__export="best", training__average_decay=0.5,
    )  # fmt: skip
    wer, ua, seen = [0.5, 0.4, 0.5, 0.6, 0.1], [0.5, 0.6, 0.7, 0.5, 1.0], []

    def scripted(model, *_):
        seen.append({name: p.detach().half().float().clone() for name, p in model.named_parameters()})
        return {"asr.wer": wer[len(seen) - 1], "ser.ua": ua[len(seen) - 1]}

    monkeypatch.setattr(loop, "dev_scores", scripted)
    torch.manual_seed(0)
    run = RunFolder(tmp_path / "run")
    final = Trainer(config, build_model(config.model), run).run()
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]  # joint: 0.5, 0.4, 0.4, 0.55
    for name, place in (("asr", 1), ("ser", 2), ("joint", 1)):
        kept = dict(load(run.best(name).path).named_parameters())
        assert all(torch.equal(kept[n], value) for n, value in seen[place].items()), name
    assert all(torch.equal(p, seen[1][n]) for n, p in final.named_parameters())
    resumed = Trainer(config, build_model(config.model), run, resume=True)
    assert resumed.best.stale == 2
    resumed.run()
    assert len(seen) == 4  # it stays stopped


def test_what_goes_by_dev_scores_needs_some():
    with pytest.raises(ValueError, match="go by dev scores: set training.eval_every"):
        tiny_config(training__patience=1)
    with pytest.raises(ValueError, match="name corpora in data.dev"):
        tiny_config(training__patience=1, training__eval_every=1)
    with pytest.raises(ValueError, match="export: best needs training.keep_best"):
        tiny_config(training__export="best")
