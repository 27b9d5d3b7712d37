"""Evaluation and what is under it: labels are found, sources read in bounded windows, bad files do not stop it."""

import threading

import numpy as np
import pytest
from factories import tiny_model, tone, write_manifest, write_wav

from harmonifuse_core.data.manifest import ManifestError
from harmonifuse_core.inference import sources as source_module
from harmonifuse_core.inference.evaluation import NO_WORDS, evaluate, model_label
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.inference.sources import SourceError, answer_sources, collect, read_windows, shard
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.routing import RoutingWriter, read_routing
from harmonifuse_core.tasks import ASR, EMOTIONS, SER, TaskConfig


@pytest.fixture(scope="module")
def model():
    return tiny_model("whisper")


def corpus(folder, rows) -> Selection:
    """A manifest of short tones. `rows` give the fields; `id` and audio are made, or `bad` is what the file holds."""
    lines = []
    for i, row in enumerate(rows):
        path = folder / f"{i}.wav"
        if (bad := row.pop("bad", None)) is None:
            write_wav(path, tone(0.4 + 0.1 * (i % 4), 110.0 + 40 * i, seed=i))
        else:
            path.write_bytes(bad)
        lines.append({"id": f"u{i}", "audio_filepath": path.name, **row})
    return Selection(str(write_manifest(folder, lines)))


# --- labels ---


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("angry", "angry"), ("anger", "angry"), ("Anger", "angry"), ("ang", "angry"), ("happiness", "happy"),
        ("joy", "happy"), ("sadness", "sad"), ("fear", "fearful"), ("disgusted", "disgust"), ("surprise", "surprised"),
        ("neutral", "neutral"), ("calm", "calm"), ("boredom", None), ("excited", None),
    ],
)  # fmt: skip
def test_common_names_of_an_emotion_find_the_models_class(raw, label):
    assert model_label(raw, EMOTIONS) == label


def test_synonyms_work_towards_whatever_the_model_calls_it():
    assert model_label("angry", ("anger", "joy")) == "anger"
    assert model_label("sad", ("anger", "joy")) is None


def test_the_label_map_goes_first_and_an_empty_label_leaves_out():
    assert model_label("calm", EMOTIONS, {"calm": "neutral"}) == "neutral"
    assert model_label("boredom", EMOTIONS, {"boredom": "calm"}) == "calm"
    assert model_label("calm", EMOTIONS, {"calm": ""}) is None


# --- evaluation ---


def test_scores_are_those_of_the_answers_and_bad_files_are_reported(model, tmp_path):
    rows = [
        {"text": "hello there", "emotion": "anger", "speaker": "a"},
        {"text": "go home", "emotion": "boredom", "speaker": "b", "bad": b"no audio at all"},
        {"text": "a red dog", "emotion": "boredom", "speaker": "b"},
        {"text": "we sing", "emotion": "happy"},
        {"text": "", "emotion": "", "bad": b""},
    ]
    sources = corpus(tmp_path, rows).sources()
    seen = []
    with RoutingWriter(tmp_path / "r.parquet") as writer:
        result = evaluate(model, sources, writer=writer, on_answer=seen.append, resamples=50)
    assert [f.id for f in result.failed] == ["u1", "u4"] and len(seen) == 5
    assert "is text" in result.failed[0].error and result.failed[0].error.startswith("1.wav: ")
    report = result.as_dict()
    assert (report["asr"]["utterances"], report["asr"]["words"], report["asr"]["speakers"]) == (3, 7, 3)
    assert (report["ser"]["utterances"], report["left_out"]) == (2, {"ser": {"boredom": 1}})
    assert report["utterances"] == 3 and report["audio_seconds"] == pytest.approx(0.4 + 0.6 + 0.7)
    assert (
        report["rtf"] == pytest.approx(report["wall_seconds"] / report["audio_seconds"], rel=0.01) and report["rtf"] > 0
    )

    texts = {s.source.utterance.id: s.answers["asr"].text for s in seen if s.answers}
    expected = [word_errors(s.utterance.text, texts[s.utterance.id]) for s in sources if s.utterance.id in texts]
    edits = report["asr"]["substitutions"] + report["asr"]["deletions"] + report["asr"]["insertions"]
    assert edits == sum(e.word_errors for e in expected) and report["asr"]["wer"] == edits / 7

    frame = read_routing(tmp_path / "r.parquet", filters={"stage": "lm"})
    text, emotion = (frame[frame["task"] == task].set_index("utterance") for task in ("asr", "ser"))
    assert text["errors"].sum() == edits and text["reference_words"].sum() == 7
    assert emotion.loc["u0", "reference"] == "angry" and emotion.loc["u0", "label"] == "anger"
    assert emotion.loc["u2", "label"] == "boredom" and np.isnan(emotion.loc["u2", "error"])
    assert 1 - emotion["error"].mean() == report["ser"]["wa"]
    assert set(frame["audio"]) == {"0.wav", "2.wav", "3.wav"}


