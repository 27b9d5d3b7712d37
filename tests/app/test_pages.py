"""Every page in its states: empty, partial, damaged, full. Through Streamlit's own test runner, with the real model."""

import pytest
from dashboard import charts, press, shown, sound, unfolded
from dashboard import opened as visited
from factories import tone, write_wav
from streamlit.testing.v1 import AppTest

from harmonifuse_core.runs import write_text


def opened(page: str = "listen", view: str = "", **query: str) -> AppTest:
    """The dashboard at a page, and at one of Run's tabs; nothing on it says None."""
    at = visited(page, {"run_view": view} if view else {}, **query)
    assert all(element.value.strip("`") != "None" for element in at.markdown)
    return at


@pytest.mark.parametrize("page", ["listen", "run", "overview", "layer_weights", "explorer"])
def test_without_any_run_each_page_says_how_to_make_one(runs_folder, page):
    said = shown(opened(page))
    assert "There is no run yet" in said and "python -m harmonifuse_core.train" in said


def test_listen_with_a_config_only_names_what_lacks(bare_run):
    at = opened()
    assert "has no model/weights.json" in shown(at) and "untrained" in shown(at)
    assert at.get("file_uploader")


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("Results", "harmonifuse_core.evaluate --run runs/bare"),
        ("Training", "harmonifuse_core.train --config runs/bare/config.yaml"),
        ("Layer weights", "harmonifuse_core.train --config runs/bare/config.yaml"),
        ("Utterances", "--save test"),
        ("Model card", "harmonifuse_core.card --run runs/bare"),
        ("Settings", "environment.json is missing"),
    ],
)
def test_run_with_a_config_only_gives_the_command_of_each_part(bare_run, view, expected):
    said = shown(opened("run", view))
    assert expected in said and "untrained" in said and "No training log" in said and "A bare run" in said


@pytest.mark.parametrize(
    "view", ["Results", "Classes", "Training", "Layer weights", "Utterances", "Model card", "Settings"]
)
def test_a_damaged_run_is_explained_and_the_page_goes_on(full_run, view):
    write_text(full_run.config_file, "model: {encoder: 3}")
    write_text(full_run.metrics_file, '{"step": 1, "tasks": 3}\n{"st')
    write_text(
        full_run.part("evaluation", "test.json"), '{"ser": {"ua": "x", "confusion": [[1]], "labels": ["a", "b"]}}'
    )
    full_run.part("routing", "test.parquet").write_bytes(b"PAR1")
    write_text(full_run.environment_file, "[]")
    said = shown(opened("run", view))
    assert "config of this run cannot be read" in said
    if view == "Utterances":
        assert "test.parquet is not a readable Parquet file" in said


def test_listen_with_damaged_weights_says_so(full_run):
    (full_run.model / "weights-1.safetensors").write_bytes(b"no")
    assert "cannot be loaded" in shown(opened())


def test_listen_offers_samples_and_answers_for_one(full_run):
    at = opened()
    assert "No recording yet" in shown(at) and "untrained" not in shown(at)
    press(at, "sample-input-calm-voice")
    said = shown(at)
    for part in ("Transcript", "Emotion", "Which layers did each task use?", "Answered in", "calm-voice.wav", "pieces"):
        assert part in said
    assert charts(at) >= 5  # classes, encoder, LM, sound, tokens
    assert len(at.get("download_button")) >= 4


def test_the_heatmaps_table_has_all_four_parts_of_every_weight(full_run):
    at = press(opened(), "sample-input-quick-voice")
    table = next(frame.value for frame in at.dataframe if "share" in frame.value)
    assert list(table.columns) == ["task", "stage", "layer", "state", "alpha", "share", "bias", "score"]
    assert table.groupby(["task", "stage"]).alpha.sum().tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_an_edited_prompt_shows_what_changed_and_goes_back(full_run):
    at = press(opened(), "sample-input-quick-voice")
    at.text_area(key="prompt-full-ser").set_value("Say something else entirely").run()
    sound(at)
    assert "What changed against the default prompt" in shown(at) and "Jensen-Shannon" in shown(at)
    table = next(frame.value for frame in at.dataframe if "difference" in frame.value)
    assert set(table.task) == {"ser"}
    assert table[table.stage == "lm"].difference.abs().max() > 1e-4
    assert table[table.stage == "encoder"].difference.abs().max() < 1e-5
    press(at, "reset-full-ser")
    assert "What changed against the default prompt" not in shown(at)
    assert at.text_area(key="prompt-full-ser").value == "Recognize the speaker's emotion."


