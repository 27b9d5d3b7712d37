"""Services: one model for everybody, results by content, logged routing through DuckDB."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_run, tone, write_wav

from app import services
from app.routing_query import RoutingFilter
from harmonifuse_core.data.audio import AudioError
from harmonifuse_core.runs import RunError, write_text

PROMPTS = (("asr", "Transcribe the speech."), ("ser", "Recognize the speaker's emotion."))


def clip_at(path: Path):
    return services.decode(path.read_bytes(), path.name)


def test_many_sessions_at_once_load_one_model(full_run):
    before, found = services.model_loads(), []
    threads = [threading.Thread(target=lambda: found.append(services.loaded(full_run).model)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(model) for model in found}) == 1 and len(found) == 8
    assert services.model_loads() == before + 1


def test_new_weights_are_loaded_anew(full_run):
    first = services.loaded(full_run).model
    index = full_run.model / "weights.json"
    index.write_text(index.read_text() + "\n")
    assert services.loaded(full_run).model is not first


def test_results_are_found_by_content_not_by_name(full_run, tmp_path):
    one, two = write_wav(tmp_path / "a.wav", tone(0.5)), write_wav(tmp_path / "b.wav", tone(0.5))
    other = write_wav(tmp_path / "c.wav", tone(0.5, 300.0))
    first = services.answer(full_run, clip_at(one), PROMPTS)
    assert services.answer(full_run, clip_at(two), PROMPTS) is first
    assert services.answer(full_run, clip_at(other), PROMPTS) is not first
    changed = services.answer(full_run, clip_at(one), (("ser", "How does the speaker feel?"),))
    assert set(changed.answers) == {"ser"} and changed.answers["ser"].prompt == "How does the speaker feel?"


def test_the_prompt_moves_alpha_of_the_lm_and_not_of_the_encoder(full_run, wav):
    clip = clip_at(wav)
    default = services.answer(full_run, clip, PROMPTS).answers["ser"]
    edited = services.answer(full_run, clip, (("ser", "Completely other words here"),)).answers["ser"]
    assert np.abs(default.lm.alpha - edited.lm.alpha).max() > 1e-3
    assert np.allclose(default.encoder.alpha, edited.encoder.alpha, atol=1e-6)


def test_answers_come_with_their_time_and_pieces(full_run, tmp_path):
    answered = services.answer(full_run, clip_at(write_wav(tmp_path / "long.wav", tone(5.0))), PROMPTS)
    assert answered.pieces >= 3 and answered.audio_seconds == pytest.approx(5.0)
    assert answered.seconds > 0 and answered.device == "CPU"


def test_a_run_without_or_with_damaged_weights_says_so(full_run):
    (full_run.model / "weights-1.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="cannot be loaded"):
        services.loaded(full_run)
    (full_run.model / "weights.json").unlink()
    with pytest.raises(RunError, match="no model"):
        services.loaded(full_run)


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(AudioError, match="is empty"):
        services.decode(b"", "x.wav")
    with pytest.raises(AudioError):
        services.decode(b"RIFF\x00\x00\x00\x00WAVEjunk" + bytes(100), "x.wav")


def test_the_picture_is_small_whatever_the_length(tmp_path):
    picture = services.picture(clip_at(write_wav(tmp_path / "long.wav", tone(30.0))))
    assert picture.mel.shape == (80, 1200) and len(picture.low) == len(picture.high) == 1200


def test_untrained_is_a_run_without_log_and_evaluation(runs_folder, full_run):
    bare = tiny_run(runs_folder, "bare")
    assert services.is_trained(full_run) and not services.is_trained(bare)
    write_text(bare.metrics_file, "not json\n[1]\n")
    assert not services.is_trained(bare)


def test_damaged_files_are_named_and_the_rest_is_read(full_run):
    write_text(full_run.part("evaluation", "bad.json"), "{")
    write_text(full_run.part("evaluation", "list.json"), "[1]")
    found, problems = services.evaluations(full_run)
    assert list(found) == ["test"] and len(problems) == 2
    full_run.part("routing", "bad.parquet").write_bytes(b"PAR1 no")
    files = services.routing_files(full_run)
    assert len(files.paths) == 1 and "bad.parquet" in files.problems[0]
    write_text(full_run.config_file, "model: [")
    with pytest.raises(RunError, match="damaged"):
        services.config_of(full_run)


def page(run, **wanted):
    return services.routing_page(services.routing_files(run), replace(RoutingFilter(), **wanted), 1)


def test_routing_is_filtered_and_counted(full_run, hostile):
    assert page(full_run).total == 14
    assert page(full_run, task="ser").total == 7 and page(full_run, task="x").total == 0
    assert page(full_run, dataset="tones", split="test").total == 14 and page(full_run, split="train").total == 0
    assert set(page(full_run, text="U-3").rows.utterance) == {"u-3"}
    assert set(page(full_run, text=hostile).rows.utterance) == {f"{hostile}?&#"}
    wrong = page(full_run, errors=True).rows
    assert len(wrong) > 0 and (wrong.error > 0).all()


@pytest.mark.parametrize("text", ["'; DROP TABLE x; --", "%", "_", "\\", '"', "\x00"])
def test_searches_are_never_part_of_the_query(full_run, text):
    assert page(full_run, text=text).total in (0, 14)
    assert page(full_run, task=text).total == 0


def test_pages_hold_50_rows_and_the_last_one_the_rest(full_run):
    rows = page(full_run).rows
    assert len(rows) == 14 and services.routing_page(services.routing_files(full_run), RoutingFilter(), 99).page == 1
    assert rows.top_encoder_layer.between(0, 2).all()


def test_one_utterance_has_both_stages_of_both_tasks(full_run, hostile):
    files = services.routing_files(full_run)
    rows = services.logged_utterance(files, f"{hostile}?&#")
    assert sorted(zip(rows.task, rows.stage, strict=True)) == [
        (t, s) for t in ("asr", "ser") for s in ("encoder", "lm")
    ]
    assert services.logged_utterance(files, "' OR 1=1 --").empty


def test_samples_are_short_recordings_at_16_khz():
    clips = [clip_at(path) for path in services.samples()]
    assert 2 <= len(clips) <= 3
    assert all(c.source_rate == 16_000 and 2 < c.seconds < 10 and not c.warnings for c in clips)
