"""Norms and cosines of the tasks' gradients, against gradients worked out by hand."""

from dataclasses import replace

import pytest
import torch
from factories import tiny_config, tiny_corpus
from torch import nn

from harmonifuse_core.config import CorpusConfig
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.tasks import ASR, SER
from harmonifuse_core.training.gradients import TaskGradients, module_of
from harmonifuse_core.training.loop import Trainer


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.lm = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)


def test_cosines_and_norms_by_hand():
    model = Two()
    found = TaskGradients(model)
    gate, lm = model.gate.weight[0], model.lm.weight[0]
    found.add("asr", 3 * gate[0] + lm[0])
    found.add("ser", -2 * gate[0])
    found.add("ser", 2 * gate[1])  # a second part of the same step
    report = found.report()
    assert report["norm"]["asr"] == pytest.approx({"gate": 3, "lm": 1, "all": 10**0.5}, rel=1e-4)
    assert report["norm"]["ser"] == pytest.approx({"gate": 8**0.5, "lm": 0, "all": 8**0.5}, rel=1e-4)
    cosines = report["cosine"]["asr,ser"]
    assert cosines == pytest.approx({"gate": -(0.5**0.5), "all": -6 / 80**0.5}, abs=1e-4)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("gate.logits", "gate"),
        ("encoder.body.layers.0.fc1.weight", "encoder.1"),
        ("lm.body.model.layers.11.mlp.up_proj.weight", "lm.12"),
        ("lm.body.transformer.h.2.attn.weight", "lm.3"),
        ("lm.bridge.weight", "lm"),
    ],
)
def test_modules_are_told_by_name_and_block_k_gives_state_k(name, module):
    assert module_of(name) == module


def test_the_log_holds_them_and_looking_changes_nothing(tmp_path):
    asr, ser = tiny_corpus(tmp_path / "corpus")
    corpora, states = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser")), []
    for every in (0, 1):
        config = tiny_config(
            "whisper", data__train=corpora, training__gradients_every=every, training__accumulation=1 + every,
            training__learning_rate=0.0, training__gate_rate=0.0, training__lm_rate=0.0,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = Trainer(config, build_model(config.model), RunFolder(tmp_path / str(every)))
        row = trainer._step(0)
        states.append((row, [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]))
    (plain, one), (looked, other) = states
    assert "gradients" not in plain
    total = looked["gradients"]
    a, b = (total["norm"][task]["all"] for task in ("asr", "ser"))
    joint = (a**2 + b**2 + 2 * a * b * total["cosine"]["asr,ser"]["all"]) ** 0.5  # |a + b|
    assert joint == pytest.approx(looked["gradient_norm"], rel=1e-3)
    assert plain["gradient_norm"] == pytest.approx(looked["gradient_norm"], rel=1e-4)
    assert {"gate", "fusion", "lm.1", "lm.2", "heads"} <= set(total["norm"]["ser"])
    assert "heads" not in total["cosine"]["asr,ser"]  # only one task reaches it
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-3)


def test_a_task_may_leave_the_encoder_alone(tmp_path):
    """With `trains_encoder: false` its loss is the same, its gradient outside the encoder too, inside there is none."""
    asr, ser = tiny_corpus(tmp_path / "corpus")
    corpora, found = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser")), []
    for trains in (True, False):
        config = tiny_config(
            "whisper", data__train=corpora, model__encoder__finetune="all",
            model__tasks=(ASR, replace(SER, trains_encoder=trains)),
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = Trainer(config, build_model(config.model), RunFolder(tmp_path / str(trains)))
        gradients = TaskGradients(trainer.model)
        for part in trainer.batches.step(0)[0].items():
            gradients.add(part[0], trainer.model(dict([part]))[part[0]].loss)
        found.append(gradients.report())
    (both, alone), names = found, {"encoder", "encoder.1", "encoder.2"}
    assert all(both["norm"][task][name] > 0 for task in both["norm"] for name in names)
    assert both["norm"]["asr"] == pytest.approx(alone["norm"]["asr"], rel=1e-5)
    assert all(alone["norm"]["ser"][name] == 0 for name in names)
    others = {name: value for name, value in both["norm"]["ser"].items() if name not in names | {"all"}}
    assert others == pytest.approx({name: alone["norm"]["ser"][name] for name in others}, rel=1e-5)
    assert others["gate"] > 0 and others["lm.1"] > 0
