"""Token times: dynamic time warping on known costs, planted attention is found, real attention is Whisper's own."""

import numpy as np
import pytest
import torch
from factories import HEADS, LAYERS, tiny_model, tone

from harmonifuse_core.analysis.alignment import ATTENTION, SPREAD, align, median_filter, token_frames, warp
from harmonifuse_core.inference.predict import predict

CLIP = tone(1.2, 200)


def planted(starts: list[int], frames: int, layers: int = 4, heads: int = 2) -> torch.Tensor:
    """Attention (layers, heads, N, frames): the later half looks at each position's own stretch, the rest anywhere."""
    rng = torch.Generator().manual_seed(0)
    attention = torch.rand(layers, heads, len(starts), frames, generator=rng)
    for row, (start, stop) in enumerate(zip(starts, [*starts[1:], frames], strict=True)):
        attention[layers // 2 :, :, row] *= 0.05
        attention[layers // 2 :, :, row, start:stop] += 1
    return attention / attention.sum(-1, keepdim=True)


def test_planted_attention_gives_its_own_times():
    starts = [0, 12, 30, 41, 70]
    assert token_frames(planted(starts, 90)).tolist() == starts


def test_the_earlier_layers_have_no_say():
    attention = planted([0, 20, 40], 60)
    turned = attention.clone()
    turned[:2] = attention[:2].flip(-1)
    assert token_frames(turned).tolist() == token_frames(attention).tolist() == [0, 20, 40]


def brute_force(cost: np.ndarray) -> float:
    total = np.full(cost.shape, np.inf)
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            before = [total[a, b] for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
            total[i, j] = cost[i, j] + (min(before) if before else 0.0)
    return total[-1, -1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (4, 9), (9, 4), (12, 30)])
def test_the_path_is_monotonic_whole_and_cheapest(shape):
    cost = np.random.default_rng(sum(shape)).normal(size=shape)
    rows, columns = warp(cost)
    assert (rows[0], columns[0]) == (0, 0) and (rows[-1], columns[-1]) == (shape[0] - 1, shape[1] - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert cost[rows, columns].sum() == pytest.approx(brute_force(cost))


def test_the_median_takes_single_spikes_away_and_keeps_edges():
    values = torch.zeros(1, 30)
    values[0, 5], values[0, 15:] = 9.0, 1.0
    assert median_filter(values)[0].tolist() == [0.0] * 15 + [1.0] * 15
    short = torch.tensor([[1.0, 5.0, 2.0]])
    assert torch.equal(median_filter(short), short)


def test_the_attention_is_that_of_whispers_own_decoder():
    model = tiny_model("whisper")
    speech, ids = torch.randn(1, 40, 16), [3, 7, 11, 200]
    ours = model.lm.cross_attention(speech, ids, 40)
    body = model.lm.body
    body.layer_norm = torch.nn.Identity()
    body.config._attn_implementation = "eager"
    theirs = body(torch.tensor([ids]), encoder_hidden_states=speech, output_attentions=True).cross_attentions
    assert ours.shape == (LAYERS, HEADS, 4, 40)
    assert torch.allclose(ours, torch.cat(theirs), atol=1e-5)
    assert torch.allclose(model.lm.cross_attention(speech, ids, 10).sum(-1), torch.ones(LAYERS, HEADS, 4), atol=1e-5)


def test_a_planted_decoder_times_the_tokens_of_the_answer(monkeypatch):
    model = tiny_model("whisper")
    prompt = len(model.tokenizer.prompt_ids(model.config.task("asr").default_prompt))
    answer = predict(model, [CLIP])[0]["asr"]
    starts = [3 * place for place in range(len(answer.tokens) + 1)]

    def attention(speech, ids, frames):
        return torch.cat([torch.rand(4, 2, prompt - 1, frames), planted(starts, frames)], 2)

    monkeypatch.setattr(model.lm, "cross_attention", attention)
    found = align(model, CLIP, "asr")
    assert found.source == ATTENTION and found.tokens == answer.tokens
    assert np.allclose(found.seconds[:, 0], np.array(starts[:-1]) / 50)
    assert np.allclose(found.seconds[1:, 0], found.seconds[:-1, 1])
    assert np.allclose(found.alpha, answer.token_weights.alpha, atol=1e-5)


def test_times_stay_within_the_recording_and_pieces_follow_each_other():
    model = tiny_model("whisper", model__max_seconds=2.0)
    found = align(model, tone(5.0, 150), "asr")
    assert (np.diff(found.seconds, axis=1) >= 0).all() and (np.diff(found.seconds[:, 0]) >= 0).all()
    assert found.seconds.min() >= 0 and found.seconds.max() <= 5.0 and found.seconds[-1, 0] > 2.0
    assert len(found.tokens) == len(found.seconds) == len(found.alpha) == len(found.logprobs)


def test_without_cross_attention_tokens_are_spread_and_it_says_so():
    found = align(tiny_model("prefix"), CLIP, "asr")
    assert found.source == SPREAD
    assert np.allclose(np.diff(found.seconds, axis=1), 1.2 / len(found.tokens))


def test_a_task_without_text_is_refused():
    with pytest.raises(ValueError, match="'ser' writes no text"):
        align(tiny_model("whisper"), CLIP, "ser")
