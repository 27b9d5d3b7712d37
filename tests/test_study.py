"""The study command: a planted difference is found, a kill loses one cell, shards and tables give the same numbers."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from planted_study import STEPS, planted_study, table_of

from harmonifuse_core.runs import StudyFolder, find_runs, find_studies, load
from harmonifuse_core.studies.rows import read_rows, read_table
from harmonifuse_core.studies.running import threads
from harmonifuse_core.study import main

TIMES = ["train_seconds", "train_cpu_seconds", "evaluate_seconds", "date"]


def same_rows(a: Path, b: Path):
    """All numbers but the times of the cells of `a` are equal in `b`, bit by bit."""
    one, two = read_rows(StudyFolder(a)), read_rows(StudyFolder(b))
    two = two.of(dict(zip(one.cells["cell"], one.cells["config_hash"], strict=True)))
    for kind in ("cells", "utterances", "alphas"):
        frames = []
        for rows in (one, two):
            frame = getattr(rows, kind).drop(columns=TIMES, errors="ignore")
            keys = [n for n in ("cell", "evaluation", "task", "stage", "utterance") if n in frame]
            frames.append(frame.sort_values(keys).reset_index(drop=True))
        pd.testing.assert_frame_equal(*frames)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return planted_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "study-planted"
    assert main([str(study), "--output", str(folder)]) == 0
    return folder


def test_a_true_difference_is_supported_and_everything_is_written(finished):
    table = table_of(finished)
    assert [v["verdict"] for v in table["verdicts"]] == ["supported here"], table["verdicts"]
    assert table["complete"] and (table["cells_done"], table["tables"]["missing"]["rows"]) == (6, [])
    (row,) = table["tables"]["comparisons"]["rows"]
    assert (
        row["benefit"] > 0.4 and row["p_holm"] < 0.05 and row["benefit_low"] > 0 and (row["seeds"], row["n"]) == (3, 16)
    )
    assert {(r["system"], r["metric"]) for r in table["tables"]["scores"]["rows"]} == {
        (s, m) for s in ("learns", "idle") for m in ("ua", "wa")
    }
    alphas = pd.DataFrame(table["tables"]["alphas"]["rows"])
    sums = alphas.groupby(["system", "stage"])["alpha"].sum()
    assert len(sums) == 4 and sums.tolist() == pytest.approx([1] * 4, abs=1e-4)
    costs = {r["system"]: r for r in table["tables"]["costs"]["rows"]}
    assert costs["learns"]["steps"] == STEPS and costs["learns"]["speech_seconds"] > 100
    kept = sorted(p.name for p in finished.iterdir())
    assert kept == ["README.md", "alphas.parquet", "cells.parquet", "environment.json", "scratch", "study.yaml",
                    "table.json", "utterances.parquet"]  # fmt: skip
    assert not list((finished / "scratch").iterdir())
    card = (finished / "README.md").read_text()
    assert "**supported here**" in card and "--table-only" in card
    assert read_table(StudyFolder(finished)).verdicts[0].about == "Training beats none."
    assert [f.name for f in find_studies(finished.parent)] == ["study-planted"] and find_runs(finished.parent) == []


def test_cells_compute_with_one_thread_whatever_the_machine_has(finished):
    assert set(read_rows(StudyFolder(finished)).cells["threads"]) == {1}
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_utterance_rows_hold_what_a_score_is_made_of(finished):
    rows = read_rows(StudyFolder(finished)).utterances
    assert len(rows) == 6 * 16 and rows["errors"].isna().all()
    assert (rows["correct"] == (rows["reference"] == rows["prediction"])).all()
    assert rows["speaker"].nunique() == 4 and set(rows["cell"]) == {
        f"{s}.seed-{i}" for s in ("learns", "idle") for i in range(3)
    }


def test_the_table_comes_from_the_committed_files_alone(finished, tmp_path, capsys):
    copy = StudyFolder(tmp_path / "study-copy")
    for name in ("study.yaml", "cells.parquet", "utterances.parquet", "alphas.parquet"):
        copy.path.mkdir(exist_ok=True)
        (copy.path / name).write_bytes((finished / name).read_bytes())
    assert main([str(copy.study_file), "--output", str(copy.path), "--table-only"]) == 0
    ours, theirs = table_of(copy.path), table_of(finished)
    for key in ("again", "table_again"):
        ours.pop(key), theirs.pop(key)
    assert ours == theirs and "SUPPORTED HERE: Training beats none." in capsys.readouterr().out


def test_a_finished_study_has_nothing_to_do_and_one_cell_again_gives_the_same(study, finished, tmp_path, capsys):
    assert main([str(study), "--output", str(finished), "--list"]) == 0 and capsys.readouterr().out == ""
    other = tmp_path / "again"
    assert main([str(study), "--output", str(other), "--systems", "learns", "--seeds", "1"]) == 0
    again, whole = (read_rows(StudyFolder(f)) for f in (other, finished))
    mine = whole.utterances[whole.utterances["cell"] == "learns.seed-1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.utterances, mine)
    assert again.cells["config_hash"].tolist() == [
        "".join(whole.cells.set_index("cell").loc[["learns.seed-1"], "config_hash"])
    ]
    table = table_of(other)
    assert not table["complete"] and [r["system"] for r in table["tables"]["missing"]["rows"]] == ["idle"]
    assert (
        table["verdicts"][0]["verdict"] == "undecided at this size"
        and "no cells yet" in table["verdicts"][0]["evidence"]
    )


def test_equal_cells_of_another_study_are_copied_under_their_new_names(study, finished, tmp_path, capsys):
    values = yaml.safe_load(study.read_text())
    values["systems"][0]["name"] = "trained"
    values["systems"][1] |= {"name": "warm", "set": {"training.learning_rate": 1e-3}}
    values["claims"][0]["comparisons"] = [{"system": "trained", "baseline": "warm", "task": "ser"}]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(values | {"name": "other"}, sort_keys=False))
    out = tmp_path / "study-other"
    assert main([str(other), "--output", str(out), "--seeds", "0,1", "--reuse", str(finished)]) == 0
    assert "trained.seed-1: the same cell as study-planted/learns.seed-1, copied" in capsys.readouterr().err
    ours, theirs = (read_rows(StudyFolder(f)) for f in (out, finished))
    cells = ours.cells.set_index("cell")
    assert cells["reused"].fillna("").to_dict() == {
        "trained.seed-0": "study-planted/learns.seed-0", "warm.seed-0": "",
        "trained.seed-1": "study-planted/learns.seed-1", "warm.seed-1": "",
    }  # fmt: skip
    assert cells.loc["trained.seed-0", "date"] == theirs.cells.set_index("cell").loc["learns.seed-0", "date"]
    for kind in ("utterances", "alphas"):
        one, two = (
            getattr(rows, kind).query("cell == @name").drop(columns=["cell", "system"]).reset_index(drop=True)
            for rows, name in ((ours, "trained.seed-1"), (theirs, "learns.seed-1"))
        )
        pd.testing.assert_frame_equal(one, two)


def test_a_kill_loses_one_cell_and_shards_do_the_rest(study, finished, tmp_path, capsys):
    folder = tmp_path / "study-killed"
    arguments = [str(study), "--output", str(folder), "--seeds", "0,1"]
    command = [sys.executable, "-m", "harmonifuse_core.study", *arguments]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not StudyFolder(folder).part_names() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = StudyFolder(folder).part_names()
    assert 1 <= len(done) < 4, "it was killed while cells were left"
    assert main([*arguments, "--table-only"]) == 0
    assert table_of(folder)["cells_done"] == len(done) and "cells are missing" in capsys.readouterr().out
    dates = read_rows(StudyFolder(folder)).cells.set_index("cell")["date"]
    for index in (0, 1):
        assert main([*arguments, "--num-shards", "2", "--shard-index", str(index)]) == 0
    assert StudyFolder(folder).part_names() == [], "whole: three tables instead of parts"
    after = read_rows(StudyFolder(folder)).cells.set_index("cell")["date"]
    assert len(after) == 4 and after[dates.index].equals(dates), "what was there was not done again"
    same_rows(folder, finished)
    copy = shutil.copytree(finished, tmp_path / "study-copy")
    assert main([str(study), "--output", str(copy), "--seeds", "0,1", "--table-only"]) == 0
    killed, whole = table_of(folder), table_of(copy)
    for name in ("scores", "comparisons", "claims", "alphas"):
        assert killed["tables"][name] == whole["tables"][name]


def test_a_changed_system_is_stale_and_a_changed_claim_is_not(finished, tmp_path, capsys):
    contrast = {"system": "idle", "baseline": "learns", "task": "ser", "expect": "not worse", "margin": 0.1}
    claims = [{"name": "training", "text": "No training is as good.", "comparisons": [contrast]}]
    other = planted_study(tmp_path / "claims", claims=claims)
    text = other.read_text().replace(str(tmp_path / "claims" / "corpus"), corpus_of(finished))
    other.write_text(text)
    assert main([str(other), "--output", str(finished), "--list"]) == 0 and capsys.readouterr().out == ""
    other.write_text(text.replace("training.learning_rate: 0.0", "training.learning_rate: 1.0e-09"))
    assert main([str(other), "--output", str(finished), "--list"]) == 0
    assert capsys.readouterr().out.split() == [f"idle.seed-{i}" for i in range(3)]


def corpus_of(finished: Path) -> str:
    return str(Path(yaml.safe_load((finished / "study.yaml").read_text())["evaluations"][0]["manifest"]).parent)


def test_a_cell_that_fails_is_named_and_the_others_go_on(study, tmp_path, capsys):
    values = yaml.safe_load(study.read_text())
    values["systems"][0]["set"] = {"model.gate.mode": "fixed:7"}
    values["seeds"] = [0]
    values["base"]["training"]["steps"] = 2
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(values))
    assert main([str(broken), "--output", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "learns.seed-0: FAILED" in printed.err and "fixed:7" in printed.err
    assert (
        "1 cells are missing: learns.seed-0" in printed.out
        and not (tmp_path / "out" / "scratch" / "learns.seed-0").exists()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--systems", "nobody"], "system 'nobody' is unknown"),
        (["--seeds", "a"], "write whole numbers"),
        (["--num-shards", "2", "--shard-index", "2"], "the index goes from 0"),
        (["--resamples", "1"], "at least 2"),
        (["--reuse", "runs/study-nowhere"], "name the folder of another study"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_reason(study, tmp_path, capsys, arguments, words):
    try:
        code = main([str(study), "--output", str(tmp_path / "x"), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and words in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_table_of_nothing_says_so(study, tmp_path, capsys):
    assert main([str(study), "--output", str(tmp_path / "x"), "--table-only"]) == 1
    assert "no finished cell" in capsys.readouterr().err


def test_a_kept_model_loads_and_has_its_training_log(study, tmp_path):
    folder = StudyFolder(tmp_path / "kept")
    arguments = ["--systems", "idle", "--seeds", "0", "--keep-models"]
    assert main([str(study), "--output", str(folder.path), *arguments]) == 0
    kept = folder.model("idle.seed-0")
    rows, steps = kept.metrics(), kept.config().training.steps
    assert [row["step"] for row in rows][-1] == steps and rows[-1]["tasks"]
    assert {task.name for task in load(kept).config.tasks} == set(rows[-1]["tasks"])
