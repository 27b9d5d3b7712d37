"""Pages that read results, in their states: nothing there, damaged, whole; with planted numbers and hostile text."""

import json
import shutil
from pathlib import Path

import pandas as pd
import planted_results as planted
import pytest
from dashboard import unfolded
from factories import tiny_config
from streamlit.testing.v1 import AppTest

from app import jobs, services
from app.components import finding, frame, probing
from app.services import result_files
from harmonifuse_core.config import save_yaml
from harmonifuse_core.runs import RunFolder, write_text

APP = Path(__file__).resolve().parents[2] / "app"
PATIENCE = 120  # seconds; the machine may be busy
RUN_PAGES = ("faithfulness", "prompt_lab", "probes")
TEXTS = ("title", "header", "subheader", "markdown", "caption", "text", "code", "error", "warning", "info")


def opened(page: str, **query: str) -> AppTest:
    """A page by itself, with the run that the frame would have chosen, without any exception on it."""
    at = AppTest.from_file(str(APP / "views" / f"{page}.py"), default_timeout=PATIENCE)
    if names := [run.name for run in services.runs()]:
        at.session_state[frame.KEPT] = query.get("run", names[0])
    for name, value in query.items():
        at.query_params[name] = value
    return checked(at.run())


def checked(at: AppTest) -> AppTest:
    assert not at.exception, at.exception[0].message
    return at


def shown(at: AppTest) -> str:
    return "\n".join(str(element.value) for kind in TEXTS for element in at.get(kind))


def hostile_places(at: AppTest) -> set[str]:
    """Kinds of elements that hold the hostile text."""
    kinds = (*TEXTS, "html", "expander", "button", "tab")
    return {k for k in kinds for e in at.get(k) if planted.HOSTILE in str(getattr(e, "value", getattr(e, "label", "")))}


@pytest.fixture
def run(runs_folder) -> RunFolder:
    """A config and nothing else."""
    run = RunFolder(runs_folder / "one")
    run.path.mkdir()
    save_yaml(tiny_config("whisper", title="A run"), run.config_file)
    return run


@pytest.fixture
def planted_run(run) -> RunFolder:
    planted.plant(run)
    return run


def test_the_router_knows_every_page(run):
    at = AppTest.from_file(str(APP / "main.py"), default_timeout=PATIENCE).run()
    for page, title in (("faithfulness", "Faithfulness"), ("study", "Study"), ("jobs", "Jobs")):
        at.switch_page(f"views/{page}.py")
        assert checked(at.run()).title[0].value == title


@pytest.fixture(autouse=True)
def corpora(tmp_path_factory, monkeypatch):
    """A folder of manifests, whether or not this machine has one."""
    folder = tmp_path_factory.mktemp("data")
    write_text(folder / "tones.jsonl", "")
    monkeypatch.setattr(result_files, "DATA", folder)
    return folder


@pytest.mark.parametrize("page", [*RUN_PAGES, "compare"])
def test_without_any_run_each_page_says_how_to_make_one(runs_folder, page):
    assert "There is no run yet" in shown(opened(page))


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("faithfulness", "--only faithfulness"), ("prompt_lab", "--only prompts"), ("probes", "-m probes.run --run"),
        ("compare", "python -m harmonifuse_core.train"),
    ],
)  # fmt: skip
def test_without_its_result_a_page_gives_the_exact_command(run, page, command):
    at = opened(page)
    assert command in shown(at)
    if page != "compare":
        assert f"--run {run.path}" in shown(at) and at.button(
            key=next(k for k in keys(at) if k.startswith("job-start"))
        )


@pytest.mark.parametrize(
    ("page", "command"), [("faithfulness", "--only faithfulness"), ("probes", "-m probes.run --run")]
)
def test_without_any_corpus_on_the_machine_the_command_says_what_is_missing(run, corpora, page, command):
    (corpora / "tones.jsonl").unlink()
    at = opened(page)
    shown_command = next(code.value for code in at.code if command in code.value)
    assert "--manifest MANIFEST.jsonl" in shown_command and "in place of MANIFEST.jsonl" in shown(at)
    assert not [key for key in keys(at) if key.startswith("job-start")]


def keys(at: AppTest) -> list[str]:
    return [button.key or "" for button in at.button]


