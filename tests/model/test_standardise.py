"""Running standardisation: tracked in training only; afterwards no utterance depends on its neighbours."""

import torch

from harmonifuse_core.model.standardise import RunningStandardise


def values(count: int = 64, seed: int = 0) -> torch.Tensor:
    """(B, 3) of means 10, -5, 0 and deviations 0.1, 2, 1."""
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return noise * torch.tensor([0.1, 2.0, 1.0]) + torch.tensor([10.0, -5.0, 0.0])


def test_the_first_batch_sets_the_averages_and_later_ones_move_them():
    module, batch = RunningStandardise(3), values()
    out = module(batch)
    torch.testing.assert_close(module.mean, batch.mean(0))
    torch.testing.assert_close(module.variance, batch.var(0, correction=0))
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=1e-2, rtol=0)
    before = module.mean.clone()
    module(batch + 1)
    torch.testing.assert_close(module.mean, before + 0.1)


def test_after_training_an_utterance_never_depends_on_its_neighbours():
    module = RunningStandardise(3)
    for seed in range(5):
        module(values(seed=seed))
    module.eval()
    state, batch = {n: t.clone() for n, t in module.state_dict().items()}, values(seed=9)
    together = module(batch)
    assert torch.equal(together[:1], module(batch[:1])) and torch.equal(together.flip(0), module(batch.flip(0)))
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())


def test_a_batch_of_one_trains_and_moves_nothing():
    module = RunningStandardise(3)
    out = module(values(1))
    assert not module.started and torch.isfinite(out).all() and torch.equal(module.mean, torch.zeros(3))


def test_gradients_pass_the_values_and_not_the_averages():
    module, batch = RunningStandardise(3), values()
    batch.requires_grad_(True)
    module(batch).sum().backward()
    expected = torch.rsqrt(module.variance + 1e-4).expand_as(batch)
    torch.testing.assert_close(batch.grad, expected)
    assert not list(module.parameters()) and not module.mean.requires_grad


def test_any_shape_behind_the_batch():
    module = RunningStandardise(2, 3)
    assert module(torch.randn(4, 2, 3)).shape == (4, 2, 3) and module.mean.shape == (2, 3)
