"""Planted truth: where only state k carries the label, the gate and the LM fusion must find k by themselves."""

import pytest
import torch
from factories import tiny_config

from harmonifuse_core.config import GateConfig, LMConfig, TrainingConfig
from harmonifuse_core.model.fusion import GatedEncoderFusion, PromptAdaptiveFusion
from harmonifuse_core.model.heads import ClassificationHead

STATES, WIDTH, CLASSES, BATCH, FRAMES = 5, 12, 4, 32, 6
STEPS = 60
RATES = TrainingConfig()


def planted(layer: int, step: int):
    """States of noise; in state `layer` alone, the label's own direction is added. (B, T, D) each, labels (B,)."""
    noise = torch.Generator().manual_seed(1000 * layer + step)
    labels = torch.randint(CLASSES, (BATCH,), generator=noise)
    # of unlike scale, as the states of a deep encoder are
    states = [3.0**k * torch.randn(BATCH, FRAMES, WIDTH, generator=noise) for k in range(STATES)]
    states[layer] = states[layer] + 3.0**layer * 2 * torch.eye(WIDTH)[labels][:, None]
    return tuple(states), labels


def learn(fusion, fuse, weights, layer: int) -> torch.Tensor:
    """Train fusion and head at the rates of a real run; returns the fusion's mean alpha afterwards."""
    torch.manual_seed(0)
    head = ClassificationHead(WIDTH, CLASSES, 0.0)
    rest = [p for p in (*fusion.parameters(), *head.parameters()) if p.requires_grad and p is not weights]
    groups = [{"params": [weights], "lr": RATES.gate_rate}, {"params": rest, "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    for step in range(STEPS):
        states, labels = planted(layer, step)
        fused = fuse(states)
        loss = torch.nn.functional.cross_entropy(head(fused.states.mean(1)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return fuse(planted(layer, STEPS)[0]).alpha.flatten(0, -2).mean(0)


@pytest.mark.parametrize("layer", range(STATES))
@pytest.mark.parametrize("fields", [{}, {"mode": "shared"}, {"input_score": True}, {"last_logit": 0.3}], ids=str)
def test_the_gate_finds_the_layer(layer, fields):
    fusion = GatedEncoderFusion(GateConfig(**fields), ("asr", "ser"), STATES, WIDTH)
    mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
    alpha = learn(fusion, lambda states: fusion(states, mask, "ser"), fusion.logits, layer)
    assert int(alpha.argmax()) == layer and float(alpha[layer]) > 1.1 / STATES
    if fusion.config.mode == "per_task":
        assert torch.equal(fusion.weights("asr")[1], torch.tensor([0.0] * 4 + [fusion.config.last_logit]))


@pytest.mark.parametrize("layer", range(STATES))
@pytest.mark.parametrize("kind", ["adaptive", "bias", "input"])
def test_the_lm_fusion_finds_the_layer(layer, kind):
    torch.manual_seed(0)
    fusion = PromptAdaptiveFusion(LMConfig(fusion=kind, ffn_width=16), ("asr", "ser"), STATES, WIDTH)
    alpha = learn(fusion, lambda states: fusion(states, "ser"), fusion.task_bias, layer)
    assert int(alpha.argmax()) == layer and float(alpha[layer]) > 1.1 / STATES


def test_the_rate_that_finds_it_is_the_default_one_of_a_run():
    assert tiny_config().training.gate_rate == RATES.gate_rate == 1e-2
