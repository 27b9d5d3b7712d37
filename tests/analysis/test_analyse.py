"""The command and its parts on disk: kills, shards, several corpora, wrong arguments."""

import json
import shutil

import pandas as pd
import pytest
from factories import tiny_corpus, tiny_run, tone, write_manifest, write_wav

from harmonifuse_core import analyse
from harmonifuse_core.analysis import faithfulness, running
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, read_result, read_rows, save_result
from harmonifuse_core.runs import RunError

QUICK = ["--only", "faithfulness,input_dependence", "--resamples", "20", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, two manifests, and the results of one undisturbed process over small batches."""
    folder = tmp_path_factory.mktemp("analyse")
    asr, ser = tiny_corpus(folder, n=8)
    run = tiny_run(folder / "runs", model__gate__input_score=True)
    return run, asr, ser


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(running, "BATCH_SIZE", 3)


def command(run, asr, ser, *more) -> list[str]:
    return ["--run", str(run.path), "--manifest", str(asr), "--limit", "4", "--manifest", str(ser), *QUICK, *more]


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    """As `made`, and the run is analysed."""
    run, asr, ser = copy_of(made, tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "BATCH_SIZE", 3)
        assert analyse.main(command(run, asr, ser)) == 0
    return run, asr, ser


@pytest.fixture(scope="module")
def undisturbed(finished) -> dict:
    return stored(finished[0])


def copy_of(made, folder):
    run, asr, ser = made
    shutil.copytree(run.path, folder / "tiny")
    return type(run)(folder / "tiny"), asr, ser


def stored(run) -> dict:
    """All that must not depend on how the work was done."""
    found = {}
    for name in ("faithfulness", "input_dependence"):
        record = run.read_json("analysis", f"{name}.json")
        found[name] = {k: v for k, v in record.items() if k not in ("command", "date", "environment")}
        found[f"{name} rows"] = read_rows(run, name).to_json(double_precision=15)
    return found


def test_what_one_run_leaves(undisturbed, made, tmp_path):
    result = undisturbed["faithfulness"]
    assert result["utterances"] == 12 and result["seed"] == 0 and result["resamples"] == 20 and result["left_out"] == []
    assert [s["manifest"] for s in result["selections"]] == ["asr.jsonl", "ser.jsonl"]
    assert {v["about"] for v in result["verdicts"]} >= {"encoder / asr", "lm / asr", "encoder / ser", "lm / ser"}
    layers = result["tables"]["layers"]["rows"]
    assert {(r["task"], r["n"], r["metric"]) for r in layers if r["removal"] == "zero" and r["weights"] != "held"} == {
        ("asr", 4, "WER"), ("ser", 8, "UA"),
    }  # fmt: skip
    assert all(r["metric"] is None for r in layers if r["task"] == "asr" and r["weights"] == "held")
    chosen = {r["replacement"] for r in undisturbed["input_dependence"]["tables"]["replacements"]["rows"]}
    assert chosen == {
        "task_mean", "other_utterance", "uniform", "one_hot_best", "own_mean", "task:asr", "task:ser",
    }  # fmt: skip


def test_two_shards_in_any_order_are_one_run(made, undisturbed, tmp_path, capsys):
    run, asr, ser = copy_of(made, tmp_path)
    assert analyse.main(command(run, asr, ser, "--num-shards", "2", "--shard-index", "1")) == 0
    assert "other shards" in capsys.readouterr().err and not run.names("analysis", ".json")
    assert analyse.main(command(run, asr, ser, "--num-shards", "2", "--shard-index", "0")) == 0
    assert stored(run) == undisturbed
    assert list(run.part("analysis").iterdir()) and not list(run.part("analysis").glob("*.parts"))


def test_a_killed_run_goes_on(made, undisturbed, tmp_path, monkeypatch, capsys):
    run, asr, ser = copy_of(made, tmp_path)
    done, real = [], running.read_batch

    def killed(model, items):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(items)
        return real(model, items)

    monkeypatch.setattr(running, "read_batch", killed)
    assert analyse.main(command(run, asr, ser)) == 130
    assert "goes on" in capsys.readouterr().err
    parts = sorted(p.name for p in run.part("analysis").rglob("*.json"))
    assert len(parts) == 6 and not run.names("analysis", ".json")  # 4 of the survey, 1 of the rows of two analyses
    seen = []
    monkeypatch.setattr(running, "read_batch", lambda model, items: seen.append(items) or real(model, items))
    assert analyse.main(command(run, asr, ser)) == 0
    assert stored(run) == undisturbed and len(seen) == 3  # of 4 batches one was there


def test_a_finished_run_is_summed_up_again_without_the_model(finished, undisturbed, tmp_path, monkeypatch):
    run, asr, ser = copy_of(finished, tmp_path)
    monkeypatch.setattr(running, "read_batch", lambda *_: pytest.fail("there is nothing left to read"))
    assert analyse.main(command(run, asr, ser)) == 0
    assert stored(run) == undisturbed
    assert analyse.main([*command(run, asr, ser), "--resamples", "10"]) == 0
    assert run.read_json("analysis", "faithfulness.json")["resamples"] == 10


def test_another_seed_weights_or_labels_are_another_plan(made, tmp_path):
    run, asr, ser = made
    from harmonifuse_core.analysis.material import spoken
    from harmonifuse_core.analysis.registry import AnalysisOptions
    from harmonifuse_core.inference.selection import Selection

    tasks = run.config().model.tasks
    plan = running.make_plan([spoken(Selection(str(ser)), tasks)])
    mapped = running.make_plan([spoken(Selection(str(ser), label_map={"calm": "neutral"}), tasks)])
    retrained = running.model_digest(tiny_run(tmp_path, seed=1, model__gate__input_score=True))
    digest, options = running.model_digest(run), AnalysisOptions()

    def key(plan=plan, options=options, digest=digest):
        return running.fingerprint(plan, faithfulness.ANALYSIS, options, digest)

    others = {key(options=AnalysisOptions(seed=1)), key(options=AnalysisOptions(prompts=("Hm?",)))}
    assert key() == key() and len(others | {key(), key(mapped), key(digest=retrained)}) == 5


def test_what_cannot_be_read_is_left_out_and_named(made, tmp_path, capsys):
    run, *_ = copy_of(made, tmp_path)
    rows = []
    for i, name in enumerate(("good", "fine", "long", "bad", "gone", "unlabelled")):
        row = {"id": name, "audio_filepath": f"{name}.wav", "speaker": f"s{i}", "emotion": ("sad", "happy")[i % 2]}
        if name != "gone":
            write_wav(tmp_path / f"{name}.wav", tone(12 if name == "long" else 0.5))
        rows.append(row if name != "unlabelled" else row | {"emotion": None})
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    manifest = write_manifest(tmp_path, rows)
    assert analyse.main(["--run", str(run.path), "--manifest", str(manifest), *QUICK]) == 0
    record = run.read_json("analysis", "faithfulness.json")
    assert record["utterances"] == 2 and set(record["left_out"]) == {"long", "bad", "gone", "unlabelled"}


def test_without_words_there_is_no_wer(made, tmp_path):
    run, asr, ser = copy_of(made, tmp_path)
    only = ["--only", "faithfulness", "--resamples", "20", "--quiet", "--no-words"]
    assert analyse.main(["--run", str(run.path), "--manifest", str(asr), *only]) == 0
    assert {r["metric"] for r in read_result(run, "faithfulness").table("layers").rows} == {None}


def test_labels_of_a_dataset_can_be_skipped(made, tmp_path, capsys):
    run, asr, ser = copy_of(made, tmp_path)
    assert analyse.main(command(run, asr, ser, "--skip", "tones-asr:asr")) == 0
    assert {r["task"] for r in read_result(run, "faithfulness").table("layers").rows} == {"ser"}
    assert analyse.main(["--run", str(run.path), "--manifest", str(asr), *QUICK, "--skip", "tones-asr:asr"]) == 1
    assert "no utterance has a label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--only", "horoscope"], "there are faithfulness"),
        (["--num-shards", "2", "--shard-index", "2"], "number of shards minus 1"),
        (["--resamples", "0"], "at least 1"),
        (["--skip", "elsewhere:asr"], "there are tones-asr"),
        (["--skip", "asr"], "DATASET:TASK"),
        (["--compare", "nowhere"], "no config.yaml"),
        (["--fresh", "--num-shards", "2"], "one process"),
    ],
)
def test_wrong_arguments_are_named(made, more, message, capsys):
    run, asr, ser = made
    assert analyse.main([*command(run, asr, ser), *more]) == 2
    assert message in capsys.readouterr().err


def test_an_id_that_stands_twice_is_refused(made, capsys):
    run, asr, _ = made
    assert analyse.main(["--run", str(run.path), "--manifest", str(asr), "--manifest", str(asr), *QUICK]) == 2
    assert "'asr-0' stands 2 times" in capsys.readouterr().err


def test_begin_anew(finished, tmp_path, monkeypatch):
    run, asr, ser = copy_of(finished, tmp_path)
    seen, real = [], running.read_batch
    monkeypatch.setattr(running, "read_batch", lambda model, items: seen.append(items) or real(model, items))
    assert analyse.main(command(run, asr, ser, "--fresh")) == 0
    assert len(seen) == 8  # survey and rows of 4 batches


def test_a_result_comes_back_as_it_was_saved(made, tmp_path):
    run, *_ = copy_of(made, tmp_path)
    result = AnalysisResult(
        "trial", "Is it so?", (Table("t", "What it is.", ({"x": 1.5, "n": 3, "layers": [1, 2]},)),),
        (Verdict("all", "so", "It is 1.5."),), 3, 2,
    )  # fmt: skip
    save_result(run, result, pd.DataFrame({"utterance": ["a"], "alpha": [[0.5, 0.5]]}), {"seed": 1})
    assert read_result(run, "trial") == result and result.table("t").rows[0]["n"] == 3
    assert read_rows(run, "trial")["alpha"][0].tolist() == [0.5, 0.5]
    assert run.read_json("analysis", "trial.json")["seed"] == 1
    nan = AnalysisResult("trial", "", (Table("t", "", ({"x": float("nan")},)),))
    assert nan.as_dict()["tables"]["t"]["rows"] == [{"x": None}]
    with pytest.raises(RunError, match="no analysis/absent.json"):
        read_result(run, "absent")
    run.part("analysis", "trial.json").write_text(json.dumps({"name": "trial"}))
    with pytest.raises(RunError, match="damaged"):
        read_result(run, "trial")


@pytest.mark.parametrize(("speakers", "words"), [(1, "one speaker only"), (2, "2 speakers only"), (20, "")])
def test_few_speakers_are_said_beside_every_verdict(speakers, words):
    caution = AnalysisResult("trial", "Why?", (), utterances=30, speakers=speakers).as_dict()["caution"]
    assert caution.startswith(words) and bool(caution) == bool(words)
