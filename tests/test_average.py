"""Averaging runs: convex combination of every weight and running statistic, and nothing written on refusal."""

import json

import pytest
import torch
from factories import tiny_config, tiny_model, tiny_run, tiny_whisper
from torch import nn

from harmonifuse_core.average import average_models, main
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder, load, save_model


def model(value: float, width: int = 2) -> nn.Module:
    built = nn.Sequential(nn.Linear(width, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.fill_(value)
    built[1].running_mean.fill_(10 * value)
    built[1].num_batches_tracked.fill_(int(value))
    return built


def test_weights_and_running_statistics_are_the_weighted_mean():
    mean = average_models([model(1.0), model(5.0)], [0.75, 0.25])
    assert torch.equal(mean[0].weight, torch.full((3, 2), 2.0))
    assert torch.equal(mean[1].running_mean, torch.full((3,), 20.0))
    assert int(mean[1].num_batches_tracked) == 1  # whole numbers stay the first model's


def test_a_share_of_one_gives_that_model_back_bit_exact():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    kept = second.weight.detach().clone()
    assert torch.equal(average_models([first, second], [0.0, 1.0]).weight, kept)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.5, -0.5]])
def test_shares_that_are_no_convex_combination_are_refused(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        average_models([model(1.0), model(2.0)], shares)


def test_different_architectures_are_refused_by_name():
    with pytest.raises(ValueError, match="0.weight"):
        average_models([model(1.0), model(2.0, width=5)], [0.5, 0.5])


@torch.inference_mode()
def test_heads_that_one_run_lacks_count_by_the_share_of_their_output():
    first = tiny_model("whisper", model__lm__speech_token=True, model__lm__speech_token_heads=2)
    second = tiny_model("whisper", model__lm__speech_token=True)
    before = {name: value.clone() for name, value in first.state_dict().items() if "heads" in name}
    mean = average_models([first, second], [0.25, 0.75]).state_dict()
    name = "lm.speech_token.project_heads.weight"
    torch.testing.assert_close(mean[name], 0.25 * before[name])
    name = "lm.speech_token.standardise_heads.mean"
    assert torch.equal(mean[name], before[name])
    with pytest.raises(ValueError, match="speech_token"):
        average_models([second, first], [0.5, 0.5])


@torch.inference_mode()
def test_a_reading_of_layers_that_one_run_lacks_counts_by_the_share_of_its_output():
    first = tiny_model("whisper", model__lm__speech_token=True, model__lm__speech_token_layers=4)
    second = tiny_model("whisper", model__lm__speech_token=True)
    before = {name: value.clone() for name, value in first.state_dict().items() if name.startswith("summary.")}
    mean = average_models([first, second], [0.25, 0.75]).state_dict()
    torch.testing.assert_close(mean["summary.output.weight"], 0.25 * before["summary.output.weight"])
    assert torch.equal(mean["summary.inner.weight"], before["summary.inner.weight"])


def test_what_another_run_never_trained_stays_the_first_ones():
    mean = average_models([model(1.0), model(5.0)], [0.75, 0.25], own=r"1\.running|0\.bias")
    assert torch.equal(mean[0].bias, torch.ones(3)) and torch.equal(mean[1].running_mean, torch.full((3,), 10.0))
    assert torch.equal(mean[0].weight, torch.full((3, 2), 2.0))


@pytest.mark.parametrize(("own", "message"), [("heads", "'heads' fits no weight"), ("(", "is no regular expression")])
def test_a_choice_of_own_weights_that_chooses_none_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        average_models([model(1.0), model(2.0)], [0.5, 0.5], own=own)


def test_command_refuses_and_writes_nothing(tmp_path, capsys):
    output = tmp_path / "new"
    assert main(["--run", str(tmp_path / "none"), "--output", str(output), "other=0.5"]) == 1
    assert "not a run folder" in capsys.readouterr().err
    assert main(["--run", str(tmp_path / "none"), "--output", str(output), "other=half"]) == 1
    assert "'half' is not a weight" in capsys.readouterr().err
    assert not output.exists()


def test_runs_whose_gates_started_elsewhere_are_averaged_and_other_ones_refused(tmp_path, capsys):
    starts = {"model__gate__last_logit": 3.0, "model__lm__last_logit": 3.0, "model__encoder__silence_frames": 4}
    first, second = tiny_run(tmp_path, "first", **starts), tiny_run(tmp_path, "second", seed=1)
    assert main(["--run", str(first.path), "--output", str(tmp_path / "mean"), f"{second.path}=0.25"]) == 0
    states = [load(run).state_dict()["gate.logits"] for run in (first, second, tmp_path / "mean")]
    torch.testing.assert_close(states[2], 0.75 * states[0] + 0.25 * states[1], atol=2e-3, rtol=2e-3)
    assert load(tmp_path / "mean").encoder.silence.frames == 4  # the encoder's settings are those of --run
    other = tiny_run(tmp_path, "other", model__gate__mode="shared")
    assert main(["--run", str(first.path), "--output", str(tmp_path / "none"), str(other.path)]) == 1
    assert "has another model section" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_the_mean_is_drawn_back_to_the_pretrained_weights(tmp_path):
    whisper, runs = tmp_path / "whisper", [tmp_path / "first", tmp_path / "second"]
    tiny_whisper(whisper)
    names = {f"model__{part}__name": str(whisper) for part in ("encoder", "lm")}
    config = tiny_config("whisper", **names, model__encoder__weights="pretrained", model__lm__tokenizer=str(whisper))
    fresh = build_model(config.model).state_dict()
    for seed, run in enumerate(runs):
        save_model(tiny_model("whisper", seed=seed), RunFolder(run), config)
    command = ["--run", str(runs[0]), f"{runs[1]}=0.25"]
    assert main([*command, "--output", str(tmp_path / "mean")]) == 0
    assert main([*command, "--output", str(tmp_path / "back"), "--pretrained-share", "0.1"]) == 0
    assert json.loads((tmp_path / "back" / "environment.json").read_text())["pretrained_share"] == 0.1
    mean, back = (load(tmp_path / name).state_dict() for name in ("mean", "back"))
    for name in ("encoder.body.layers.0.fc1.weight", "lm.body.layers.0.fc1.weight", "fusion.task_bias"):
        torch.testing.assert_close(back[name], 0.1 * fresh[name] + 0.9 * mean[name], atol=2e-3, rtol=2e-3)
        assert not torch.equal(back[name], mean[name])
    assert torch.equal(back["heads.ser.output.weight"], mean["heads.ser.output.weight"])  # random at first


def test_a_pretrained_share_beyond_one_is_refused(tmp_path, capsys):
    run, output = tiny_run(tmp_path), tmp_path / "new"
    assert main(["--run", str(run.path), str(run.path), "--output", str(output), "--pretrained-share", "1.5"]) == 1
    assert "--pretrained-share is 1.5; use 0" in capsys.readouterr().err and not output.exists()