def test_a_task_without_labels_is_not_scored_but_run(model, tmp_path):
    result = evaluate(model, corpus(tmp_path, [{"emotion": "sad"}, {"emotion": "calm"}]).sources(), resamples=20)
    assert set(result.scores) == {"ser"} and result.tasks == ("asr", "ser") and result.left_out == {}


def test_transcripts_without_a_word_are_left_out_by_name(model, tmp_path):
    result = evaluate(model, corpus(tmp_path, [{"text": "um"}, {"text": "hmm"}]).sources())
    assert result.scores == {} and result.left_out == {"asr": {NO_WORDS: 2}}


def test_only_the_chosen_tasks_are_run(model, tmp_path):
    sources = corpus(tmp_path, [{"emotion": "sad", "text": "it rains"}]).sources()
    seen = []
    result = evaluate(model, sources, tasks=["ser"], on_answer=seen.append)
    assert set(result.scores) == {"ser"} and set(seen[0].answers) == {"ser"}
    with pytest.raises(ValueError, match="'sid' is unknown"):
        evaluate(model, sources, tasks=["sid"])


def test_a_label_map_to_no_class_is_refused(model, tmp_path):
    sources = corpus(tmp_path, [{"emotion": "sad"}]).sources()
    with pytest.raises(ValueError, match="sad=blue: the model has no class 'blue'"):
        evaluate(model, sources, label_map={"sad": "blue"})


def test_a_third_task_is_scored_under_its_own_name(tmp_path):
    gender = TaskConfig("gender", prompts=("Man or woman?",), labels=("f", "m"), field="gender")
    model = tiny_model("whisper", model__tasks=[ASR, SER, gender])
    rows = [{"gender": "fm"[i % 2], "speaker": f"s{i}"} for i in range(4)]
    report = evaluate(model, corpus(tmp_path, rows).sources(), resamples=20).as_dict()
    assert report["gender"]["utterances"] == 4 and report["gender"]["labels"] == ["f", "m"]
    assert "asr" not in report and report["tasks"] == ["asr", "ser", "gender"]


# --- sources ---


def test_selectors_keep_what_they_say(tmp_path):
    rows = [{"speaker": f"s{i % 3}", "split": "test" if i < 6 else "dev"} for i in range(9)]
    manifest = corpus(tmp_path, rows).manifest

    def ids(**selectors):
        return [s.utterance.id for s in Selection(manifest, **selectors).sources()]

    assert ids(split="test", speakers=("s1",)) == ["u1", "u4"]
    assert ids(split="test", exclude_speakers=("s1",), limit=3) == ["u0", "u2", "u3"]
    assert ids(ids="[78]$") == ["u7", "u8"]
    with pytest.raises(SourceError, match="no speaker 's9'; it has s0, s1, s2"):
        ids(exclude_speakers=("s9",))
    with pytest.raises(SourceError, match="no utterance is left"):
        ids(ids="^nothing")
    with pytest.raises(ManifestError, match="splits are: dev, test"):
        ids(split="train")


def test_files_folders_and_manifests_are_collected_in_order(tmp_path):
    for name in ("in/b.wav", "in/a.FLAC", "in/deep/a.wav", "in/notes.txt", "in/.hidden.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = write_manifest(tmp_path / "m", [{"id": "x", "audio_filepath": "../c.wav", "speaker": "s"}])
    found = collect([str(tmp_path / "c.wav"), str(tmp_path / "in"), str(manifest), str(tmp_path / "in" / "b.wav")])
    names = ["c", "a", str(tmp_path / "in/b.wav"), "deep/a", "x", str(tmp_path / "in/b.wav") + "#2"]
    assert [s.utterance.id for s in found] == names
    assert (found[4].path, found[4].utterance.speaker) == ("../c.wav", "s")
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="none' holds no audio file"):
        collect([str(tmp_path / "none")])


