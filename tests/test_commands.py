"""The commands infer, evaluate and calibrate from their arguments to their output, files and exit codes."""

import json

import numpy as np
import pytest
from factories import tiny_config, tiny_corpus, tiny_run, tone, write_manifest, write_wav

from harmonifuse_core import calibrate, evaluate, infer, load_audio, predict
from harmonifuse_core.routing import read_routing
from harmonifuse_core.runs import load
from harmonifuse_core.tasks import EMOTIONS

CLASSIFY = {"id", "path", "text", "emotion", "emotion_probabilities", "encoder_alpha", "lm_alpha", "duration"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with two good recordings, a deep one, and three bad ones."""
    folder = tmp_path_factory.mktemp("clips")
    for i, name in enumerate(("a.wav", "d.wav", "deep/e.wav")):
        write_wav(folder / name, tone(0.5 + 0.3 * i, 120.0 + 60 * i))
    (folder / "b.wav").write_bytes(b"RIFF....")
    (folder / "c.mp3").touch()
    write_wav(folder / "silent.wav", np.zeros(16000, np.float32))
    return folder


def call(command, capsys, *arguments):
    """(exit code, stdout, stderr) of a command."""
    try:
        code = command.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- infer ---


def test_infer_prints_one_object_a_line_in_order_and_errors_among_them(run, clips, capsys):
    code, out, _ = call(infer, capsys, "--run", run.path, clips, clips / "nosuch.wav", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["id"] for row in rows] == ["a", "b", "c", "d", "deep/e", "silent", "nosuch"]
    reasons = {"b": "WAV", "c": "empty", "silent": "no signal", "nosuch": "no such file"}
    for row in rows:
        if row["id"] in reasons:
            assert set(row) == {"id", "path", "error"} and reasons[row["id"]] in row["error"]
            continue
        assert set(row) >= CLASSIFY and row["seconds"] > 0 and row["truncated"] in (True, False)
        assert list(row["emotion_probabilities"]) == list(EMOTIONS)
        assert row["emotion"] == max(row["emotion_probabilities"], key=row["emotion_probabilities"].get)
        for stage in ("encoder_alpha", "lm_alpha"):
            assert set(row[stage]) == {"asr", "ser"}
            assert all(len(a) == 3 and sum(a) == pytest.approx(1, abs=1e-5) for a in row[stage].values())
    assert rows[3]["duration"] == 0.8


def test_infer_answers_a_manifest_with_chosen_tasks_and_prompt(run, corpora, capsys):
    arguments = ["--run", run.path, corpora[1], "--tasks", "ser", "--prompt", "ser=Is she angry?", "--json"]
    code, out, _ = call(infer, capsys, *arguments)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["id"] for row in rows] == [f"ser-{i}" for i in range(8)]
    assert all("text" not in row and row["prompts"] == {"ser": "Is she angry?"} for row in rows)
    assert rows[0]["path"] == "ser/ser-0.wav"


def test_infer_prints_for_a_reader_without_json(run, clips, capsys):
    code, out, _ = call(infer, capsys, "--run", run.path, clips / "a.wav", clips / "c.mp3")
    assert code == 0 and "a  (0.5 s)" in out and "encoder layer" in out and "cannot be used" in out


def test_infer_output_is_the_same_objects_in_a_file(run, clips, capsys, tmp_path):
    _, printed, _ = call(infer, capsys, "--run", run.path, clips, "--json")
    code, out, err = call(infer, capsys, "--run", run.path, clips, "--output", tmp_path / "o.jsonl")
    written = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in printed.splitlines()]
    for row in [*rows, *written]:
        row.pop("seconds", None)
    assert code == 0 and out == "" and "3 of 6 recordings answered" in err
    assert written == rows and [p.name for p in tmp_path.iterdir()] == ["o.jsonl"]


def test_infer_shards_make_one_routing_table_together(run, corpora, capsys, tmp_path):
    target = tmp_path / "o.parquet"
    for index in range(3):
        shards = ["--num-shards", 3, "--shard-index", index]
        assert call(infer, capsys, "--run", run.path, corpora[0], "--output", target, *shards)[0] == 0
    assert sorted(p.name for p in target.iterdir()) == [f"part-0000{i}.parquet" for i in range(3)]
    frame = read_routing(target, filters={"task": "asr", "stage": "lm"})
    assert sorted(frame["utterance"]) == [f"asr-{i}" for i in range(8)] and set(frame["speaker"]) >= {"speaker-0"}
    code, _, err = call(infer, capsys, "--run", run.path, corpora[0], "--num-shards", 3, "--shard-index", 3)
    assert code == 2 and "--shard-index 3" in err


def test_infer_exits_1_when_every_recording_failed_and_leaves_no_empty_table(run, clips, capsys, tmp_path):
    code, out, _ = call(infer, capsys, "--run", run.path, clips / "b.wav", "--json")
    assert code == 1 and "error" in json.loads(out)
    code, _, err = call(infer, capsys, "--run", run.path, clips / "b.wav", "--output", tmp_path / "o.parquet")
    assert code == 1 and "b.wav" in err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.wav", "--tasks", "sid"], "'sid' is unknown; this model has asr, ser"),
        (["x.wav", "--prompt", "asr"], "write TASK=TEXT"),
        (["x.wav", "--prompt", "sid=hm"], "'sid' is unknown"),
        (["x.wav", "--output", "o.csv"], "end it in .jsonl or .parquet"),
        (["nosuch.jsonl"], "manifest 'nosuch.jsonl' does not exist"),
        ([], "required"),
    ],
)
def test_infer_exits_2_on_wrong_arguments_and_says_why(run, capsys, arguments, words):
    code, out, err = call(infer, capsys, "--run", run.path, *arguments)
    assert code == 2 and words in err and out == ""


def test_every_command_names_a_run_that_is_none(capsys, corpora, tmp_path):
    for command, arguments in ((infer, [corpora[0]]), (evaluate, ["--manifest", corpora[0]])):
        code, _, err = call(command, capsys, "--run", tmp_path, *arguments)
        assert code == 2 and "is not a run folder" in err


# --- evaluate ---


def test_evaluate_prints_one_object_and_saves_scores_and_routing(run, corpora, capsys):
    arguments = ["--run", run.path, "--manifest", corpora[0], "--split", "train", "--save", "tones", "--json"]
    code, out, _ = call(evaluate, capsys, *arguments)
    report = json.loads(out)
    assert code == 0 and len(out.splitlines()) == 1
    assert "ser" not in report and report["asr"]["utterances"] == 6 and "whisper-english" in report["asr"]["normalizer"]
    assert set(report) >= {"audio_seconds", "wall_seconds", "rtf", "failed"}
    saved = run.read_json("evaluation", "tones.json")
    assert {key: saved[key] for key in report} == report
    assert (saved["manifest"], saved["split"], saved["seed"], saved["run"]) == ("asr.jsonl", "train", 0, "tiny")
    assert saved["command"].endswith("--split train --save tones --json") and "packages" in saved["environment"]
    frame = read_routing(run.part("routing", "tones.parquet"))
    assert len(frame) == 6 * 2 * 2 and not frame["audio"].str.startswith("/").any()


def test_evaluate_prints_a_table_and_progress_on_stderr(run, corpora, capsys):
    selectors = ["--speakers", "speaker-0,speaker-1", "--label-map", "calm=neutral", "--limit", 3]
    code, out, err = call(evaluate, capsys, "--run", run.path, "--manifest", corpora[1], *selectors, "--progress")
    assert code == 0 and "UA" in out and "asr  not scored" in out and "real-time factor" in out and "3/3" in err


def test_evaluate_goes_on_after_bad_files_and_saves_nothing_when_all_are(run, clips, capsys):
    rows = [{"audio_filepath": name, "text": "go home"} for name in ("b.wav", "c.mp3", "a.wav")]
    mixed, bad = write_manifest(clips, rows, "mixed.jsonl"), write_manifest(clips, rows[:2], "bad.jsonl")
    code, out, _ = call(evaluate, capsys, "--run", run.path, "--manifest", mixed, "--json")
    report = json.loads(out)
    assert code == 0 and [f["id"] for f in report["failed"]] == ["b", "c"] and report["utterances"] == 1
    code, out, err = call(evaluate, capsys, "--run", run.path, "--manifest", bad, "--json", "--save", "bad")
    report = json.loads(out)
    assert code == 1 and len(report["failed"]) == 2 and report["rtf"] is None and "none of 2" in err
    assert "bad.json" not in run.names("evaluation", ".json") and "bad.parquet" not in run.names("routing", ".parquet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "dev"], "splits are: test, train"),
        (["--ids", "["], "is no regular expression"),
        (["--label-map", "anger=blue"], "no class 'blue'"),
        (["--save", "../x"], "not a plain file name"),
        (["--save", "calibration"], "belongs to the calibrate command"),
        (["--tasks", "sid"], "'sid' is unknown"),
        (["--limit", "0"], "at least 1"),
        (["--split", "train", "--split", "test"], "stands twice"),
    ],
)
def test_evaluate_exits_2_on_wrong_arguments_and_says_why(run, corpora, capsys, arguments, words):
    code, out, err = call(evaluate, capsys, "--run", run.path, "--manifest", corpora[0], *arguments)
    assert code == 2 and words in err and out == ""


# --- calibrate ---


def heard(run, corpus, wrong: int):
    """A manifest of the corpus whose labels are what the model of `run` says, the first `wrong` its second choice."""
    model, rows = load(run), [json.loads(line) for line in corpus.read_text().splitlines()]
    for i, row in enumerate(rows):
        answer = predict(model, [load_audio(corpus.parent / row["audio_filepath"]).waveform])[0]["ser"]
        ranked = sorted(answer.probabilities, key=answer.probabilities.get, reverse=True)
        row["emotion"] = ranked[i < wrong]
    return write_manifest(corpus.parent, rows, f"heard-{wrong}.jsonl")


def fitted(run, capsys, *arguments) -> dict:
    code, out, _ = call(calibrate, capsys, "--run", run.path, *arguments, "--json")
    assert code == 0 and json.loads(out) == run.read_json("evaluation", "calibration.json")
    return json.loads(out)["tasks"]["ser"]


def test_calibrate_stores_the_best_temperature_and_nothing_else_changes(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    manifest, before = heard(run, corpora[1], 3), load(run)
    fit = fitted(run, capsys, "--manifest", manifest)
    assert (fit["utterances"], fit["speakers"], fit["temperature_before"], fit["note"]) == (8, 4, 1.0, "")
    assert fit["nll_after"] < fit["nll_before"] and fit["temperature"] != 1
    after = load(run)
    assert float(after.heads["ser"].temperature) == fit["temperature"]
    old, new = before.state_dict(), after.state_dict()
    assert [name for name in old if not np.array_equal(old[name], new[name])] == ["heads.ser.temperature"]
    assert sorted(p.name for p in run.path.iterdir()) == ["config.yaml", "environment.json", "evaluation", "model"]


def test_calibrate_reads_logits_through_an_earlier_temperature(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    manifest = heard(run, corpora[1], 3)
    first, second = (fitted(run, capsys, "--manifest", manifest) for _ in range(2))
    assert second["temperature_before"] == first["temperature"] != 1
    assert second["temperature"] == pytest.approx(first["temperature"], rel=2e-3)  # float16
    assert second["nll_before"] == pytest.approx(first["nll_after"], abs=1e-4)


def test_the_calibrated_run_has_the_log_loss_that_the_fit_promised(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    manifest = heard(run, corpora[1], 3)
    fit = fitted(run, capsys, "--manifest", manifest)
    losses = []
    for line in call(infer, capsys, "--run", run.path, manifest, "--json")[1].splitlines():
        row = json.loads(line)
        reference = next(r["emotion"] for r in map(json.loads, manifest.open()) if r["id"] == row["id"])
        known = {label: row["emotion_probabilities"][label] for label in fit["classes"]}
        losses.append(-np.log(known[reference] / sum(known.values())))
    assert np.mean(losses) == pytest.approx(fit["nll_after"], abs=1e-3)


def test_calibrate_takes_several_corpora_each_with_its_selectors(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    other = heard(run, corpora[1], 3)
    two = ["--manifest", corpora[1], "--split", "test", "--manifest", other, "--split", "train", "--limit", 4]
    fit = fitted(run, capsys, *two)
    assert fit["utterances"] == 2 + 4
    chosen = [
        (c["manifest"], c["split"], c["limit"]) for c in run.read_json("evaluation", "calibration.json")["corpora"]
    ]
    assert chosen == [("ser.jsonl", "test", 0), ("heard-3.jsonl", "train", 4)]


def test_a_fit_without_an_optimum_leaves_the_temperature_and_says_so(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    fit = fitted(run, capsys, "--manifest", heard(run, corpora[1], 0))  # all right: any sharpening helps
    assert fit["temperature"] == 1.0 and "no optimum" in fit["note"] and fit["nll_after"] == fit["nll_before"]


def test_calibrate_judges_a_corpus_by_the_classes_that_it_has(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    fit = fitted(run, capsys, "--manifest", corpora[1], "--ids", "[0-2]$")
    assert fit["classes"] == ["calm", "happy", "neutral"] and fit["utterances"] == 3
    assert fit["nll_before"] < np.log(8) / 1.2, "three classes are easier than eight"


def test_calibrate_without_labels_or_without_classes_changes_nothing(corpora, capsys, tmp_path):
    run = tiny_run(tmp_path)
    stamp = (run.model / "weights.json").stat().st_mtime_ns
    code, _, err = call(calibrate, capsys, "--run", run.path, "--manifest", corpora[0])
    assert code == 1 and "no utterance has a label" in err
    assert (run.model / "weights.json").stat().st_mtime_ns == stamp and not run.part("evaluation").exists()
    tasks = [task for task in tiny_config().model.tasks if task.is_transcription]
    text_only = tiny_run(tmp_path, "text", model__tasks=tasks)
    code, _, err = call(calibrate, capsys, "--run", text_only.path, "--manifest", corpora[1])
    assert code == 2 and "no classification task" in err
