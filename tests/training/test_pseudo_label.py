"""Labels by a model: confident ones only, probabilities of all, the same after a kill and in shards."""

import json
import sys
from types import SimpleNamespace

import pytest
from factories import tiny_corpus, tiny_run

from harmonifuse_core import load, predict
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.prepare import main
from harmonifuse_core.tasks import EMOTIONS
from harmonifuse_core.training import pseudo_label
from harmonifuse_core.training.labellers import Emotion2vec, RunLabeller
from harmonifuse_core.training.pseudo_label import write_pseudo_labels


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pseudo")
    asr, ser = tiny_corpus(folder / "corpus")
    return tiny_run(folder), asr, ser


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_are_the_models_where_it_is_sure_and_paths_lead_from_the_new_place(setting, tmp_path):
    run, asr, _ = setting
    answers = predict(load(run), [decode_waveform(u.audio) for u in read_manifest(asr)])
    chances = [a["ser"].probabilities[a["ser"].label] for a in answers]
    threshold = sorted(chances)[4] - 1e-4
    output = tmp_path / "deep" / "out.jsonl"
    output.parent.mkdir()
    done = write_pseudo_labels(RunLabeller(run.path, "ser"), asr, output, threshold=threshold)
    assert (done.labelled, done.unsure, done.failed, done.kept, done.manifest) == (4, 4, 0, 0, output)
    for row, answer, chance, old in zip(rows_of(output), answers, chances, rows_of(asr), strict=True):
        assert (row.get("emotion") == answer["ser"].label) if chance >= threshold else "emotion" not in row
        assert row["emotion_confidence"] == pytest.approx(chance, abs=1e-3) and set(
            row["emotion_probabilities"]
        ) == set(EMOTIONS)
        assert row["emotion_labeller"].startswith("tiny:ser:") and row["text"] == old["text"]
    assert [u.audio for u in read_manifest(output)] == [u.audio for u in read_manifest(asr)]
    with pytest.raises(ValueError, match="exists: choose another --output"):
        write_pseudo_labels(RunLabeller(run.path, "ser"), asr, output)


def test_shards_and_a_kill_give_the_same_manifest(setting, tmp_path, monkeypatch):
    run, asr, _ = setting
    labeller = RunLabeller(run.path, "ser")
    write_pseudo_labels(labeller, asr, tmp_path / "whole.jsonl")
    output, part = tmp_path / "cut.jsonl", tmp_path / "cut.jsonl.parts" / "00000.jsonl"
    monkeypatch.setattr(pseudo_label, "WINDOW", 1)
    first = write_pseudo_labels(labeller, asr, output, num_shards=2, shard_index=0)
    assert first.manifest is None and not output.exists() and first.labelled == 4
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:2]) + lines[2][:20])  # as a kill leaves it
    asked = []
    again = SimpleNamespace(
        name=labeller.name, field=labeller.field, label=lambda s: asked.extend(s) or labeller.label(s)
    )  # fmt: skip
    assert write_pseudo_labels(again, asr, output, num_shards=2, shard_index=1).manifest is None
    assert write_pseudo_labels(again, asr, output, num_shards=2, shard_index=0).manifest == output
    assert len(asked) == 4 + 2
    whole, cut = rows_of(tmp_path / "whole.jsonl"), rows_of(output)
    for a, b in zip(whole, cut, strict=True):  # alone or in a batch: the last digits of a probability
        assert a["id"] == b["id"] and a["emotion"] == b["emotion"]
        assert a["emotion_confidence"] == pytest.approx(b["emotion_confidence"], abs=2e-5)


def test_answers_of_another_labeller_are_not_mixed_in(setting, tmp_path):
    run, asr, _ = setting
    labeller = RunLabeller(run.path, "ser")
    write_pseudo_labels(labeller, asr, tmp_path / "o.jsonl", num_shards=2)
    with pytest.raises(ValueError, match="holds answers with threshold 0.0, not 0.5: remove it"):
        write_pseudo_labels(labeller, asr, tmp_path / "o.jsonl", num_shards=2, threshold=0.5)


def test_labels_of_people_stay_and_broken_audio_is_named(setting, tmp_path):
    run, _, ser = setting
    lines = ser.read_text().splitlines()
    bare = json.loads(lines[0])
    del bare["emotion"]
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    rows = [bare, json.loads(lines[1]), {"id": "x", "audio_filepath": str(tmp_path / "broken.wav")}]
    manifest = ser.parent / "mixed.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = write_pseudo_labels(RunLabeller(run.path, "ser"), manifest, tmp_path / "out.jsonl")
    assert (done.labelled, done.kept, done.failed) == (1, 1, 1)
    found = rows_of(tmp_path / "out.jsonl")
    assert found[1]["emotion"] == rows[1]["emotion"] and "emotion_labeller" not in found[1]
    assert "emotion" not in found[2] and found[2]["emotion_error"]


def test_the_command_writes_texts_too_and_says_what_is_missing(setting, tmp_path, capsys):
    run, _, ser = setting
    command = ["pseudo-label", "--manifest", str(ser), "--output", str(tmp_path / "out.jsonl")]
    assert main([*command, "--run", str(run.path), "--task", "asr"]) == 0
    assert "8 labelled" in capsys.readouterr().out
    assert all("text" in row and 0 <= row["text_confidence"] <= 1 for row in rows_of(tmp_path / "out.jsonl"))
    assert main([*command, "--emotion2vec"]) == 1
    assert "emotion2vec needs funasr, which is not installed" in capsys.readouterr().err


def test_emotion2vec_is_asked_for_whole_utterances_and_read_by_its_order(setting, tmp_path, monkeypatch):
    """The interface as FunASR documents it, played by a stand-in: nine scores a recording."""
    _, asr, _ = setting
    asked = []

    class AutoModel:
        def __init__(self, **options):
            asked.append(options)

        def generate(self, waveform, **options):
            asked.append(options | {"samples": len(waveform)})
            return [{"key": "x", "labels": ["生气/angry"] + ["?"] * 8, "scores": [0.1, 0.6, 0, 0, 0, 0, 0, 0, 0.3]}]

    monkeypatch.setitem(sys.modules, "funasr", SimpleNamespace(AutoModel=AutoModel))
    done = write_pseudo_labels(Emotion2vec(), asr, tmp_path / "out.jsonl", threshold=0.5)
    assert done.labelled == 8 and {row["emotion"] for row in rows_of(tmp_path / "out.jsonl")} == {"disgust"}
    assert asked[0]["model"] == "iic/emotion2vec_plus_large"
    assert asked[1] == {"fs": 16_000, "granularity": "utterance", "extract_embedding": False, "samples": 8000}