def test_a_name_that_is_no_text_does_not_stop_the_rest(tmp_path):
    (tmp_path / b"x\xff.wav".decode("utf-8", "surrogateescape")).touch()
    (source,) = collect([str(tmp_path)])
    assert source.path.encode() and source.utterance.audio.is_file()


def test_shards_share_the_sources_out(tmp_path):
    sources = collect([str(tmp_path / f"{i}.wav") for i in range(7)])
    parts = [shard(sources, 3, index) for index in range(3)]
    assert sorted(s.path for part in parts for s in part) == sorted(s.path for s in sources)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for count, index in ((3, 3), (0, 0), (3, -1)):
        with pytest.raises(SourceError, match="--shard-index"):
            shard(sources, count, index)


def test_answers_come_in_order_over_many_windows_with_their_errors(model, tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "FIRST_CLIPS", 2)
    monkeypatch.setattr(source_module, "MOST_CLIPS", 3)
    sources = corpus(tmp_path, [{"bad": b"text"} if i in (1, 7) else {} for i in range(9)]).sources()
    items = list(answer_sources(model, sources, PredictOptions(("ser",))))
    assert [item.source.utterance.id for item in items] == [f"u{i}" for i in range(9)]
    assert [i for i, item in enumerate(items) if item.answers is None] == [1, 7]
    assert all(item.error and not item.seconds for item in items if item.answers is None)
    assert all(item.cost > 0 and item.seconds > 0.3 for item in items if item.answers)


def test_memory_is_bounded_by_windows_of_clips_and_of_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "FIRST_CLIPS", 2)
    monkeypatch.setattr(source_module, "MOST_CLIPS", 4)
    sources = corpus(tmp_path, [{} for _ in range(14)]).sources()
    read, decode = [], source_module._decode
    monkeypatch.setattr(source_module, "_decode", lambda s: read.append(s) or decode(s))
    windows = read_windows(sources)
    assert [len(next(windows).clips) for _ in range(2)] == [2, 4]
    assert len(read) <= 2 + 4 + 4, "more than the next window was read ahead"
    assert [len(window.clips) for window in windows] == [4, 4]
    monkeypatch.setattr(source_module, "MOST_SECONDS", 0.1)
    assert max(len(window.clips) for window in read_windows(sources)) <= 2 * source_module.THREADS


def test_a_consumer_that_stops_early_leaves_no_thread_behind(model, tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "FIRST_CLIPS", 2)
    sources = corpus(tmp_path, [{} for _ in range(12)]).sources()
    before = threading.active_count()
    for begun in (read_windows(sources), answer_sources(model, sources, PredictOptions(("ser",)))):
        next(begun)
        begun.close()
        assert threading.active_count() == before


def test_the_next_window_begins_while_this_one_is_worked_on(model, tmp_path, monkeypatch, two_threads):
    monkeypatch.setattr(source_module, "FIRST_CLIPS", 2)
    monkeypatch.setattr(source_module, "MOST_CLIPS", 2)
    answer, both = source_module._answer_window, threading.Barrier(2, timeout=20)

    def meet(*arguments):
        both.wait()  # passes only if two windows are worked on at once
        return answer(*arguments)

    monkeypatch.setattr(source_module, "_answer_window", meet)
    sources = corpus(tmp_path, [{} for _ in range(8)]).sources()
    items = list(answer_sources(model, sources, PredictOptions(("ser",))))
    assert [item.source.utterance.id for item in items] == [f"u{i}" for i in range(8)]
    assert all(item.answers for item in items)


def test_a_clip_that_the_model_refuses_is_an_error_of_that_clip_alone(model, tmp_path, monkeypatch):
    sources = corpus(tmp_path, [{} for _ in range(3)]).sources()
    predict_stream = source_module.predict_stream

    def refuse(model, waveforms, options, workers):
        if any(len(w) == round(0.5 * 16000) for w in waveforms):
            raise ValueError("a clip of 8000 samples is refused")
        return predict_stream(model, waveforms, options, workers)

    monkeypatch.setattr(source_module, "predict_stream", refuse)
    items = list(answer_sources(model, sources, PredictOptions(("ser",))))
    assert [item.answers is None for item in items] == [False, True, False]
    assert "8000 samples is refused" in items[1].error
