"""LoRA in the encoder: it starts without effect, learns, leaves the pre-trained weights alone and is saved exactly."""

import pytest
import torch
from factories import stir, tiny_config, tiny_model, tone

from harmonifuse_core import load
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.low_rank import LowRankLinear
from harmonifuse_core.runs import RunFolder, save_model
from harmonifuse_core.training.optimization import parameter_groups

CLIPS = pad_waveforms([tone(0.6), tone(0.8, 300)])


def lora(encoder: str, **changes):
    return tiny_model("prefix", encoder, stirred=False, model__encoder__finetune="lora-2", **changes)


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "wavlm-large", "hubert", "wav2vec2"])
def test_a_step_reaches_every_block_and_moves_every_state_but_the_first(encoder):
    model = lora(encoder)
    for module in model.modules():
        if isinstance(module, LowRankLinear):
            assert not module.lora_up.any()
            torch.nn.init.normal_(module.lora_up, std=0.1)
    changed = model.encode(*CLIPS)
    sum(s.square().sum() for s in changed.states).backward()
    layers = [m for m in model.encoder.modules() if isinstance(m, LowRankLinear)]
    assert len(layers) == 2 * model.encoder.layers
    assert all(bool(m.lora_down.grad.any()) and bool(m.lora_up.grad.any()) for m in layers)
    assert all(p.grad is None for n, p in model.encoder.named_parameters() if ".lora_" not in n)
    with torch.no_grad():
        for m in layers:
            m.lora_up.zero_()
        plain = model.encode(*CLIPS)
    assert torch.equal(plain.states[0], changed.states[0])
    assert all(not torch.allclose(a, b) for a, b in zip(plain.states[1:], changed.states[1:], strict=True))


def test_it_starts_as_the_pre_trained_encoder():
    torch.manual_seed(0)
    ours, frozen = lora("whisper"), tiny_model("prefix", "whisper", stirred=False)
    frozen.encoder.load_state_dict({n: t for n, t in ours.encoder.state_dict().items() if ".lora_" not in n})
    for a, b in zip(ours.encode(*CLIPS).states, frozen.encode(*CLIPS).states, strict=True):
        torch.testing.assert_close(a, b)


def test_a_saved_run_comes_back_bit_by_bit(tmp_path):
    config = tiny_config("prefix", "wavlm", model__encoder__finetune="lora-2")
    model = stir(build_model(config.model)).eval()
    save_model(model, RunFolder(tmp_path), config)
    loaded = load(tmp_path)
    state = loaded.state_dict()
    assert sum(".lora_" in name for name in state) == 8
    assert all(torch.equal(t.half().float(), state[name]) for name, t in model.state_dict().items())
    model.load_state_dict(state)
    for a, b in zip(model.encode(*CLIPS).states, loaded.encode(*CLIPS).states, strict=True):
        assert torch.equal(a, b)


def test_new_weights_learn_at_the_rate_of_new_modules():
    config = tiny_config("prefix", model__encoder__finetune="lora-2")
    model = build_model(config.model)
    groups = {g["name"]: {id(p) for p in g["params"]} for g in parameter_groups(model, config.training)}
    assert all(id(p) in groups["new"] for n, p in model.named_parameters() if ".lora_" in n)


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(ValueError, match="finetune is 'lora-0'; choose frozen, all, top-K .* or lora-R"):
        tiny_config("prefix", model__encoder__finetune="lora-0")