def test_the_command_follows_the_fields_and_a_server_may_keep_the_button(run, monkeypatch):
    at = opened("faithfulness")
    at.number_input(key="job-limit-faithfulness").set_value(0)
    at.text_input(key="job-split-faithfulness").set_value("dev two").run()
    command = next(code.value for code in at.code if "analyse" in code.value)
    assert "--split 'dev two'" in command and "--limit" not in command
    monkeypatch.setenv("HARMONIFUSE_JOBS", "off")
    assert not [key for key in keys(opened("faithfulness")) if key.startswith("job-start")]


@pytest.mark.parametrize("page", RUN_PAGES)
def test_a_damaged_result_is_explained_and_its_command_given(planted_run, page):
    for name in planted_run.names("analysis", ".json"):
        write_text(planted_run.part("analysis", name), '{"tables": {"layers": 3}')
    write_text(planted_run.part("probes", "tones-test.json"), "[]")
    said = shown(opened(page))
    assert "This result cannot be read." in said and "is damaged" in said and "python -m " in said


VIEWS = [
    ("faithfulness", "verdict", "Faithful", 1), ("faithfulness", "curves", "Insertion", 4),
    ("faithfulness", "agreement", "Alpha and effective share against the damage", 1), ("faithfulness", "layers", "", 1),
    ("faithfulness", "input", "The input matters", 2), ("faithfulness", "tasks", "Centre of mass", 3),
    ("faithfulness", "needs", "ASR: what the answer loses without a layer", 3),
    ("faithfulness", "signatures", "Found: 1", 0), ("prompt_lab", "batch", "Prompt ignored", 1),
    ("prompt_lab", "tokens", "SER: what the answer loses without a prompt token", 2),
    ("probes", "found", ": held. ", 1),
    ("probes", "joined", "Not joined: damage. no faithfulness", 2), ("probes", "layers", "", 1),
    ("probes", "sets", "Best layer over log-mel", 3), ("probes", "confusion", "not stored", 0),
    ("probes", "erasure", "SER without emotion", 2),
]  # fmt: skip


@pytest.mark.parametrize(("page", "view", "expected", "charts"), VIEWS)
def test_each_view_shows_its_result_with_table_definition_and_export(planted_run, page, view, expected, charts):
    at = opened(page, view=view)
    assert expected in shown(at)
    assert len(at.get("plotly_chart")) == charts
    if view != "confusion":
        at = unfolded(at)
        assert at.dataframe and "Definition of " in shown(at) and len(at.get("download_button")) >= 2
    assert hostile_places(at) <= {"text"}


def test_a_link_opens_its_task_and_stage_and_the_table_is_the_files(planted_run):
    at = opened("faithfulness", view="curves", task="ser", stage="lm")
    table = unfolded(at).dataframe[0].value
    rows = [r for r in planted.faithfulness()["tables"]["curves"]["rows"] if (r["task"], r["stage"]) == ("ser", "lm")]
    pd.testing.assert_frame_equal(table.reset_index(drop=True), pd.DataFrame(rows), check_dtype=False)


def test_a_broken_link_says_what_was_ignored(planted_run):
    said = shown(opened("faithfulness", view="No View", stage="attic"))
    assert "view=No View is not the name of a view" in said and "stage=attic is not a stage" in said


def test_every_prompt_is_asked_live_and_moves_the_lm_alone(full_run):
    at = opened("prompt_lab", view="live", run="full")
    at.button(key="sample-input-quick-voice").click().run()
    at.text_area(key="lab-typed").set_value(f"{planted.HOSTILE}\nSecond").run()
    checked(at.button(key="lab-ask").click().run())
    table = at.dataframe[0].value
    assert set(table["task"]) == {"asr", "ser"} and list(table["prompt"]).count(planted.HOSTILE) == 2
    own = table[table["kind"] == "own prompt"]
    assert len(own) == 2 and own["lm_jsd"].abs().max() < 1e-12 and not own["changed"].any()
    assert table["lm_jsd"].max() > 1e-6 and table["encoder_jsd"].abs().max() < 1e-9
    alpha = table[[c for c in table if c.startswith("alpha ")]]
    assert alpha.sum(axis=1).tolist() == pytest.approx([1.0] * len(table), abs=1e-5)
    assert hostile_places(at) <= {"text"}


# --- studies ---


def test_without_a_study_the_page_gives_the_command(runs_folder):
    assert "python -m harmonifuse_core.study" in shown(opened("study"))


