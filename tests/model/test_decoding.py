"""Greedy decoding against a naive loop, its limits, loops of a text, and what leaves the batch."""

import numpy as np
import pytest
import torch
from factories import LAYERS, LLAMA, tiny_model, tone

from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.decoding import greedy, repeats, token_limit
from harmonifuse_core.model.harmonifuse import HarmoniFuse

PROMPT = "Transcribe the speech."
KINDS = ["prefix", "whisper"]
CLIPS = [tone(0.9, 180), tone(0.4, 260, seed=1), tone(0.7, 330, seed=2), tone(0.5, 150, seed=3)]


def decode(model: HarmoniFuse, clips, **kwargs):
    states = model.encode(*pad_waveforms(clips))
    return greedy(model, states, model.fuse_encoder(states, "asr"), "asr", PROMPT, **kwargs)


@torch.inference_mode()
def naive(model: HarmoniFuse, clip, limit: int):
    """Without cache and batch: run the whole text again for each token."""
    states = model.encode(*pad_waveforms([clip]))
    fused, prompt = model.fuse_encoder(states, "asr"), model.tokenizer.prompt_ids(PROMPT)
    tokens, logprobs, alphas = [], [], []
    while len(tokens) < limit:
        answer = model.fuse_lm(model.lm.teacher_forced(fused.states, states.mask, [prompt], [tokens]), "asr")
        logits = model.lm.logits(answer.states[0, -1])
        logits[model.tokenizer.special_ids()] = -torch.inf
        token = int(logits.argmax())
        if token == model.tokenizer.end:
            break
        tokens.append(token)
        logprobs.append(float(torch.log_softmax(logits, -1).max()))
        alphas.append(answer.alpha[0, -1].numpy())
        if repeats(tokens):
            break
    return tokens, logprobs, alphas


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_a_naive_loop_without_cache(kind, seed):
    model = tiny_model(kind, seed=seed)
    for clip, found in zip(CLIPS, decode(model, CLIPS), strict=True):
        tokens, logprobs, alphas = naive(model, clip, token_limit(len(clip) / 16_000))
        drop = repeats(tokens)
        kept = tokens[: len(tokens) - drop] if drop else tokens
        assert found.tokens == kept
        np.testing.assert_allclose(found.logprobs, logprobs[: len(kept)], atol=1e-3)
        if kept:
            np.testing.assert_allclose(found.alpha, alphas[: len(kept)], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_of_one_equals_batch_of_many(kind):
    model = tiny_model(kind, seed=1)
    together = decode(model, CLIPS)
    assert len({len(found.tokens) for found in together}) > 1  # they leave the batch at different steps
    for clip, found in zip(CLIPS, together, strict=True):
        (alone,) = decode(model, [clip])
        assert alone.tokens == found.tokens and alone.truncated == found.truncated
        for name in ("alpha", "bias", "score", "share", "logprobs"):
            np.testing.assert_allclose(getattr(alone, name), getattr(found, name), atol=1e-3)


def test_weights_have_one_row_a_token_and_at_least_one():
    model = tiny_model("whisper", seed=1)
    for found in decode(model, CLIPS):
        rows = max(len(found.tokens), 1)
        assert found.alpha.shape == found.bias.shape == found.score.shape == found.share.shape == (rows, LAYERS + 1)
        assert found.logprobs.shape == (len(found.tokens),) and bool((found.logprobs <= 0).all())
        np.testing.assert_allclose(found.alpha.sum(-1), 1, atol=1e-5)


def scripted(model: HarmoniFuse, favourite: dict[int, float]):
    """Let some tokens win by a bonus on their logits."""
    own = model.lm.logits
    bonus = torch.zeros(model.lm.hf_config.vocab_size)
    for token, value in favourite.items():
        bonus[token] = value
    model.lm.logits = lambda fused: own(fused) + bonus
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_an_immediate_end_is_an_empty_text_with_the_weights_of_that_choice(kind):
    model = tiny_model(kind)
    for found in decode(scripted(model, {model.tokenizer.end: 1e4}), CLIPS):
        assert found.tokens == [] and not found.truncated and found.alpha.shape == (1, LAYERS + 1)
        assert model.tokenizer.decode(found.tokens) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_ids_behind_the_vocabulary_never_appear(kind):
    size = {"vocab_size": 300} if kind == "prefix" else {}
    model = tiny_model(kind)
    if size:
        model = tiny_model(kind, model__lm__architecture={**LLAMA, **size})
    special = model.tokenizer.special_ids()
    beyond = range(len(model.tokenizer), model.lm.hf_config.vocab_size)
    assert special and model.tokenizer.end not in special and bool(beyond) == bool(size)
    for found in decode(scripted(model, {token: 1e4 for token in (*special, *beyond)}), CLIPS):
        assert not set(found.tokens) & {*special, *beyond, model.tokenizer.end}


def test_a_text_that_will_not_end_is_cut_at_its_limit():
    model = tiny_model("whisper")
    end = model.tokenizer.end
    own, calls = model.lm.logits, []

    def never_twice(fused):
        """A new token at each step, so that neither an end nor a loop stops the text."""
        logits = torch.zeros_like(own(fused))
        logits[:, len(calls)] = 10.0
        calls.append(len(fused))
        return logits

    model.lm.logits = never_twice
    found = decode(model, CLIPS)
    limits = [token_limit(-(-len(clip) // 320) / 50) for clip in CLIPS]
    assert [len(f.tokens) for f in found] == limits and all(f.truncated for f in found) and end not in found[0].tokens
    assert calls[0] == 4 and calls[-1] == 1 and len(calls) == max(limits)  # finished utterances leave the batch


def test_the_limit_grows_with_the_speech():
    assert [token_limit(s) for s in (0, 1, 10)] == [12, 20, 92]


def test_a_text_that_loops_is_cut_and_says_so():
    model = tiny_model("whisper")
    letter = model.tokenizer.encode("a")[-1]
    for found in decode(scripted(model, {letter: 1e4}), CLIPS[:2]):
        assert found.tokens == [letter] and found.truncated and found.alpha.shape == (1, LAYERS + 1)


@pytest.mark.parametrize(
    ("tokens", "drop"),
    [
        ([], 0),
        ([7] * 11, 0),  # a long "no no no" may be meant; twelve are not
        ([1, 2] + [7] * 12, 11),
        ([5, 6] * 5, 0),
        ([9] + [5, 6] * 6, 10),
        ([1, 2, 3, 4] * 2, 0),
        ([8, 1, 2, 3, 4] + [1, 2, 3, 4] * 2, 8),
        ([1, 2, 3, 4] * 3 + [5], 0),  # it went on
        (list(range(20)) * 3, 40),
        (list(range(30)), 0),
    ],
)
def test_loops_are_found_at_the_end_of_a_text(tokens, drop):
    assert repeats(tokens) == drop


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_can_be_set_from_outside(kind):
    model, wanted = tiny_model(kind, seed=1), torch.tensor([0.7, 0.2, 0.1])
    for found in decode(model, CLIPS, lm_alpha=wanted):
        np.testing.assert_allclose(found.alpha, np.broadcast_to(wanted.numpy(), found.alpha.shape))
    each = torch.eye(3)[[0, 1, 2, 1]][:, None]
    for row, found in enumerate(decode(model, CLIPS, lm_alpha=each)):
        np.testing.assert_allclose(found.alpha, np.broadcast_to(each[row].numpy(), found.alpha.shape))
    plain, forced = (decode(model, CLIPS[:1], lm_alpha=alpha)[0] for alpha in (None, wanted))
    assert abs(float(plain.logprobs[0]) - float(forced.logprobs[0])) > 1e-4