def test_a_paraphrase_fills_the_editor(full_run):
    at = press(opened(), "sample-input-quick-voice")
    at.selectbox(key="paraphrase-full-asr").set_value("What words are spoken?").run()
    assert at.text_area(key="prompt-full-asr").value == "What words are spoken?"


def upload(at: AppTest, name: str, data: bytes) -> AppTest:
    return sound(at.file_uploader(key="upload").set_value((name, data, "audio/wav")).run())


def test_an_upload_is_answered_and_its_name_stays_text(full_run, hostile, wav):
    at = upload(opened(), f"{hostile}.wav", wav.read_bytes())
    holders = [kind for kind in ("markdown", "html", "text") for e in at.get(kind) if hostile in str(e.value)]
    assert set(holders) == {"text"}
    assert "Answered in" in shown(at)


@pytest.mark.parametrize("data", [b"", b"RIFFxxxxWAVE", b"\x89PNG\r\n\x1a\n" + bytes(50), b"\x00" * 5000])
def test_a_file_that_is_no_recording_gives_a_message_and_the_next_one_works(full_run, wav, data):
    at = upload(opened(), "bad.wav", data)
    assert "This recording cannot be used" in shown(at) and "bad.wav: " in shown(at)
    assert "Answered in" in shown(upload(at, "good.wav", wav.read_bytes()))


def test_no_session_sees_the_recording_of_another(full_run, wav):
    upload(opened(), "secret-name.wav", wav.read_bytes())
    other = opened()
    assert "secret-name" not in shown(other) and "No recording yet" in shown(other)


def test_a_long_recording_is_announced_as_pieces(full_run, tmp_path):
    at = upload(opened(), "long.wav", write_wav(tmp_path / "long.wav", tone(5.0)).read_bytes())
    assert "pieces: texts are joined" in shown(at)


@pytest.mark.parametrize(
    ("view", "expected", "least"),
    [
        ("Results", "Accuracies (higher is better)", 2),
        ("Classes", "Which classes are taken for which?", 2),
        ("Training", "Scores on the dev corpora", 4),
        ("Layer weights", "SER · language model", 4),
        ("Utterances", "14 answers, page 1 of 1", 0),
        ("Model card", "Tiny run", 0),
        ("Settings", "Machine and seed", 0),
    ],
)
def test_a_full_run_shows_each_part_with_table_and_export(full_run, view, expected, least):
    at = opened("run", view)
    assert expected in shown(at) and "Can its numbers be trusted?" in shown(at)
    assert charts(at) >= least
    if view != "Model card":
        assert len(unfolded(at).dataframe) >= 1 and len(at.get("download_button")) >= 2


def test_the_address_names_the_view_and_brings_it_back(full_run):
    assert "Which classes are taken for which?" in shown(visited("run", run="full", view="classes"))
    said = shown(visited("run", run="full", utt="u-1", view="training"))
    assert "Scores on the dev corpora" in said, "a view in the link goes before the utterance's own"


def test_the_cards_html_is_not_rendered(full_run):
    at = opened("run", "Model card")
    card = next(e for e in at.markdown if "Tiny run" in e.value)
    assert card.allow_html is False


def test_a_deep_link_opens_its_utterance(full_run, hostile):
    at = opened("run", run="full", utt=f"{hostile}?&#")
    said = shown(at)
    assert f"{hostile}?&#" in said and "run?run=full&utt=%3Cimg" in said
    assert charts(at) == 2
    for element in [*at.markdown, *at.caption]:
        assert hostile not in str(element.value)


def test_broken_links_explain_themselves(full_run):
    said = shown(opened("run", run="nowhere", utt="u-99", layer="many"))
    assert "names the run nowhere" in said and "has not logged that utterance" in said
    assert "layer=many is not a layer number" in said


def test_filters_narrow_the_table(full_run):
    at = opened("run", "Utterances")
    at.text_input(key="routing_text").set_value("u-2").run()
    assert "2 answers" in shown(at)
    at.text_input(key="routing_text").set_value("no such thing").run()
    assert "No logged utterance fits" in shown(at)