@pytest.mark.parametrize(
    ("view", "expected", "charts"),
    [("claims", "Supported here", 1), ("scores", "UA on test", 1), ("weights", "one standard deviation", 1),
     ("costs", "What each system costs", 0)],
)  # fmt: skip
def test_a_whole_study_shows_claims_scores_weights_and_costs(runs_folder, view, expected, charts):
    planted.plant_study(runs_folder)
    at = opened("study", view=view, study="study-e2")
    assert expected in shown(at) and "A planted study" in shown(at) and "not whole yet" not in shown(at)
    assert len(at.get("plotly_chart")) == charts and at.get("download_button")
    if view == "claims":
        claims = planted.study()["tables"]["claims"]["rows"]
        assert all(f"{place}. {claim['text']}" in shown(at) for place, claim in enumerate(claims, 1))
    assert hostile_places(at) <= {"text"}


def test_an_unfinished_study_says_how_far_it_is_and_how_to_go_on(runs_folder):
    folder = planted.plant_study(runs_folder, done=3)
    said = shown(opened("study"))
    assert "3 of 4 cells" in said and f"--output {folder.path}" in said and "--table-only" in said
    write_text(folder.table_file, "{")
    assert "table.json is damaged" in shown(opened("study"))


# --- two runs, jobs ---


def test_two_runs_are_compared_on_what_both_answered(full_run, runs_folder):
    shutil.copytree(full_run.path, runs_folder / "twin")
    at = opened("compare", run="full", versus="twin", result="test")
    said = shown(at)
    assert "No provable difference" in said and "A: full · B: twin" in said
    scores = next(frame.value for frame in unfolded(at).dataframe if "p_holm" in frame.value)
    assert (scores["difference"] == 0).all() and set(scores["better"]) == {"neither"}
    at = opened("compare", run="full", versus="twin", result="test", view="weights")
    assert "No provable difference" in shown(at) and len(at.get("plotly_chart")) == 2
    alpha = next(frame.value for frame in unfolded(at).dataframe if {"a", "b"} <= set(frame.value))
    assert (alpha["difference"] == 0).all() and alpha["a"].tolist() == alpha["b"].tolist()
    at = opened("compare", run="full", versus="twin", view="parameters")
    checked(at.toggle(key="versus-parameters").set_value(True).run())
    moved = next(frame.value for frame in unfolded(at).dataframe if "relative" in frame.value)
    assert (moved["relative"] == 0).all() and moved["values"].sum() > 1000 and "encoder layer 1" in set(moved["group"])


def test_runs_without_a_shared_evaluation_get_both_commands(full_run, run):
    said = shown(opened("compare", run="full", versus="one"))
    assert "share no logged evaluation" in said and said.count("harmonifuse_core.evaluate --run") == 2


def test_jobs_are_listed_with_their_end_and_survive_a_new_session(runs_folder, run):
    assert "Nothing was started from here yet" in shown(opened("jobs"))
    place = result_files.jobs_place() / "20260101-000000-analyse-0123ab"
    place.mkdir(parents=True)
    arguments = ["--run", planted.HOSTILE]
    jobs.write(place / jobs.JOB, {"kind": "analyse", "arguments": arguments, "started": "2026-01-01T00:00:00+00:00"})
    jobs.write(place / jobs.END, {"code": 2})
    (place / jobs.LOG).write_text(f"analyse: {planted.HOSTILE}")
    at = opened("jobs")
    assert "Failed (exit code 2)" in shown(at) and f"analyse: {planted.HOSTILE}" in shown(at)
    assert hostile_places(at) <= {"text", "code"}
    at.button(key="jobs-clear").click().run()
    assert not place.exists()


def test_the_fullest_probe_result_comes_first_and_names_the_layers_of_the_best_set(planted_run):
    names = result_files.probe_names(planted_run)
    small = planted.result("a-small-one", {"best": []}, [])
    write_text(planted_run.part("probes", "a-small-one.json"), json.dumps(small))
    assert result_files.probe_names(planted_run) == [*names, "a-small-one"]
    table = probing.overview(result_files.probes(planted_run, names[0]).frame("best"))
    assert "held · layers 1, 2 · ua 0.50" in table.iloc[0].tolist()


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("2026-11-25T17:35:31+02:00", "2026-11-25 15:35 UTC"),
        ("soon", "soon"),
        (None, "date unknown"),
    ],
)
def test_a_record_s_date_is_told_to_the_minute(stored, text):
    assert finding.when(stored) == text
