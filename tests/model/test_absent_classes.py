"""Classes that a corpus lacks: bounded by chance from above, never pushed below it."""

import math

import torch

from harmonifuse_core.model.heads import absent_excess, classification_loss

ALLOWED = torch.tensor([[True, True, False, False]])


def test_excess_by_hand():
    logits = torch.tensor([[1.0, 1.0, 6.0, 2.0]]).log()  # absent classes hold 8 of 10; their uniform share is a half
    assert torch.allclose(absent_excess(logits, ALLOWED), torch.tensor([math.log(0.8 / 0.5)]))


def test_below_chance_nothing_is_asked_and_no_gradient_flows():
    logits = torch.tensor([[3.0, 4.0, 1.0, 1.0]]).log().requires_grad_()
    excess = absent_excess(logits, ALLOWED)
    excess.sum().backward()
    assert excess.tolist() == [0.0]
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_corpus_with_all_classes_pays_nothing():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    excess = absent_excess(logits, torch.ones(5, 4, dtype=torch.bool))
    excess.sum().backward()
    assert torch.equal(excess, torch.zeros(5))
    assert torch.isfinite(logits.grad).all()


def test_descent_brings_absent_mass_to_chance_and_leaves_it_there():
    logits = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        classification_loss(logits, torch.tensor([0]), ALLOWED, 0.1, absent_weight=1.0).sum().backward()
        optimizer.step()
    mass = torch.softmax(logits, -1)[0, 2:].sum().item()
    assert 0.2 < mass <= 0.51
    assert int(logits.argmax()) == 0
