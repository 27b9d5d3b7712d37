"""A class that is assumed where the manifest gives none: only there, by name, and for classifications alone."""

import pytest
from factories import tiny_config, tone, write_manifest, write_wav

from harmonifuse_core.config import CorpusConfig, DataConfig
from harmonifuse_core.data.examples import load_examples
from harmonifuse_core.data_config import read_corpora
from harmonifuse_core.tasks import EMOTIONS


def mixed_manifest(folder):
    """Two utterances without an emotion, one that is sad."""
    rows = []
    for name, emotion in (("a", None), ("b", "sad"), ("c", "")):
        write_wav(folder / f"{name}.wav", tone(0.6))
        rows.append({"id": name, "audio_filepath": f"{name}.wav", "text": "yes", "duration": 0.6, "emotion": emotion})
    return str(write_manifest(folder, rows, "mixed.jsonl"))


def examples(manifest, task="ser", **fields):
    (spec,) = (t for t in tiny_config().model.tasks if t.name == task)
    return load_examples(CorpusConfig(manifest, task, **fields), spec, DataConfig(), {})


def test_only_what_has_no_label_is_assumed(tmp_path):
    manifest = mixed_manifest(tmp_path)
    assert [e.utterance.id for e in examples(manifest)] == ["b"]
    found = {e.utterance.id: EMOTIONS[e.label] for e in examples(manifest, assumed_label="neutral")}
    assert found == {"a": "neutral", "b": "sad", "c": "neutral"}
    (allowed,) = {e.allowed for e in examples(manifest, assumed_label="neutral")}
    assert [label for label, known in zip(EMOTIONS, allowed, strict=True) if known] == ["neutral", "sad"]


def test_an_assumption_goes_by_the_models_name_and_not_through_the_map(tmp_path):
    found = examples(mixed_manifest(tmp_path), assumed_label="calm", label_map={"sad": "", "calm": "happy"})
    assert [EMOTIONS[e.label] for e in found] == ["calm", "calm"]


def test_a_class_that_the_model_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="label 'bored' is none of the classes of task ser"):
        examples(mixed_manifest(tmp_path), assumed_label="bored")


def test_a_transcript_cannot_be_assumed(tmp_path):
    with pytest.raises(ValueError, match="assumed_label 'yes' is for a classification task, and asr is transcription"):
        examples(mixed_manifest(tmp_path), "asr", assumed_label="yes")


def test_a_file_of_corpora_holds_corpora_and_nothing_else(tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("train:\n  - {manifest: m.jsonl, task: ser, assumed_label: neutral, weight: 0.5}\n")
    assert read_corpora(path) == (CorpusConfig("m.jsonl", "ser", assumed_label="neutral", weight=0.5),)
    for text, found in (("train: []\ndev: []\n", "dev"), ("", "nothing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"under `train` is expected, and found is {found}"):
            read_corpora(path)
    path.write_text("train:\n  - {manifest: m.jsonl, task: ser, assumed: neutral}\n")
    with pytest.raises(ValueError, match="unknown field 'assumed'"):
        read_corpora(path)
