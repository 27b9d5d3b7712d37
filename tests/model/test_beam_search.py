"""Beam search: one beam is greedy, more beams find texts of higher probability, alpha belongs to the text returned."""

import numpy as np
import pytest
import torch
from factories import tiny_model, tone

from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.beam_search import beam_search
from harmonifuse_core.model.decoding import greedy

PROMPT = "Transcribe the speech."


@pytest.fixture(scope="module", params=["whisper", "prefix"])
def model(request):
    return tiny_model(request.param)


def speech(model, clips):
    states = model.encode(*pad_waveforms(clips))
    return states, model.fuse_encoder(states, "asr")


@pytest.fixture(scope="module")
def clips():
    return [tone(0.4, 180, 1), tone(0.7, 240, 2), tone(0.55, 310, 3)]


def total(generated):
    return float(generated.logprobs.sum())


@torch.inference_mode()
def test_one_beam_is_greedy(model, clips):
    states, fused = speech(model, clips)
    for one, plain in zip(
        beam_search(model, states, fused, "asr", PROMPT, 1), greedy(model, states, fused, "asr", PROMPT), strict=True
    ):
        assert one.tokens == plain.tokens and one.truncated == plain.truncated
        np.testing.assert_allclose(one.alpha, plain.alpha, atol=1e-5)


@torch.inference_mode()
def test_batch_of_one_equals_batch_of_many(model, clips):
    together = beam_search(model, *speech(model, clips), "asr", PROMPT, 3)
    for clip, expected in zip(clips, together, strict=True):
        alone = beam_search(model, *speech(model, [clip]), "asr", PROMPT, 3)[0]
        assert alone.tokens == expected.tokens
        np.testing.assert_allclose(alone.share, expected.share, atol=1e-4)


@torch.inference_mode()
def test_alpha_and_probability_belong_to_the_returned_text(model, clips):
    states, fused = speech(model, clips)
    for row, found in enumerate(beam_search(model, states, fused, "asr", PROMPT, 3)):
        prompts = [model.tokenizer.prompt_ids(PROMPT)]
        mask = states.mask[row : row + 1]
        forced = model.lm.teacher_forced(fused.states[row : row + 1], mask, prompts, [found.tokens])
        answer = model.fuse_lm(forced, "asr")
        count = len(found.tokens)
        np.testing.assert_allclose(found.alpha[:count], answer.alpha[0, :count], atol=1e-4)
        logits = model.lm.logits(answer.states[0, :count])
        logits[:, model.tokenizer.special_ids()] = -torch.inf
        expected = torch.log_softmax(logits, -1)[range(count), found.tokens]
        np.testing.assert_allclose(found.logprobs, expected, atol=1e-3)


@torch.inference_mode()
def test_more_beams_never_leave_the_vocabulary_of_text(model, clips):
    special = set(model.tokenizer.special_ids()) | {model.tokenizer.end}
    for found in beam_search(model, *speech(model, clips), "asr", PROMPT, 4):
        assert not special & set(found.tokens)
        assert len(found.alpha) == max(1, len(found.tokens))
        np.testing.assert_allclose(found.alpha.sum(-1), 1, atol=1e-5)


@torch.inference_mode()
def test_a_margin_of_zero_is_greedy_and_a_wide_one_changes_nothing(model, clips):
    states, fused = speech(model, clips)
    plain = greedy(model, states, fused, "asr", PROMPT)
    narrow = beam_search(model, states, fused, "asr", PROMPT, 3, margin=0.0)
    assert [g.tokens for g in narrow] == [g.tokens for g in plain]
    whole = beam_search(model, states, fused, "asr", PROMPT, 3, margin=1e9)
    wide = beam_search(model, states, fused, "asr", PROMPT, 3, margin=1e6)
    for one, other in zip(whole, wide, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_array_equal(one.logprobs, other.logprobs)


@torch.inference_mode()
def test_rows_of_unequal_count_hear_their_own_speech(clips):
    """Hypotheses 2, 1 and 3 of three utterances, the second of which then leaves: as if each were decoded alone."""
    model = tiny_model("whisper")
    states, fused = speech(model, clips)
    prompt, token = model.tokenizer.prompt_ids(PROMPT), torch.tensor([65, 66, 67, 68, 69, 70])
    _, cache = model.lm.start(fused.states, states.mask, prompt)
    cache.select(torch.tensor([0, 0, 1, 2, 2, 2]))
    model.lm.step(token, cache)
    cache.select(torch.tensor([1, 0, 3, 5]))
    found = model.lm.step(token[:4], cache).states[-1]
    for place, (utterance, first) in enumerate([(0, 66), (0, 65), (2, 68), (2, 70)]):
        only = slice(utterance, utterance + 1)
        _, alone = model.lm.start(fused.states[only], states.mask[only], prompt)
        model.lm.step(torch.tensor([first]), alone)
        expected = model.lm.step(token[place : place + 1], alone).states[-1]
        torch.testing.assert_close(found[place], expected[0], atol=1e-4, rtol=1e-4)
