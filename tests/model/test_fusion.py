"""The two equations: properties of alpha, the open points' modes, and numbers worked out by hand."""

import math

import pytest
import torch

from harmonifuse_core.config import GateConfig, LMConfig
from harmonifuse_core.model.fusion import GatedEncoderFusion, PromptAdaptiveFusion

TASKS = ("asr", "ser")
WIDTH = 6
STATES = 4


def gate(stirred: bool = True, **fields) -> GatedEncoderFusion:
    torch.manual_seed(0)
    module = GatedEncoderFusion(GateConfig(**fields), TASKS, STATES, WIDTH)
    if stirred:
        for parameter in module.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
    return module.eval()


def fusion(stirred: bool = True, **fields) -> PromptAdaptiveFusion:
    torch.manual_seed(0)
    module = PromptAdaptiveFusion(LMConfig(ffn_width=5, **fields), TASKS, STATES, WIDTH)
    if stirred:
        for parameter in module.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
    return module.eval()


def speech(seed: int = 1, frames: tuple[int, ...] = (5, 3)) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    states = tuple((k + 1) * torch.randn(len(frames), max(frames), WIDTH, generator=noise) for k in range(STATES))
    return states, mask


def normalised(state: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(state, state.shape[-1:])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "fields",
    [{}, {"mode": "shared"}, {"mode": "uniform"}, {"mode": "fixed:2"}, {"input_score": True}, {"normalise": False},
     {"include_input_state": False}, {"last_logit": 3.0}],
)  # fmt: skip
def test_encoder_alpha_is_a_distribution_over_layers(fields, task):
    states, mask = speech()
    fused = gate(**fields)(states, mask, task)
    assert fused.alpha.shape == (2, STATES) and bool((fused.alpha >= 0).all())
    torch.testing.assert_close(fused.alpha.sum(-1), torch.ones(2))
    torch.testing.assert_close(fused.share.sum(-1), torch.ones(2))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["adaptive", "bias", "input", "uniform", "last", "fixed:1"])
@pytest.mark.parametrize("normalise", [True, False])
def test_lm_alpha_is_a_distribution_over_layers(kind, normalise, task):
    states, _ = speech()
    fused = fusion(fusion=kind, normalise=normalise)(states, task)
    assert fused.alpha.shape == (2, 5, STATES) and bool((fused.alpha >= 0).all())
    torch.testing.assert_close(fused.alpha.sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize("layer", range(STATES))
def test_one_hot_alpha_reproduces_that_layer(layer):
    states, mask = speech()
    one_hot = torch.nn.functional.one_hot(torch.tensor(layer), STATES).float()
    for module in (gate(stirred=False, normalise=False), gate(stirred=False, mode=f"fixed:{layer}", normalise=False)):
        override = one_hot if module.config.mode == "per_task" else None
        torch.testing.assert_close(module(states, mask, "asr", override).states, states[layer] * mask[..., None])
    expected = normalised(states[layer]) * mask[..., None]
    torch.testing.assert_close(gate(stirred=False)(states, mask, "asr", one_hot).states, expected)
    raw, unit = fusion(stirred=False, normalise=False), fusion(stirred=False, fusion=f"fixed:{layer}")
    torch.testing.assert_close(raw(states, "ser", alpha=one_hot).states, states[layer])
    torch.testing.assert_close(unit(states, "ser").states, normalised(states[layer]))
    assert unit(states, "ser").alpha[0, 0].tolist() == one_hot.tolist()


def test_the_shared_gain_and_bias_act_on_the_sum_once():
    module = gate(stirred=False)
    states, mask = speech(frames=(5, 5))
    plain = module(states, mask, "asr").states
    with torch.no_grad():
        module.norm.gain.copy_(torch.arange(1.0, WIDTH + 1))
        module.norm.bias.copy_(torch.arange(WIDTH) / 10)
    torch.testing.assert_close(module(states, mask, "asr").states, plain * module.norm.gain + module.norm.bias)


@torch.no_grad()
def test_permuting_layers_permutes_alpha():
    states, mask = speech()
    order = [2, 0, 3, 1]
    shuffled = tuple(states[i] for i in order)
    module = gate(input_score=True)
    plain = module(states, mask, "ser")
    module.logits.copy_(module.logits[:, order])
    moved = module(shuffled, mask, "ser")
    torch.testing.assert_close(moved.alpha, plain.alpha[:, order])
    torch.testing.assert_close(moved.share, plain.share[:, order])
    torch.testing.assert_close(moved.states, plain.states)
    module = fusion()
    plain = module(states, "ser")
    module.task_bias.copy_(module.task_bias[:, order])
    moved = module(shuffled, "ser")
    torch.testing.assert_close(moved.alpha, plain.alpha[..., order])
    torch.testing.assert_close(moved.states, plain.states)


def test_modes_of_the_gate():
    states, mask = speech()
    per_task, shared = gate(), gate(mode="shared")
    assert per_task.logits.shape == (2, STATES) and shared.logits.shape == (1, STATES)
    alphas = {task: per_task(states, mask, task).alpha[0] for task in TASKS}
    assert not torch.allclose(alphas["asr"], alphas["ser"])
    assert torch.equal(shared(states, mask, "asr").alpha, shared(states, mask, "ser").alpha)
    uniform = gate(mode="uniform", last_logit=5.0)
    assert uniform(states, mask, "asr").alpha.tolist() == [[0.25] * 4] * 2 and not uniform.logits.requires_grad
    fixed = gate(mode="fixed:3", last_logit=5.0)
    assert fixed(states, mask, "asr").alpha.tolist() == [[0, 0, 0, 1]] * 2 and not fixed.logits.requires_grad
    with pytest.raises(ValueError, match="'fixed:4'.*0 to 3"):
        gate(mode="fixed:4")
    with pytest.raises(ValueError, match="'fixed:9'.*0 to 3"):
        fusion(fusion="fixed:9")


def test_modes_of_the_lm_fusion():
    states, _ = speech()
    assert fusion(fusion="uniform")(states, "asr").alpha.unique().tolist() == [0.25]
    assert fusion(fusion="last")(states, "asr").alpha[1, 2].tolist() == [0, 0, 0, 1]
    bias = fusion(fusion="bias")
    expected = torch.softmax(bias.task_bias[1], -1).expand(2, 5, STATES)
    torch.testing.assert_close(bias(states, "ser").alpha, expected)
    assert not any(p.requires_grad for p in bias.ffn.parameters())
    only_input = fusion(fusion="input")
    assert torch.equal(only_input(states, "asr").alpha, only_input(states, "ser").alpha)
    assert not only_input.task_bias.requires_grad
    fused = only_input(states, "asr")
    torch.testing.assert_close(fused.alpha, torch.softmax(fused.score, -1))


def test_an_excluded_input_state_gets_exactly_no_weight():
    states, mask = speech()
    alpha = gate(include_input_state=False)(states, mask, "asr").alpha
    assert alpha[:, 0].tolist() == [0, 0] and bool((alpha[:, 1:] > 0).all())
    uniform = gate(mode="uniform", include_input_state=False)(states, mask, "asr").alpha
    torch.testing.assert_close(uniform[0], torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]))


