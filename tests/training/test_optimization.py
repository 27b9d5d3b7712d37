"""Parameter groups, the schedule, and the moving average of the weights."""

import pytest
import torch
from factories import encoder_hf_config, tiny_config, tiny_model
from transformers import AutoModel

from harmonifuse_core.config import TrainingConfig
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.training.optimization import (
    average_of,
    averaged,
    parameter_groups,
    scale_of,
    set_rates,
    update_average,
)

RATES = TrainingConfig(learning_rate=1e-3, encoder_rate=2e-5, lm_rate=3e-5, gate_rate=1e-2, weight_decay=0.1)


def pretrained(folder, **changes):
    """A model on a tiny Whisper checkpoint, all of it learning."""
    AutoModel.from_config(encoder_hf_config("whisper")).save_pretrained(folder)
    byte_tokenizer().save(folder)
    fields = {f"model__{part}__name": str(folder) for part in ("encoder", "lm")}
    fields |= {"model__encoder__weights": "pretrained", "model__encoder__finetune": "all"}
    fields |= {"model__lm__tokenizer": str(folder), "model__lm__speech_token": True, "model__gate__input_score": True}
    return build_model(tiny_config("whisper", **fields, **changes).model)


def by_name(model) -> dict[str, str]:
    """Parameter name -> group name."""
    groups = {id(p): g["name"] for g in parameter_groups(model, RATES) for p in g["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters() if id(p) in groups}


@pytest.mark.parametrize("lm_kind", ["prefix", "whisper"])
@pytest.mark.parametrize("finetune", ["frozen", "all", "top-1"])
def test_every_trainable_parameter_is_in_exactly_one_group(lm_kind, finetune):
    model = tiny_model(lm_kind, "wavlm", model__encoder__finetune=finetune)
    grouped = [id(p) for g in parameter_groups(model, RATES) for p in g["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}


def test_gates_have_a_rate_of_their_own_and_no_decay(tmp_path):
    model = pretrained(tmp_path)
    groups = {g["name"]: g for g in parameter_groups(model, RATES)}
    assert {name: g["lr"] for name, g in groups.items()} == {
        "gate": 1e-2, "encoder": 2e-5, "lm": 3e-5, "new": 1e-3, "new_no_decay": 1e-3
    }  # fmt: skip
    assert {id(p) for p in groups["gate"]["params"]} == {id(model.gate.logits), id(model.fusion.task_bias)}
    assert [groups[n]["weight_decay"] for n in ("gate", "new_no_decay", "new", "lm")] == [0, 0, 0.1, 0.1]
    assert all(g["base"] == g["lr"] for g in groups.values())


def test_what_was_pre_trained_learns_slowly_and_what_is_new_does_not(tmp_path):
    names = by_name(pretrained(tmp_path))
    assert {g for n, g in names.items() if n.startswith("encoder.")} == {"encoder"}
    assert {g for n, g in names.items() if n.startswith(("lm.body.", "fusion.norm.", "gate.norm."))} == {"lm"}
    new = ("fusion.ffn.", "gate.ffn.", "heads.", "lm.speech_token.")
    assert {g for n, g in names.items() if n.startswith(new)} == {"new", "new_no_decay"}
    fresh = by_name(tiny_model("prefix", model__encoder__finetune="all"))
    assert set(fresh.values()) == {"gate", "new", "new_no_decay"}  # random weights would hardly move at 3e-5


def test_the_schedule_warms_up_linearly_and_decays_by_a_cosine():
    config = TrainingConfig(steps=110, warmup_steps=10, final_rate=0.1)
    values = [scale_of(step, config) for step in range(111)]
    assert values[:3] == pytest.approx([0.1, 0.2, 0.3]) and values[9] == values[10] == 1.0
    assert values[60] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert values[110] == pytest.approx(0.1) and scale_of(500, config) == pytest.approx(0.1)
    assert all(a > b for a, b in zip(values[10:], values[11:], strict=False))
    assert scale_of(0, TrainingConfig(steps=10, warmup_steps=0)) == 1.0


def test_rates_follow_the_schedule_from_each_groups_base():
    model = tiny_model("prefix")
    config = TrainingConfig(steps=100, warmup_steps=4)
    optimizer = torch.optim.AdamW(parameter_groups(model, config))
    for step in (0, 1):  # set from the base each time, not from the last value
        set_rates(optimizer, step, config)
        assert [g["lr"] for g in optimizer.param_groups] == [g["base"] * (step + 1) / 4 for g in optimizer.param_groups]


def test_the_average_follows_the_weights_faster_at_the_start():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = average_of(model)
    model.weight.data.fill_(1.0)
    update_average(average, model, decay=0.99, step=0)
    assert float(average["weight"]) == pytest.approx(1 - 1 / 10)  # (0 + 1) / (0 + 10) of the old
    update_average(average, model, decay=0.5, step=10_000)
    assert float(average["weight"]) == pytest.approx(0.95)
    assert model.weight.tolist() == [[1.0]]


def test_the_average_holds_what_learns():
    model = tiny_model("whisper", model__lm__train_embeddings=False)
    assert set(average_of(model)) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_averaged_weights_are_there_inside_and_gone_exactly_afterwards():
    model = tiny_model("prefix")
    average = average_of(model)
    for tensor in average.values():
        tensor.mul_(0.3).add_(0.01)
    own = {n: t.clone() for n, t in model.state_dict().items()}
    kept = {n: t.clone() for n, t in average.items()}
    with pytest.raises(RuntimeError, match="inside"), averaged(model, average) as inside:
        assert inside is model
        parameters = dict(model.named_parameters())
        assert all(torch.equal(parameters[n], t) for n, t in kept.items())
        raise RuntimeError("inside")
    assert all(torch.equal(t, own[n]) for n, t in model.state_dict().items())
    assert all(torch.equal(average[n], t) for n, t in kept.items())
    with averaged(model, None):
        assert all(torch.equal(t, own[n]) for n, t in model.state_dict().items())
