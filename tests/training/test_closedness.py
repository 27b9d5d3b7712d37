"""KL(alpha || uniform), the term that keeps gates from closing, on hand-made weights."""

import math
from types import SimpleNamespace

import pytest
import torch

from harmonifuse_core.training.loop import closedness, own_tokens


def result(encoder, lm, rows=None):
    fused = lambda alpha: SimpleNamespace(alpha=torch.as_tensor(alpha))  # noqa: E731
    return SimpleNamespace(encoder=fused(encoder), lm=fused(lm), token_rows=rows)


def test_uniform_weights_are_open():
    assert closedness(result(torch.full((2, 5), 0.2), torch.full((2, 1, 5), 0.2))).item() == pytest.approx(0, abs=1e-6)


def test_one_layer_alone_is_closed_and_has_a_finite_gradient():
    one = torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    value = closedness(result(one, one[:, None]))
    value.backward()
    assert value.item() == pytest.approx(2 * math.log(4), rel=1e-5)
    assert torch.isfinite(one.grad).all()


def test_only_an_utterances_own_tokens_count():
    rows = torch.tensor([0, 0, 1])  # two tokens of the first utterance, one of the second
    lm = torch.full((2, 2, 4), 0.25)
    lm[1, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # padding behind the second
    found = result(torch.full((2, 4), 0.25), lm, rows)
    assert own_tokens(found).tolist() == [[True, True], [True, False]]
    assert closedness(found).item() == pytest.approx(0, abs=1e-6)
