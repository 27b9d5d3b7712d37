"""A cell is scored as `evaluate` scores a run, whether its speech was encoded before or not."""

import numpy as np
import pytest
from factories import tiny_config, tiny_corpus, tiny_model, write_manifest

from harmonifuse_core.fields import to_dict
from harmonifuse_core.inference.evaluation import evaluate
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.studies.plan import EvaluationSet, Study, System
from harmonifuse_core.studies.scoring import Listener, check_labels, fingerprint, score_model


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    asr, ser = tiny_corpus(tmp_path_factory.mktemp("corpus"))
    return EvaluationSet("texts", ("asr",), str(asr)), EvaluationSet("tones", ("ser",), str(ser))


def test_scores_are_those_of_evaluate(sets):
    model = tiny_model("whisper")
    scored = score_model(model, sets, Listener())
    texts = [row for row in scored.utterances if row["evaluation"] == "texts"]
    tones = [row for row in scored.utterances if row["evaluation"] == "tones"]
    reports = [evaluate(model, Selection(s.manifest).sources(), resamples=1).scores for s in sets]
    assert sum(r["errors"] for r in texts) / sum(r["words"] for r in texts) == pytest.approx(reports[0]["asr"].wer)
    assert np.mean([r["correct"] for r in tones]) == reports[1]["ser"].wa and {r["task"] for r in tones} == {"ser"}
    assert {(r["evaluation"], r["task"], r["stage"]) for r in scored.alphas} == {
        ("texts", "asr", "encoder"), ("texts", "asr", "lm"), ("tones", "ser", "encoder"), ("tones", "ser", "lm"),
    }  # fmt: skip
    for row in scored.alphas:
        assert len(row["alpha"]) == 3 and sum(row["alpha"]) == pytest.approx(1, abs=1e-5) and row["utterances"] == 8


def test_speech_is_encoded_once_for_one_frozen_encoder(sets, monkeypatch):
    model, listener = tiny_model("whisper"), Listener()
    first, passes = score_model(model, sets, listener), []
    original = type(model.encoder).forward
    monkeypatch.setattr(type(model.encoder), "forward", lambda *a, **k: passes.append(1) or original(*a, **k))
    assert score_model(model, sets, listener) == first and passes == []
    other = tiny_model("whisper", seed=1)
    assert fingerprint(other) != fingerprint(model)
    score_model(other, sets, listener)
    assert passes, "another encoder hears for itself"
    room = Listener(megabytes=0)
    assert score_model(model, sets, room) == first and room.kept == {}


def test_an_encoder_that_learns_is_never_remembered(sets):
    model, listener = tiny_model("whisper", model__encoder__finetune="top-1"), Listener()
    assert fingerprint(model) == "" and score_model(model, sets[:1], listener).utterances and listener.kept == {}


def test_unusable_recordings_are_named(sets, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF....")
    rows = [{"audio_filepath": "bad.wav", "text": "go"}]
    broken = EvaluationSet("broken", ("asr",), str(write_manifest(tmp_path, rows)))
    model = tiny_model("whisper")
    with pytest.raises(ValueError, match="evaluation broken: no answer for task asr: .*bad.wav"):
        score_model(model, [broken], Listener())


def test_an_evaluation_without_labels_is_refused_before_anything_is_trained(sets):
    system = System("a")
    check_labels(Study("s", to_dict(tiny_config()), (system,), sets[:1]))
    with pytest.raises(ValueError, match="evaluation texts: no utterance has a label of task ser"):
        check_labels(
            Study("s", to_dict(tiny_config()), (system,), (EvaluationSet("texts", ("ser",), sets[0].manifest),))
        )
