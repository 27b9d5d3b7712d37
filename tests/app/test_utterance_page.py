"""The page of one utterance: empty, without and with its recording, with saved analyses, hostile, damaged."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dashboard import charts, opened, shown, sound, switch, unfolded
from factories import tone, write_wav

from app.audio_folders import DATA_VARIABLE
from app.logged_utterance import fusions_of, saved_attribution, saved_damage
from harmonifuse_core.analysis.result import write_rows
from harmonifuse_core.tasks import EMOTIONS

NO_DATA = "HARMONIFUSE_DATA="


@pytest.fixture
def recordings(tmp_path, monkeypatch, full_run):
    """An allowed folder with the recording of u-1 alone; the routing names one for every utterance."""
    path = full_run.part("routing", "test.parquet")
    table = pq.read_table(path)
    names = pa.array([f"{name}.wav" for name in table["utterance"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("audio"), "audio", names), path)
    write_wav(tmp_path / "data" / "u-1.wav", tone(0.6, 120.0, seed=1))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))


def test_without_any_run_or_routing_it_says_what_makes_one(runs_folder, full_run):
    full_run.part("routing", "test.parquet").unlink()
    assert "No routing is logged" in shown(opened("utterance")) and "--save test" in shown(opened("utterance"))


def test_without_an_utterance_one_can_be_searched(full_run):
    at = opened("utterance")
    assert "Choose an utterance" in shown(at) and charts(at) == 0
    at = sound(at.text_input(key="utterance_text").set_value("u-3").run())
    assert list(at.selectbox(key="utterance_id").options) == ["u-3"]
    at = sound(at.selectbox(key="utterance_id").set_value("u-3").run())
    assert "utterance?run=full&utt=u-3" in shown(at)


def test_without_the_recording_everything_logged_is_there(full_run, monkeypatch, tmp_path):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nothing"))
    said = shown(at := opened("utterance", run="full", utt="u-2"))
    for part in ("No recording", NO_DATA, "speaker-2", "substituted", f"reference: {EMOTIONS[2]}",
                 "Which layers did each task use?", "No knock-out is saved", "No attribution is saved", "routed alike",
                 "utt=u-2"):  # fmt: skip
        assert part in said
    assert charts(at) == 2
    table = next(frame.value for frame in unfolded(at).dataframe if "share" in frame.value)
    assert table.groupby(["task", "stage"]).alpha.sum().tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_with_the_recording_damage_and_attribution_are_worked_out_on_demand(full_run, recordings):
    at = opened("utterance", run="full", utt="u-1")
    assert NO_DATA not in shown(at) and at.get("audio") and charts(at) == 3
    at = switch(at, "Remove every layer once")
    assert len(next(frame.value for frame in at.dataframe if "damage" in frame.value)) == 12
    at = switch(at, "Work it out now, window by window")
    assert "frame ablation" in shown(at)
    scores = next(frame.value for frame in at.dataframe if "end" in frame.value)
    assert scores.start.tolist() == pytest.approx([0.1 * k for k in range(len(scores))])


def test_saved_rows_are_shown_instead(full_run, monkeypatch, tmp_path):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nothing"))
    write_rows(full_run.part("analysis", "faithfulness.parquet"), faithfulness_rows())
    write_rows(full_run.part("analysis", "attribution.parquet"), attribution_rows())
    said = shown(at := opened("utterance", run="full", utt="u-2"))
    assert "From the saved analysis" in said and "No knock-out" not in said
    table = next(frame.value for frame in at.dataframe if "damage" in frame.value)
    assert table.damage.tolist() == pytest.approx([0.5, -0.25]) and table.alpha.tolist() == pytest.approx([0.7, 0.3])
    full_run.part("analysis", "faithfulness.parquet").write_bytes(b"PAR1")
    assert "No knock-out is saved" in shown(opened("utterance", run="full", utt="u-2"))


def test_hostile_ids_and_texts_stay_text_and_unknown_ones_are_named(full_run, hostile):
    at = opened("utterance", run="full", utt=f"{hostile}?&#")
    assert f"{hostile}?&#" in shown(at)
    for element in [*at.markdown, *at.caption, *at.get("html")]:
        assert "<img" not in str(element.value)
    assert "has not logged that utterance" in shown(opened("utterance", run="full", utt="u-99"))


def faithfulness_rows() -> pd.DataFrame:
    common = {"utterance": "u-2", "speaker": "s", "task": "ser", "stage": "encoder"}
    removed = [
        common | {"condition": c, "weights": w, "layer": k, "loss": loss, "alpha": None}
        for c, w, k, loss in (("zero", "renormalised", 1, 0.75), ("zero", "renormalised", 0, 1.5),
                              ("zero", "held", 0, 9.0), ("mean", "renormalised", 0, 9.0))
    ]  # fmt: skip
    return pd.DataFrame([common | {"condition": "intact", "loss": 1.0, "alpha": [0.7, 0.3]}, *removed])


def attribution_rows() -> pd.DataFrame:
    row = {"utterance": "u-2", "task": "ser", "answer": "sad"}
    return pd.DataFrame([
        row | {"method": "layer_ablation", "scores": [1.0], "names": ["layer 0"]},
        row | {"method": "frame_integrated_gradients", "scores": [0.5, -1.0], "names": ["0.00-0.02 s", "0.02-0.04 s"]},
    ])  # fmt: skip


def test_saved_damage_is_the_rise_over_the_intact_loss():
    found = saved_damage(faithfulness_rows())
    assert found[["stage", "layer", "damage"]].to_numpy().tolist() == [["encoder", 0, 0.5], ["encoder", 1, -0.25]]
    assert saved_damage(pd.DataFrame()).empty


def test_saved_attribution_keeps_its_times_and_signs():
    found = saved_attribution(attribution_rows(), "ser")
    assert found.spans.tolist() == [[0.0, 0.02], [0.02, 0.04]] and found.scores.tolist() == [0.5, -1.0]
    assert saved_attribution(attribution_rows(), "asr") is None and saved_attribution(pd.DataFrame(), "ser") is None


def test_what_was_compared_is_said_in_words():
    every = [(t, s) for t in ("asr", "ser") for s in ("encoder", "lm")]
    assert fusions_of(every) == "asr, ser: encoder + lm"
    assert fusions_of([("asr", "lm"), *every[2:]]) == "asr: lm; ser: encoder + lm"
