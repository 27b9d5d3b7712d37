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
