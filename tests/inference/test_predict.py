"""Batched inference: batching, order, segments and task sharing never change an answer."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from factories import tiny_model, tone

from harmonifuse_core.data.segmentation import segment
from harmonifuse_core.inference.predict import PredictOptions, predict, predict_stream

PARTS = ("alpha", "bias", "score", "share")
CLIPS = [tone(seconds, 110.0 * (i + 1), seed=i) for i, seconds in enumerate((1.0, 0.4, 1.7, 0.9))]


def assert_same(a, b):
    """Two answers of one task agree: words and labels exactly, numbers within 1e-4."""
    assert (a.text, a.label, a.tokens, a.truncated) == (b.text, b.label, b.tokens, b.truncated)
    for stage in ("encoder", "lm", "token_weights"):
        for part in PARTS if getattr(a, stage) is not None else ():
            one, other = getattr(getattr(a, stage), part), getattr(getattr(b, stage), part)
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=f"{stage}.{part}")
    np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-4)
    if a.probabilities is not None:
        np.testing.assert_allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-4)


@pytest.mark.parametrize(
    ("lm_kind", "encoder", "ffn_input"),
    [
        ("whisper", "whisper", "position"),
        ("whisper", "whisper", "utterance"),
        ("prefix", "whisper", "position"),
        ("prefix", "wavlm", "position"),
        ("prefix", "hubert", "utterance"),
        ("prefix", "wav2vec2", "position"),
    ],
)
def test_a_batch_of_one_answers_as_a_batch_of_many(lm_kind, encoder, ffn_input):
    model = tiny_model(lm_kind, encoder, model__lm__ffn_input=ffn_input, model__gate__input_score=True)
    together = predict(model, CLIPS)
    for clip, answers in zip(CLIPS, together, strict=True):
        alone = predict(model, [clip], PredictOptions(batch_size=1))[0]
        for task in ("asr", "ser"):
            assert_same(alone[task], answers[task])


@pytest.fixture(scope="module")
def model():
    return tiny_model("whisper", model__gate__input_score=True)


def test_answers_keep_the_order_of_the_input_whatever_the_batches(model):
    whole = predict(model, CLIPS)
    turned = predict(model, CLIPS[::-1], PredictOptions(batch_size=2))
    for a, b in zip(whole, turned[::-1], strict=True):
        assert_same(a["ser"], b["ser"])
        assert_same(a["asr"], b["asr"])
    scores = [tuple(a["ser"].encoder.score) for a in whole]
    assert len(set(scores)) == len(CLIPS), "clips must differ, or the order would not show"


def test_the_stream_gives_every_index_once(model):
    indices = [index for index, _ in predict_stream(model, CLIPS, PredictOptions(batch_size=1))]
    assert sorted(indices) == [0, 1, 2, 3]


def test_all_tasks_share_one_encoder_pass(model):
    with patch.object(model, "encode", wraps=model.encode) as encode:
        answers = predict(model, CLIPS)
    assert sum(len(call.args[0]) for call in encode.call_args_list) == len(CLIPS) and set(answers[0]) == {"asr", "ser"}


def test_output_of_each_kind_of_task(model):
    answers = predict(model, CLIPS[:1])[0]
    text, emotion = answers["asr"], answers["ser"]
    assert text.label is None and text.probabilities is None and len(text.tokens) == len(text.token_logprobs)
    assert text.token_weights.alpha.shape == (max(1, len(text.tokens)), 3)
    np.testing.assert_allclose(text.token_weights.alpha.mean(0), text.lm.alpha, atol=1e-6)
    assert emotion.text is None and sum(emotion.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert emotion.label == max(emotion.probabilities, key=emotion.probabilities.get)
    for answer in answers.values():
        for weights in (answer.encoder, answer.lm):
            for part in (weights.alpha, weights.share):
                assert part.shape == (3,) and (part >= 0).all() and part.sum() == pytest.approx(1, abs=1e-5)


def test_long_audio_is_the_join_of_its_segments(model):
    clip = tone(23.0, 150.0)
    pieces = [clip[a:b] for a, b in segment(clip, max_seconds=model.config.max_seconds)]
    assert len(pieces) >= 3
    whole, parts = predict(model, [tone(0.5), clip])[1], predict(model, pieces)
    share = np.array([len(p) for p in pieces]) / len(clip)
    assert whole["asr"].text == " ".join(p["asr"].text for p in parts if p["asr"].text)
    assert whole["asr"].tokens == sum((p["asr"].tokens for p in parts), ())
    assert len(whole["asr"].token_logprobs) == len(whole["asr"].tokens)
    for task in ("asr", "ser"):
        mean = np.average([p[task].encoder.alpha for p in parts], axis=0, weights=share)
        np.testing.assert_allclose(whole[task].encoder.alpha, mean, atol=1e-4)
        assert whole[task].lm.alpha.sum() == pytest.approx(1, abs=1e-5)
    for label, p in whole["ser"].probabilities.items():
        assert p == pytest.approx(np.dot(share, [part["ser"].probabilities[label] for part in parts]), abs=1e-4)


def test_tasks_and_prompts_are_chosen(model):
    default = predict(model, CLIPS[:1], PredictOptions(tasks=("ser",)))[0]
    assert list(default) == ["ser"] and default["ser"].prompt == "Recognize the speaker's emotion."
    edited = predict(model, CLIPS[:1], PredictOptions(("ser",), {"ser": "Is she angry?"}))[0]["ser"]
    assert edited.prompt == "Is she angry?"
    assert not np.allclose(edited.lm.score, default["ser"].lm.score, atol=1e-4)
    np.testing.assert_array_equal(edited.encoder.alpha, default["ser"].encoder.alpha)  # the gate never sees the prompt
    with pytest.raises(ValueError, match="'sid' is unknown; this model has asr, ser"):
        predict(model, CLIPS[:1], PredictOptions(tasks=("sid",)))


def test_given_weights_replace_the_models_own(model):
    chosen = torch.tensor([0.0, 1.0, 0.0])
    options = PredictOptions(encoder_alpha={"ser": chosen}, lm_alpha={"ser": chosen})
    answers = predict(model, CLIPS[:2], options)
    for own, answer in zip(predict(model, CLIPS[:2]), answers, strict=True):
        np.testing.assert_array_equal(answer["ser"].encoder.alpha, chosen)
        np.testing.assert_array_equal(answer["ser"].lm.alpha, chosen)
        np.testing.assert_array_equal(answer["ser"].encoder.share, chosen)
        assert_same(answer["asr"], own["asr"])


def test_prediction_is_without_dropout_and_repeatable(model):
    model.train()
    a, b = (predict(model, CLIPS[:1])[0]["ser"].probabilities for _ in range(2))
    assert a == b and not model.training


def test_nothing_in_nothing_out(model):
    assert predict(model, []) == []


def test_an_empty_waveform_is_refused_by_its_number(model):
    with pytest.raises(ValueError, match="waveform 1 holds no sample"):
        predict(model, [np.ones(16000, np.float32), np.zeros(0, np.float32)])


def test_answers_are_the_same_side_by_side(model, two_threads):
    many = [clip for clip in CLIPS for _ in range(3)]
    together = predict(model, many, PredictOptions(batch_size=2))
    torch.set_num_threads(1)
    for one, other in zip(together, predict(model, many, PredictOptions(batch_size=2)), strict=True):
        for task in one:
            assert_same(one[task], other[task])
