"""Listen's tools: token times, knock-out, neighbours, the queue. Through the real page with a tiny model."""

import pytest
from dashboard import charts, opened, press, shown, sound, switch
from factories import tone, write_wav

from app import services
from app.components.queue import queue_table
from app.logged_utterance import route_of_answers


@pytest.fixture
def heard(full_run):
    """Listen, with a sample answered."""
    return press(opened(), "sample-input-quick-voice")


def frame_with(at, column: str):
    return next(frame.value for frame in at.dataframe if column in frame.value)


def test_nothing_is_worked_out_before_it_is_asked_for(full_run, monkeypatch):
    for name in ("aligned", "heard", "without_layers", "each_layer_out", "attributed"):
        monkeypatch.setattr(services, name, lambda *a, **k: pytest.fail("worked out unasked"))
    at = press(opened(), "sample-input-quick-voice")
    assert "What if a layer were missing?" in shown(at) and "Nothing is removed" in shown(at)


def test_the_tokens_are_timed_on_demand(heard):
    before = charts(heard)
    at = switch(heard, "Align the tokens with the sound")
    assert "cross-attention of the decoder" in shown(at) and charts(at) == before + 1
    table = frame_with(at, "times from")
    assert set(table["times from"]) == {"cross-attention"}
    assert (table["end"] >= table["start"]).all() and table["start"].is_monotonic_increasing


def test_a_removed_layer_changes_the_answers_and_each_is_measured(heard):
    at = sound(heard.selectbox(key="knockout-full-lm").set_value("2").run())
    assert "Nothing is removed" not in shown(at)
    at = switch(at, "Remove every layer once")
    table = frame_with(at, "damage")
    assert len(table) == 12 and set(table.task) == {"asr", "ser"} and set(table.stage) == {"encoder", "lm"}
    alpha = frame_with(at, "share").set_index(["task", "stage", "layer"]).alpha
    ser = table[table.task == "ser"].set_index(["task", "stage", "layer"])
    assert ser.damage.abs().max() > 0
    assert set(ser.index) <= set(alpha.index)


def test_the_neighbours_are_the_logged_utterances_in_order(heard, full_run):
    table = frame_with(heard, "distance")
    assert "Which logged utterances were routed alike?" in shown(heard)
    assert len(table) == 7 and table.distance.is_monotonic_increasing and table.distance.between(0, 1).all()
    assert "is not on this machine" in shown(heard)


def test_a_logged_utterances_own_routing_finds_itself_first(full_run):
    files = services.routing_files(full_run)
    routes = services.routes(files)
    first = services.neighbours(files, routes.of("u-2"), 3)[0]
    assert first.utterance == "u-2" and first.distance < 1e-6
    assert "u-2" not in {n.utterance for n in services.neighbours(files, routes.of("u-2"), 8, exclude="u-2")}


def test_without_logged_routing_the_command_is_named(full_run):
    full_run.part("routing", "test.parquet").unlink()
    at = press(opened(), "sample-input-quick-voice")
    assert "No routing is logged in this run" in shown(at)


def test_several_files_are_answered_and_a_broken_one_is_named(full_run, tmp_path, hostile):
    data = write_wav(tmp_path / "a.wav", tone(0.5)).read_bytes()
    files = [
        ("a.wav", data),
        (f"{hostile}.wav", b"RIFF no"),
        ("b.wav", write_wav(tmp_path / "b.wav", tone(0.6)).read_bytes()),
    ]
    queue = services.listening_queue(full_run, files)
    queue.wait(60)
    table = queue_table(queue.items)
    assert table.state.tolist() == ["done", "failed", "done"] and table.seconds.dropna().tolist() == [0.5, 0.6]
    assert hostile in table.message[1]
    expected = services.answer(full_run, services.decode(data, "a.wav"), PROMPTS).answers
    assert table.ser[0] == expected["ser"].label and table.asr[0] == expected["asr"].text
    at = opened()
    at.session_state["listening_queue"] = queue
    at = sound(at.run())
    assert "Several recordings" in shown(at) and frame_with(at, "state").state.tolist() == table.state.tolist()
    press(at, "queue-close")
    assert "Several recordings" not in shown(sound(at.run()))


PROMPTS = (("asr", "Transcribe the speech."), ("ser", "Recognize the speaker's emotion."))


def test_the_route_of_answers_is_their_alpha(full_run, wav):
    answers = services.answer(full_run, services.decode(wav.read_bytes(), "a.wav"), PROMPTS).answers
    route = route_of_answers(answers)
    assert set(route) == {(t, s) for t in ("asr", "ser") for s in ("encoder", "lm")}
    assert route["ser", "lm"] == pytest.approx(answers["ser"].lm.alpha)
