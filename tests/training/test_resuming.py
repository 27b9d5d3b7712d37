"""A run goes on under its own config; what differs is named, and what may differ is let through."""

import pytest
from factories import tiny_config, tiny_corpus

from harmonifuse_core.config import CorpusConfig, save_yaml
from harmonifuse_core.train import main
from harmonifuse_core.training.resuming import check_resumable, differences


def test_what_only_writes_or_looks_may_differ_and_steps_may_be_added():
    old = tiny_config(training__steps=10)
    new = tiny_config(training__steps=20, training__log_every=5, training__gradients_every=3, model__beams=2)
    assert differences(old, new) == {}
    check_resumable(old, new, 10)
    with pytest.raises(ValueError, match="training.steps is 5, but the run is at step 10 already"):
        check_resumable(old, tiny_config(training__steps=5), 10)


def test_what_is_learnt_may_not_differ_and_is_named_with_both_values():
    old = tiny_config()
    new = tiny_config(model__gate__mode="shared", training__learning_rate=0.5)
    assert differences(old, new) == {
        "model.gate.mode": ("per_task", "shared"), "training.learning_rate": (0.001, 0.5)
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"step 7 .*model\.gate\.mode was 'per_task', is 'shared'; .*begin another"):
        check_resumable(old, new, 7)


def test_steps_cannot_change_under_a_moving_ratio():
    moving = {"ratio": "temperature", "temperature": 1.0, "end_temperature": 3.0}
    old, new = (tiny_config(training__steps=n, training__interleaving=moving) for n in (10, 20))
    with pytest.raises(ValueError, match="steps cannot change where the interleaving moves"):
        check_resumable(old, new, 5)


def test_the_command_refuses_and_leaves_the_run_as_it_was(tmp_path, capsys):
    asr, _ = tiny_corpus(tmp_path / "corpus")
    config = tiny_config("whisper", data__train=(CorpusConfig(str(asr), "asr"),), training__steps=2)
    save_yaml(config, tmp_path / "config.yaml")
    command = ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run"), "--device", "cpu"]
    command += ["--trackers", "none"]
    assert main(command) == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert main([*command, "--resume", "training.seed=3"]) == 1
    assert "training.seed was 0, is 3" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert main([*command, "--resume", "training.steps=3"]) == 0
    assert (tmp_path / "run" / "checkpoints" / "step-000003").is_dir()
