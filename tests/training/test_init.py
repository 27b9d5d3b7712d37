"""`train --init RUN` starts from the weights of another run."""

import json

import pytest
import torch
from factories import tiny_config, tiny_corpus, tiny_run

from harmonifuse_core.config import save_yaml
from harmonifuse_core.runs import RunFolder, load
from harmonifuse_core.train import main


def arguments(folder, init, run):
    asr, ser = tiny_corpus(folder, n=4)
    train = [{"manifest": str(asr), "task": "asr"}, {"manifest": str(ser), "task": "ser"}]
    rates = dict.fromkeys(("learning_rate", "encoder_rate", "lm_rate", "gate_rate"), 0.0)
    config = tiny_config(
        "whisper", data__train=train, training__steps=1, **{f"training__{k}": v for k, v in rates.items()}
    )
    save_yaml(config, folder / "config.yaml")
    return ["--config", str(folder / "config.yaml"), "--run", str(run), "--init", str(init), "--device", "cpu"]


def test_weights_come_from_the_other_run(tmp_path):
    first = tiny_run(tmp_path, "first", "whisper", seed=3)
    assert main(arguments(tmp_path, first.path, tmp_path / "second")) == 0
    second = load(tmp_path / "second").state_dict()
    for name, tensor in load(first).state_dict().items():
        assert torch.equal(tensor, second[name]), name
    environment = json.loads(RunFolder(tmp_path / "second").environment_file.read_text())
    assert environment["init"] == str(first.path)


def test_what_the_other_run_lacks_starts_afresh_and_is_named_in_the_log(tmp_path):
    first = tiny_run(tmp_path, "first", "whisper", seed=3, model__lm__speech_token=True)
    given = arguments(tmp_path, first.path, tmp_path / "second")
    wanted = ["model.lm.speech_token=true", "model.lm.speech_token_heads=2"]
    assert main([*given, *wanted]) == 0
    assert "start afresh: lm.speech_token.attention.0.bias" in (tmp_path / "second" / "train.log").read_text()
    second = load(tmp_path / "second").state_dict()
    assert all(torch.equal(t, second[n]) for n, t in load(first).state_dict().items() if "standardise" not in n)
    assert "lm.speech_token.project_heads.weight" in second


def test_a_share_of_the_other_run_mixes_what_has_a_start_of_its_own(tmp_path):
    first = tiny_run(tmp_path, "first", "whisper", seed=3)
    given, weights = arguments(tmp_path, first.path, tmp_path / "second"), {}
    for share in (0, 0.25, 1):
        run = tmp_path / f"second-{share}"
        assert main([*given, "--run", str(run), "--init-share", str(share), "model.gate.last_logit=2"]) == 0
        assert json.loads(RunFolder(run).environment_file.read_text())["init_share"] == share
        weights[share] = load(run).state_dict()
    mixed = {"encoder.body.layers.0.fc1.weight", "lm.body.layers.0.fc1.weight", "gate.logits", "fusion.task_bias"}
    for name, untrained in weights[0].items():
        if name.startswith(("encoder.body", "lm.body", "gate.norm", "fusion.norm")) or name in mixed:
            between = 0.25 * weights[1][name] + 0.75 * untrained
            torch.testing.assert_close(weights[0.25][name], between, atol=2e-3, rtol=2e-3)  # saved as float16
            mixed.discard(name)
        else:
            assert torch.equal(weights[0.25][name], weights[1][name]), name
    assert not mixed and weights[0]["gate.logits"][0].tolist()[-1] == 2
    assert not torch.equal(weights[1]["gate.logits"], weights[0]["gate.logits"])


@pytest.mark.parametrize("share", ["1.5", "-0.1"])
def test_a_share_that_is_none_is_refused(tmp_path, capsys, share):
    first = tiny_run(tmp_path, "first", "whisper", seed=3)
    given = arguments(tmp_path, first.path, tmp_path / "second")
    assert main([*given, f"--init-share={share}"]) == 1
    assert f"--init-share is {share}; use 0" in capsys.readouterr().err
    assert main([*given[: given.index("--init")], "--init-share", "0.5"]) == 1
    assert "--init-share is 0.5 of no run: name one with --init" in capsys.readouterr().err


def test_a_run_without_weights_is_refused(tmp_path, capsys):
    assert main(arguments(tmp_path, tmp_path / "nowhere", tmp_path / "second")) == 1
    assert "holds no model" in capsys.readouterr().err
