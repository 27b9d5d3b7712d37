"""`training.only`: a part of the model learns, the rest stays to the bit."""

import pytest
import torch
from factories import tiny_config, tiny_corpus, tiny_model

from harmonifuse_core.config import CorpusConfig, TrainingConfig
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.training.loop import Trainer
from harmonifuse_core.training.optimization import freeze_others, parameter_groups


def trained(folder, only: str, **changes) -> tuple[set[str], dict]:
    """Names of weights and statistics that two steps moved, and the second step's log row."""
    asr, ser = tiny_corpus(folder / "corpus")
    corpora = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser"))
    config = tiny_config("whisper", data__train=corpora, training__only=only, training__gradients_every=1, **changes)
    torch.manual_seed(0)
    model = build_model(config.model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    trainer = Trainer(config, model, RunFolder(folder / "run"))
    trainer._step(0)
    row = trainer._step(1)
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}, row


def test_what_it_names_learns_and_nothing_else_moves(tmp_path):
    moved, row = trained(tmp_path, r"gate\.(ffn|logits)", model__gate__input_score=True)
    assert {"gate.logits", "gate.ffn.2.weight"} <= moved
    assert all(name.startswith(("gate.ffn", "gate.logits")) for name in moved)
    assert set(row["gradients"]["norm"]["asr"]) == {"gate", "all"}


def test_running_statistics_learn_by_the_same_rule(tmp_path):
    moved, _ = trained(tmp_path, "gate", model__gate__input_score=True, model__lm__speech_token=True)
    assert {"gate.standardise.mean", "gate.ffn.2.weight"} <= moved
    assert all(name.startswith("gate.") for name in moved)


def test_a_task_that_it_leaves_nothing_to_learn_has_a_loss_and_no_gradient(tmp_path):
    moved, row = trained(tmp_path, r"heads\.ser")
    assert moved and all(name.startswith("heads.ser") for name in moved)
    assert row["tasks"]["asr"]["loss"] > 0
    assert row["gradients"]["norm"]["asr"]["all"] == 0 < row["gradients"]["norm"]["ser"]["all"]


def test_a_step_of_such_a_task_alone_changes_nothing(tmp_path):
    asr, _ = tiny_corpus(tmp_path / "corpus")
    config = tiny_config("whisper", data__train=(CorpusConfig(str(asr), "asr"),), training__only=r"heads\.ser")
    model = build_model(config.model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    row = Trainer(config, model, RunFolder(tmp_path / "run"))._step(0)
    assert row["gradient_norm"] == 0 < row["tasks"]["asr"]["loss"]
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_it_leaves_frozen_what_was_frozen():
    model = tiny_model("whisper", model__encoder__finetune="top-1")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    freeze_others(model, "")
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}
    freeze_others(model, "encoder")
    chosen = {name for name, p in model.named_parameters() if p.requires_grad}
    assert chosen == {name for name in learning if name.startswith("encoder")}
    assert chosen < {name for name, _ in model.named_parameters() if name.startswith("encoder")}
    assert sum(len(g["params"]) for g in parameter_groups(model, TrainingConfig())) == len(chosen)


@pytest.mark.parametrize(
    ("only", "told"),
    [("encodre", "training.only 'encodre' fits no weight; names begin"), ("(", "training.only '.' is no regular")],
)
def test_what_fits_nothing_is_refused_by_name(only, told):
    with pytest.raises(ValueError, match=told):
        freeze_others(tiny_model("prefix"), only)
