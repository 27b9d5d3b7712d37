"""Cross-attention without keys and values: the same numbers as with them, for one block and for the whole answer."""

import pytest
import torch
from factories import tiny_model, tone
from torch import nn
from torch.testing import assert_close as close

from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.model import few_positions

B, H, N, T, D = 3, 2, 4, 11, 16


class Attention(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.k_proj, self.v_proj = nn.Linear(D, D, bias=bias), nn.Linear(D, D)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["none", "boolean", "added"])
@torch.no_grad()
def test_it_is_attention_over_the_projected_frames(bias, kind):
    torch.manual_seed(0)
    attention, speech, query = Attention(bias), torch.randn(B, T, D), torch.randn(B, H, N, D // H)
    valid = torch.arange(T) < torch.tensor([T, 5, 1])[:, None]
    added = torch.randn(B, T).masked_fill(~valid, -torch.inf)
    mask = {"none": None, "boolean": valid[:, None, None], "added": added[:, None, None]}[kind]
    key, value = (p(speech).unflatten(-1, (H, D // H)).transpose(1, 2) for p in (attention.k_proj, attention.v_proj))
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    close(few_positions.attend(query, speech, attention, mask), expected, atol=1e-5, rtol=1e-5)


def test_it_is_taken_only_without_gradient_and_for_few_positions():
    assert not few_positions.few(1, 6, 384)
    with torch.no_grad():
        assert few_positions.few(12, 6, 384) and few_positions.few(32, 6, 384) and not few_positions.few(33, 6, 384)


@pytest.mark.parametrize("silence", [0, 5])
@torch.no_grad()
def test_answers_with_and_without_it_are_the_same(monkeypatch, silence):
    settings = {"model__lm__speech_token": True, "model__encoder__silence_frames": silence}
    model, clips = tiny_model("whisper", **settings), [tone(1.1, 200), tone(0.5, 330)]
    taken, attend = [], few_positions.attend
    monkeypatch.setattr(few_positions, "attend", lambda *a: taken.append(1) or attend(*a))
    answers, counts = {}, []
    for used in (True, False):
        monkeypatch.setattr(few_positions, "few", lambda *_, used=used: used)
        answers[used] = predict(model, clips, PredictOptions(("ser",)))
        counts.append(len(taken))
    assert counts[0] == counts[1] > 0
    for one, other in zip(answers[True], answers[False], strict=True):
        assert one["ser"].probabilities == pytest.approx(other["ser"].probabilities, abs=1e-5)
        close(torch.from_numpy(one["ser"].lm.alpha), torch.from_numpy(other["ser"].lm.alpha), atol=1e-5, rtol=1e-4)
