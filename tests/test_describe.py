"""What a config needs, from the code that trains; the shipped configs; one real step of the paper's at full size."""

from pathlib import Path

import pytest
import torch
from factories import tiny_config

from harmonifuse_core.config import load_yaml, save_yaml
from harmonifuse_core.describe import ARCHITECTURES, build, main, without_weights
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.training.footprint import footprint_of, measure_step

CONFIGS = Path(__file__).resolve().parents[1] / "harmonifuse_core" / "configs"
NAMES = ("paper", "wavlm-base-plus", "hubert", "wav2vec2", "whisper", "tiny")
# parameters of the published encoders with their front ends, in millions
MILLIONS = {"wavlm-large": 315.5, "wavlm-base-plus": 94.4, "hubert-base-ls960": 94.4, "wav2vec2-base": 94.4}


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIGS.glob("*.yaml")))
def test_every_shipped_config_can_be_read(name):
    config = load_yaml(CONFIGS / f"{name}.yaml")
    assert config.data.train and config.title
    assert {corpus.task for corpus in config.data.train} == {task.name for task in config.model.tasks}


def test_the_configs_that_the_readme_names_are_there():
    assert {p.stem for p in CONFIGS.glob("*.yaml")} >= set(NAMES)


@pytest.mark.parametrize("name", sorted(MILLIONS))
def test_architectures_have_the_published_sizes(name):
    config = tiny_config("prefix", model__encoder__name=str(ARCHITECTURES / name))
    found = footprint_of(build(config, meta=True), config)
    assert found.parameters["encoder"] / 1e6 == pytest.approx(MILLIONS[name], rel=0.005)
    assert found.trainable["encoder"] == 0


def test_the_papers_shapes_are_counted_without_memory():
    config = without_weights(load_yaml(CONFIGS / "paper.yaml"))
    model = build(config, meta=True)
    assert sum(p.numel() for p in model.parameters() if p.device.type != "meta") < 10_000
    found = footprint_of(model, config)
    assert found.shapes["encoder gate w"] == "(2, 25)" and found.shapes["task bias b"] == "(2, 13)"
    assert sum(found.trainable.values()) == 52_612_817 and found.parameters["encoder"] == 315_453_120
    weights = found.memory["weights"] + found.memory["gradients and AdamW"]
    assert weights == 4 * sum(found.parameters.values()) + 12 * sum(found.trainable.values())


def test_counts_are_those_of_the_model_that_trains():
    for changes in ({}, {"model__encoder__finetune": "top-1"}, {"model__encoder__finetune": "lora-2"}):
        config = tiny_config("whisper", **changes)
        model = build_model(config.model)
        found = footprint_of(model, config)
        assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())
        assert sum(found.trainable.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    cached = tiny_config("whisper", data__state_cache="x")
    assert footprint_of(model, cached).flops["encoder"] == 0 < found.flops["encoder"]


def test_the_command_describes_and_measures(tmp_path, capsys):
    save_yaml(tiny_config("whisper"), tmp_path / "c.yaml")
    assert main(["--config", str(tmp_path / "c.yaml"), "--measure", "--seconds", "1"]) == 0
    said = capsys.readouterr().out
    assert "encoder states: 3 x (B, T, 16)" in said and "one step of 2 tasks with 2 s each took" in said
    assert main(["--config", str(tmp_path / "none.yaml")]) == 1 and "does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_the_paper_config_takes_a_step_on_a_cpu_in_less_than_16_gigabytes():
    config = without_weights(load_yaml(CONFIGS / "paper.yaml"))
    torch.manual_seed(0)
    model = build(config, meta=False)
    before = model.gate.logits.detach().clone()
    step = measure_step(model, config, clips=2, seconds=8.0)
    print(f"\n16 s of speech a task: {step.cpu_seconds:.1f} s of processor, peak {step.peak / 2**30:.2f} GiB")
    assert step.peak < 16 * 2**30 and bool((model.gate.logits != before).all())