def test_only_with_an_input_score_does_the_gate_move_from_utterance_to_utterance():
    states, mask = speech()
    plain = gate()(states, mask, "asr")
    assert torch.equal(plain.alpha[0], plain.alpha[1]) and not plain.score.any()
    scored = gate(input_score=True)(states, mask, "asr")
    assert (scored.alpha[0] - scored.alpha[1]).abs().max() > 0.01
    torch.testing.assert_close(scored.alpha, torch.softmax(scored.bias + scored.score, -1))
    fresh = gate(stirred=False, input_score=True)
    assert torch.equal(fresh(states, mask, "asr").alpha[0], fresh.weights("asr")[0])


def test_an_input_score_reads_no_frame_behind_the_speech():
    module, (states, mask) = gate(input_score=True), speech()
    dirty = tuple(torch.where(mask[..., None], s, torch.full_like(s, 1e3)) for s in states)
    a, b = module(states, mask, "ser"), module(dirty, mask, "ser")
    assert torch.equal(a.alpha, b.alpha) and torch.equal(a.states, b.states) and torch.equal(a.share, b.share)
    assert not a.states[1, 3:].any()


def test_initial_logits_go_to_the_tasks_that_are_named():
    only = gate(stirred=False, last_logit=1.5, last_logit_tasks=("asr",))
    assert only.logits.tolist() == [[0, 0, 0, 1.5], [0, 0, 0, 0]]
    assert fusion(stirred=False, last_logit=2.0).task_bias.tolist() == [[0, 0, 0, 2]] * 2
    assert gate(stirred=False, mode="shared", last_logit=1.0).logits.tolist() == [[0, 0, 0, 1]]


def test_a_fresh_ffn_leaves_alpha_at_the_task_bias():
    module = fusion(stirred=False, last_logit=1.0)
    fused = module(speech()[0], "asr")
    expected = torch.softmax(torch.tensor([0.0, 0, 0, 1]), -1).expand(2, 5, STATES)
    torch.testing.assert_close(fused.alpha, expected)
    assert not fused.score.any()


def test_pooled_states_score_every_position_alike():
    module, (states, _) = fusion(ffn_input="utterance"), speech()
    pooled = tuple(s.mean(1) for s in states)
    fused = module(states, "asr", pooled)
    assert torch.equal(fused.alpha, fused.alpha[:, :1].expand_as(fused.alpha))
    torch.testing.assert_close(fused.score[:, 0, 2], module.scores(pooled[2]))
    assert (fused.alpha[0, 0] - fused.alpha[1, 0]).abs().max() > 1e-3


