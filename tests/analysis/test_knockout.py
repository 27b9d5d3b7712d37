"""Knock-out: the planted layer costs most, weights are scaled up exactly, the live answer is the one of `predict`."""

import numpy as np
import pytest
import torch
from factories import tiny_model, tone
from planted import K, planted_batches, planted_model

from harmonifuse_core.analysis.knockout import Listened, answer_without, knock_out_each, layers_of, listen
from harmonifuse_core.inference.predict import PredictOptions, predict

CLIP = tone(1.0, 200)


def test_without_a_removal_the_answer_is_that_of_predict():
    model = tiny_model("whisper")
    heard, plain = listen(model, CLIP), predict(model, [CLIP])[0]
    same = answer_without(model, heard, {"encoder": None, "lm": None})
    assert heard.whole and heard.seconds == pytest.approx(1.0)
    assert same["asr"].text == plain["asr"].text
    assert same["ser"].probabilities == pytest.approx(plain["ser"].probabilities, abs=1e-6)


@pytest.mark.parametrize("kind", ["whisper", "prefix"])
def test_the_removed_layer_has_no_weight_and_the_others_keep_their_proportions(kind):
    model = tiny_model(kind)
    heard, plain = listen(model, CLIP), predict(model, [CLIP])[0]
    gone = answer_without(model, heard, {"encoder": 1, "lm": 2})
    for task, answer in gone.items():
        expected = np.delete(plain[task].encoder.alpha, 1)
        assert answer.encoder.alpha[1] == 0 and answer.lm.alpha[2] == 0
        assert np.delete(answer.encoder.alpha, 1) == pytest.approx(expected / expected.sum(), abs=1e-5)
        assert answer.lm.alpha.sum() == pytest.approx(1, abs=1e-5)


def test_an_encoder_removal_is_the_override_that_predict_offers():
    model = tiny_model("whisper")
    alpha = predict(model, [CLIP])[0]["ser"].encoder.alpha.copy()
    alpha[0] = 0
    options = PredictOptions(("ser",), encoder_alpha={"ser": torch.tensor(alpha / alpha.sum())})
    expected = predict(model, [CLIP], options)[0]["ser"].probabilities
    gone = answer_without(model, listen(model, CLIP), {"encoder": 0}, PredictOptions(("ser",)))
    assert gone["ser"].probabilities == pytest.approx(expected, abs=1e-5)


def test_the_layer_that_carries_the_label_costs_most():
    model = planted_model()
    for batch in planted_batches(seed=5, count=1):
        for row in range(4):
            states = batch.rows([row]).states
            intact, found = knock_out_each(model, Listened(states, 1.0, True), PredictOptions(("ser",)))
            encoder = [d for d in found if d.stage == "encoder"]
            assert max(encoder, key=lambda d: d.loss).layer == K
            assert [d.alpha for d in encoder] == pytest.approx(intact["ser"].encoder.alpha.tolist())
            assert (
                encoder[K].answer.probabilities[intact["ser"].label] < intact["ser"].probabilities[intact["ser"].label]
            )


def test_every_layer_of_both_fusions_and_tasks_is_removed_once():
    model = tiny_model("whisper")
    intact, found = knock_out_each(model, listen(model, CLIP))
    assert [(d.task, d.stage, d.layer) for d in found] == [
        (t, s, k) for t in ("asr", "ser") for s in ("encoder", "lm") for k in range(layers_of(model, s))
    ]
    for damage in found:
        if damage.task == "ser":  # the loss is that of the class's probability
            before, after = (a.probabilities[intact["ser"].label] for a in (intact["ser"], damage.answer))
            assert damage.loss == pytest.approx(np.log(before) - np.log(after), abs=1e-3)


def test_of_a_long_recording_the_first_piece_is_taken():
    model = tiny_model("whisper", model__max_seconds=2.0)
    heard = listen(model, tone(5.0))
    assert not heard.whole and heard.seconds <= 2.0


def test_what_does_not_exist_is_refused():
    model = tiny_model("whisper")
    heard = listen(model, CLIP)
    with pytest.raises(ValueError, match="layer 9 of the encoder does not exist: give 0 to 2"):
        answer_without(model, heard, {"encoder": 9})
    with pytest.raises(ValueError, match="stage 'decoder' is unknown"):
        layers_of(model, "decoder")
    with pytest.raises(ValueError, match="holds no sample"):
        listen(model, np.zeros(0, np.float32))
