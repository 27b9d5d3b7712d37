"""Spreading alpha over the input: the logits' mean stays, their deviation is multiplied, and refusals write nothing."""

import json

import pytest
import torch
from factories import stir, tiny_model, tiny_run

from harmonifuse_core.routing import RoutingRecord, RoutingWriter
from harmonifuse_core.runs import RunFolder, load
from harmonifuse_core.spread import main, mean_scores, spread

CHANGES = {"model__gate__input_score": True}
LAYERS = 3


def gates(model, task: str, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Input parts and logits (B, L1) of the encoder gate, and the LM's, for random states."""
    generator = torch.Generator().manual_seed(seed)
    width = model.gate.norm.gain.numel()
    states = tuple(torch.randn(16, 5, width, generator=generator) for _ in range(model.gate.logits.shape[1]))
    encoder = model.gate(states, torch.ones(16, 5), task)
    width = model.fusion.norm.gain.numel()
    states = tuple(torch.randn(16, 1, width, generator=generator) for _ in range(model.fusion.task_bias.shape[1]))
    lm = model.fusion(states, task)
    return (encoder.score, encoder.bias + encoder.score), (lm.score[:, 0], (lm.bias + lm.score)[:, 0])


def means_of(model) -> dict:
    found = {}
    for task in model.gate.tasks:
        for stage, (score, _) in zip(("encoder", "lm"), gates(model, task), strict=True):
            found[task, stage] = score.mean(0).double()
    return found


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
@torch.no_grad()
def test_the_mean_logits_stay_and_their_deviation_is_multiplied(factor):
    model = stir(tiny_model("whisper", **CHANGES))
    before = {task: gates(model, task) for task in model.gate.tasks}
    spread(model, means_of(model), {"asr": factor}, factor)
    for task in model.gate.tasks:
        for stage, (old, new) in enumerate(zip(before[task], gates(model, task), strict=True)):
            wanted = 1.0 if (task, stage) == ("ser", 0) else factor  # only ASR's gate was asked for
            torch.testing.assert_close(new[1].mean(0), old[1].mean(0), atol=1e-4, rtol=1e-4)
            deviation = old[1] - old[1].mean(0)
            assert float(deviation.abs().max()) > 0.05
            torch.testing.assert_close(new[1] - new[1].mean(0), wanted * deviation, atol=1e-4, rtol=1e-4)


def write(run: RunFolder, name: str, tasks: dict[str, list[float]], layers: int):
    """Routing with one row a task, stage and score; every layer's score is its index times that."""
    with RoutingWriter(run.part("routing", f"{name}.parquet")) as writer:
        for task, scores in tasks.items():
            for stage in ("encoder", "lm"):
                for index, score in enumerate(scores):
                    row = tuple(score * layer for layer in range(layers))
                    even = (1 / layers,) * layers
                    writer.write(
                        [RoutingRecord(
                            utterance=str(index), task=task, prompt="p", stage=stage, alpha=even, bias=even, score=row,
                            share=even, prediction="x",
                        )]
                    )  # fmt: skip


def test_every_routing_file_counts_alike(tmp_path):
    run = tiny_run(tmp_path, **CHANGES)
    write(run, "few", {"asr": [1.0]}, LAYERS)
    write(run, "many", {"asr": [3.0, 3.0, 6.0]}, LAYERS)
    means = mean_scores(run, ["few", "many"])
    torch.testing.assert_close(means["asr", "encoder"], torch.tensor([0.0, 2.5, 5.0], dtype=torch.float64))
    assert set(means) == {("asr", "encoder"), ("asr", "lm")}


@torch.no_grad()
def test_the_command_changes_the_weights_it_names_and_no_other(tmp_path):
    run = tiny_run(tmp_path, **CHANGES)
    layers = load(run).gate.logits.shape[1]
    write(run, "train", {"asr": [0.5], "ser": [0.25]}, layers)
    command = ["--run", str(run.path), "--output", str(tmp_path / "new"), "--routing", "train"]
    assert main([*command, "--encoder", "asr=4"]) == 0
    old, new = load(run).state_dict(), load(tmp_path / "new").state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert "gate.logits" in changed and changed <= {"gate.logits", "gate.ffn.2.weight", "gate.ffn.2.bias"}
    moved = old["gate.logits"][0] - new["gate.logits"][0]
    torch.testing.assert_close(moved, 3 * 0.5 * torch.arange(float(layers)), atol=2e-3, rtol=2e-3)
    assert torch.equal(old["gate.logits"][1], new["gate.logits"][1])
    made = json.loads((tmp_path / "new" / "environment.json").read_text())
    assert (made["spread_of"], made["encoder"], made["routing"]) == ("tiny", {"asr": 4.0}, ["train"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "asr=2", "--routing", "none"], "none.parquet is missing"),
        (["--encoder", "asr=2", "--routing", "../../config"], "not a plain file name"),
        (["--encoder", "speaker=2", "--routing", "asr"], "task 'speaker' is not one of asr, ser"),
        (["--encoder", "ser=2", "--routing", "asr"], "no utterance of task 'ser' in the routing, which has asr"),
        (["--lm", "2", "--routing", "asr"], "no utterance of task 'ser'"),
        (["--encoder", "asr=2", "--routing", "deep"], "the routing has 9 layers"),
        (["--routing", "asr"], "nothing to spread"),
    ],
)
def test_what_cannot_be_spread_is_refused_and_nothing_written(tmp_path, capsys, options, message):
    run = tiny_run(tmp_path, **CHANGES)
    write(run, "asr", {"asr": [1.0]}, load(run).gate.logits.shape[1])
    write(run, "deep", {"asr": [1.0]}, 9)
    assert main(["--run", str(run.path), "--output", str(tmp_path / "new"), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "asr=-1"], "-1: a factor"),
        (["--encoder", "asr"], "'asr': write TASK=K"),
        (["--lm", "nan"], "nan:"),
    ],
)
def test_a_factor_that_is_none_is_refused_by_value(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["--run", "r", "--output", str(tmp_path / "new"), "--routing", "a", *options])
    assert message in capsys.readouterr().err


def test_gates_without_an_input_part_are_refused():
    with pytest.raises(ValueError, match="gate.input_score true"):
        spread(tiny_model("whisper"), {}, {"asr": 2.0}, 1.0)
    with pytest.raises(ValueError, match="'bias': only 'adaptive'"):
        spread(tiny_model("whisper", model__lm__fusion="bias", **CHANGES), {}, {}, 2.0)
