"""`train --init RUN` starts from the weights of another run."""

import json

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


def test_a_run_without_weights_is_refused(tmp_path, capsys):
    assert main(arguments(tmp_path, tmp_path / "nowhere", tmp_path / "second")) == 1
    assert "holds no model" in capsys.readouterr().err