def test_exact_values_of_the_gate():
    """w = (ln 1, ln 3) gives alpha (1/4, 3/4); raw states (3, 4) and (0, 2) give 0.25 (3, 4) + 0.75 (0, 2)."""
    module = GatedEncoderFusion(GateConfig(normalise=False), ("asr",), 2, 2)
    module.logits.data.copy_(torch.tensor([[0.0, math.log(3)]]))
    states = (torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]]))
    fused = module(states, torch.ones(1, 1, dtype=torch.bool), "asr")
    torch.testing.assert_close(fused.alpha, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(fused.states, torch.tensor([[[0.75, 2.5]]]))
    # shares: 0.25 * 5 = 1.25 and 0.75 * 2 = 1.5, of 2.75
    torch.testing.assert_close(fused.share, torch.tensor([[1.25 / 2.75, 1.5 / 2.75]]))
    torch.testing.assert_close(fused.bias, torch.tensor([[0.0, math.log(3)]]))


def test_exact_values_of_normalised_states():
    """(3, 5) normalised is (-1, 1), (20, 10) is (1, -1): equal weights cancel, 3 to 1 leaves half."""
    module = GatedEncoderFusion(GateConfig(), ("asr",), 2, 2)
    module.logits.data.copy_(torch.tensor([[math.log(3), 0.0]]))
    states = (torch.tensor([[[3.0, 5.0]]]), torch.tensor([[[20.0, 10.0]]]))
    fused = module(states, torch.ones(1, 1, dtype=torch.bool), "asr")
    torch.testing.assert_close(fused.states, torch.tensor([[[-0.5, 0.5]]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.share, torch.tensor([[0.75, 0.25]]), atol=1e-5, rtol=0)


def test_exact_values_of_the_lm_fusion():
    """FFN(h) = GELU(h_0), on raw states with h_0 = 0 and 1: scores 0 and 0.8413447; the bias evens the weights out."""
    module = PromptAdaptiveFusion(LMConfig(ffn_width=1, normalise=False), ("asr",), 2, 2)
    with torch.no_grad():
        module.ffn[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        module.ffn[0].bias.zero_()
        module.ffn[2].weight.fill_(1.0)
    states = (torch.tensor([[[0.0, 6.0]]]), torch.tensor([[[1.0, 0.0]]]))
    free = module(states, "asr")
    torch.testing.assert_close(free.score, torch.tensor([[[0.0, 0.8413447]]]))
    share = 1 / (1 + math.exp(-0.8413447))  # softmax of two
    torch.testing.assert_close(free.alpha, torch.tensor([[[1 - share, share]]]))
    module.task_bias.data.copy_(torch.tensor([[0.8413447, 0.0]]))
    even = module(states, "asr")
    torch.testing.assert_close(even.alpha, torch.tensor([[[0.5, 0.5]]]))
    torch.testing.assert_close(even.states, torch.tensor([[[0.5, 3.0]]]))
    torch.testing.assert_close(even.share, torch.tensor([[[6 / 7, 1 / 7]]]))


def test_gradients_reach_gate_bias_and_ffn_of_the_task_alone():
    states, mask = speech()
    module = gate(input_score=True)
    (module(states, mask, "asr").states ** 2).sum().backward()
    assert bool(module.logits.grad[0].any()) and not module.logits.grad[1].any()
    assert all(bool(p.grad.any()) for p in module.ffn.parameters())
    module = fusion()
    module(states, "ser").states[..., 0].sum().backward()
    assert bool(module.task_bias.grad[1].any()) and not module.task_bias.grad[0].any()
    # the last bias shifts the scores of all layers alike, which softmax does not see
    assert all(bool(p.grad.abs().max() > 1e-6) for p in list(module.ffn.parameters())[:3])
    fresh = fusion(stirred=False)
    fresh(states, "ser").states[..., 0].sum().backward()
    assert bool(fresh.ffn[-1].weight.grad.any())  # zero at the start, yet it learns


def test_an_override_replaces_alpha_and_leaves_the_record_of_its_parts():
    states, mask = speech()
    module, wanted = gate(), torch.tensor([0.1, 0.2, 0.3, 0.4])
    own, forced = module(states, mask, "asr"), module(states, mask, "asr", wanted)
    torch.testing.assert_close(forced.alpha, wanted.expand(2, -1))
    assert torch.equal(forced.bias, own.bias)
    each = torch.softmax(torch.randn(2, STATES, generator=torch.Generator().manual_seed(3)), -1)
    assert torch.equal(module(states, mask, "asr", each).alpha, each)
    assert torch.equal(fusion()(states, "asr", alpha=each[:, None]).alpha[:, 4], each)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fields", [{}, {"input_score": True}, {"include_input_state": False}])
def test_a_survey_shared_by_tasks_gives_what_each_works_out_alone(fields, task):
    module, (states, mask) = gate(**fields), speech()
    alone = module(states, mask, task)  # with gradients: no survey
    assert module.survey(states, mask) is None
    with torch.no_grad():
        survey = module.survey(states, mask)
        shared = module(states, mask, task, survey=survey)
    for name in ("states", "alpha", "bias", "score", "share"):
        torch.testing.assert_close(getattr(shared, name), getattr(alone, name).detach(), atol=1e-6, rtol=1e-5)
    assert not shared.states[1, 3:].any() and survey.norms.shape == (2, STATES)


def test_states_as_they_are_have_no_survey():
    module, (states, mask) = gate(normalise=False), speech()
    with torch.no_grad():
        assert module.survey(states, mask) is None
        assert module(states, mask, "asr").states.shape == states[0].shape
