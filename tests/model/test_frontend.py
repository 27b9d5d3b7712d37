"""Frequency warping: a factor of 1 changes nothing, another moves the peak by that factor."""

import torch

from harmonifuse_core.model.frontend import warp_frequency


def test_no_warp_is_the_same_tensor():
    mel = torch.randn(2, 8, 4)
    assert warp_frequency(mel, 0.0) is mel


def test_a_peak_moves_by_the_drawn_factor_and_time_stays():
    torch.manual_seed(3)
    bins = torch.arange(80.0)
    mel = torch.exp(-0.5 * ((bins - 30) / 3) ** 2)[None, :, None] * torch.tensor([1.0, 2.0])
    mel = mel.expand(6, -1, -1)
    torch.manual_seed(5)
    factors = 1 + 0.2 * (2 * torch.rand(6, 1) - 1)
    torch.manual_seed(5)
    warped = warp_frequency(mel, 0.2)
    assert torch.allclose(warped[..., 1], 2 * warped[..., 0])
    peaks = warped[..., 0].argmax(1)
    assert (peaks - 30 / factors[:, 0]).abs().max() <= 1 and len(peaks.unique()) > 2
