"""Overview, layer weights and routing explorer in their states: empty, partial, damaged, full; links and exports."""

import shutil

import numpy as np
import pytest
from dashboard import charts, opened, shown, unfolded

from harmonifuse_core.routing import read_routing
from harmonifuse_core.runs import RunFolder, write_text

VIEWS = ("tasks", "training", "difference", "groups")


def alone(at, column: str):
    """The table that has this column, opened if need be."""
    return next(frame.value for frame in unfolded(at).dataframe if column in frame.value)


def test_with_a_config_only_each_page_gives_the_next_command(bare_run):
    said = shown(opened("overview"))
    assert "It is untrained" in said and "harmonifuse_core.train --config runs/bare/config.yaml" in said
    for page in ("layer_weights", "explorer"):
        assert "harmonifuse_core.evaluate --run runs/bare" in shown(opened(page))
    assert "harmonifuse_core.train" in shown(opened("layer_weights", view="training"))


def test_damaged_files_are_explained_on_each_page(full_run):
    write_text(full_run.config_file, "model: {encoder: 3}")
    write_text(full_run.metrics_file, '{"step": 1, "tasks": 3}\n{"st')
    write_text(full_run.part("analysis", "signatures.json"), "{")
    full_run.part("routing", "test.parquet").write_bytes(b"PAR1")
    said = shown(opened("overview"))
    assert "config cannot be read" in said and "signatures.json is damaged" in said
    for page in ("layer_weights", "explorer"):
        said = shown(opened(page))
        assert "test.parquet is not a readable Parquet file" in said and "harmonifuse_core.evaluate" in said
    assert "No training log" in shown(opened("layer_weights", view="training"))


def test_overview_lists_every_run_and_details_the_chosen_one(full_run, bare_run):
    at = opened("overview", run="full")
    table = alone(at, "health")
    assert table.run.tolist() == ["bare", "full"] and table.state.tolist() == ["untrained", "part-trained"]
    row = table[table.run == "full"].iloc[0]
    assert 0 <= row.UA <= 1 and len(row["alpha ser lm"]) == 3
    assert "What to look at first" in shown(at) and "Can its numbers be trusted?" in shown(at) and charts(at) == 2
    at.text_input(key="choice-text").set_value("untrained").run()
    assert not at.exception and alone(at, "health").run.tolist() == ["bare"] and at.query_params["text"] == "untrained"


def test_layer_weights_are_the_means_of_what_was_logged(full_run):
    at = opened("layer_weights")
    table = alone(at, "std")
    logged = read_routing(full_run.part("routing", "test.parquet"), filters={"task": "ser", "stage": "encoder"})
    mine = table[(table.task == "ser") & (table.stage == "encoder") & (table.weights == "alpha")]
    assert mine["mean"].tolist() == pytest.approx(np.stack(list(logged.alpha)).mean(0), abs=1e-6)
    assert charts(at) == 4 and set(table.weights) == {"alpha", "share"}
    assert len(at.get("download_button")) == 3


@pytest.mark.parametrize("view", VIEWS)
def test_a_link_opens_each_view_of_the_layers(full_run, view):
    at = opened("layer_weights", view=view)
    assert charts(at) >= 2 and unfolded(at).dataframe and "is not to be had here" not in shown(at)


def test_the_slider_shows_the_step_of_the_link_and_broken_links_explain_themselves(full_run):
    assert set(alone(opened("layer_weights", view="training", step="50"), "step").step) == {50}
    said = shown(opened("layer_weights", view="nowhere"))
    assert "view=nowhere in the link is not to be had here" in said


def test_spread_over_seeds_needs_a_second_seed(full_run, runs_folder):
    assert "One seed only" in shown(opened("layer_weights", value="seeds"))
    shutil.copytree(full_run.path, runs_folder / "other")
    config = RunFolder(runs_folder / "other").config_file
    write_text(config, config.read_text().replace("seed: 0", "seed: 7"))
    at = opened("layer_weights", value="seeds", run="full")
    table = alone(at, "std over runs")
    assert table["std over runs"].max() == 0 and set(table.runs) == {2}  # the same weights twice


def test_the_explorer_draws_every_answer_and_lists_it(full_run, hostile):
    at = opened("explorer", task="ser", stage="lm")
    assert charts(at) == 1 and len(alone(at, "x")) == 7
    assert "7 answers fit the filter" in shown(at)
    for element in [*at.markdown, *at.caption]:
        assert hostile not in str(element.value)


def test_a_choice_makes_the_parts_that_show_it_again_and_no_other(full_run, monkeypatch):
    """A colour moves no row of the table, and no choice makes the boxes again."""
    from app.components import explorer, explorer_choices

    made = []
    for module, name in ((explorer_choices, "show"), (explorer, "figure"), (explorer, "table")):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _name=name, _plain=plain: (made.append(_name), _plain(*a))[1])
    at = opened("explorer", task="ser", stage="lm")
    assert made == ["show", "figure", "table"]
    made.clear()
    at.selectbox(key="choice-colour").set_value("speaker").run()
    assert made == ["figure"] and at.query_params["colour"] == "speaker" and not at.exception
    at = opened("explorer", task="ser", stage="lm")  # the runner's page is now the part that was made last
    made.clear()
    at.selectbox(key="choice-task").set_value("asr").run()
    assert made == ["figure", "table"] and at.query_params["task"] == "asr" and not at.exception
    assert "7 answers fit the filter" in shown(at) and len(at.dataframe[0].value) == 7


def test_umap_of_few_answers_says_what_it_needs(full_run):
    at = opened("explorer", task="ser", stage="encoder", place="umap")
    assert not at.exception and "UMAP needs more than 15 logged answers" in shown(at)


def test_a_link_brings_back_filter_plane_and_utterance(full_run):
    at = opened("explorer", task="ser", stage="encoder", place="shape", speaker="speaker-1", utt="u-1", colour="error")
    table = alone(at, "x")
    assert set(table.speaker) == {"speaker-1"} and table.x.tolist() == pytest.approx(table.centre.tolist())
    assert "u-1" in shown(at) and "audio is not on this machine" in shown(at)
    at.text_input(key="choice-text").set_value("no such thing").run()
    assert not at.exception and "No logged answer fits this filter" in shown(at)
    said = shown(opened("explorer", speaker="nobody", utt="u-99"))
    assert "speaker=nobody in the link" in said and "not among the points above" in said
