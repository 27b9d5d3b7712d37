"""`train --init RUN` starts from the weights of another run."""

import json

import pytest
import torch
from factories import tiny_config, tiny_corpus, tiny_run, tiny_whisper

from harmonifuse_core.config import save_yaml
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.weights import save_shards
from harmonifuse_core.runs import RunFolder, load
from harmonifuse_core.train import main
from harmonifuse_core.training.starting import start_from


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


def shares_tried(tmp_path, settings: list[str]) -> dict[float, dict]:
    """Weights after `train --init` without learning, by --init-share."""
    given, weights = arguments(tmp_path, tiny_run(tmp_path, "first", "whisper", seed=3).path, tmp_path / "second"), {}
    for share in (0, 0.25, 1):
        run = tmp_path / f"second-{share}"
        assert main([*given, "--run", str(run), "--init-share", str(share), "model.gate.last_logit=2", *settings]) == 0
        assert json.loads(RunFolder(run).environment_file.read_text())["init_share"] == share
        weights[share] = load(run).state_dict()
    return weights


@pytest.mark.parametrize("pretrained", [(), ("encoder",), ("encoder", "lm")])
def test_a_share_of_the_other_run_mixes_what_has_a_start_of_its_own(tmp_path, pretrained):
    tiny_whisper(tmp_path / "whisper")
    settings = [f"model.{part}.name={tmp_path / 'whisper'}" for part in pretrained]
    settings += ["model.encoder.weights=pretrained"] * ("encoder" in pretrained)
    weights = shares_tried(tmp_path, settings)
    bodies = {f"{part}.body.layers.0.fc1.weight" for part in pretrained}
    mixed = {"gate.logits", "fusion.task_bias"} | bodies
    for name, untrained in weights[0].items():
        if name.startswith(("gate.norm", "fusion.norm", *(f"{part}.body." for part in pretrained))) or name in mixed:
            between = 0.25 * weights[1][name] + 0.75 * untrained
            torch.testing.assert_close(weights[0.25][name], between, atol=2e-3, rtol=2e-3)  # saved as float16
            mixed.discard(name)
        else:  # what was drawn at random has no start to go back to
            assert torch.equal(weights[0.25][name], weights[1][name]), name
            assert torch.equal(untrained, weights[1][name]), name
    assert not mixed and weights[0]["gate.logits"][0].tolist()[-1] == 2
    for name in {"gate.logits"} | bodies:
        assert not torch.equal(weights[1][name], weights[0][name])


def test_a_low_rank_change_shrinks_with_its_share(tmp_path):
    tiny_whisper(tmp_path / "whisper")
    settings = {"model__encoder__finetune": "lora-2", "model__encoder__weights": "pretrained"}
    settings |= {"model__encoder__name": str(tmp_path / "whisper")}
    first, fresh = (build_model(tiny_config("whisper", **settings).model) for _ in range(2))
    parts = {p: f"encoder.body.layers.0.fc1.lora_{p}" for p in ("up", "down")}
    torch.nn.init.ones_(first.get_parameter(parts["up"]))
    save_shards(first, tmp_path, torch.float32)
    start_from(fresh, tmp_path, 0.25)
    weights = fresh.state_dict()
    assert torch.equal(weights[parts["down"]], first.state_dict()[parts["down"]])
    assert torch.equal(weights[parts["up"]], torch.full_like(weights[parts["up"]], 0.25))


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
