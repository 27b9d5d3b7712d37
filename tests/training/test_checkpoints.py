"""Checkpoints: complete or not there, exact, without pickle."""

import json

import pytest
import torch
from factories import tiny_model
from safetensors.torch import load_file

from harmonifuse_core.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from harmonifuse_core.training.optimization import average_of


def trained(lm_kind: str = "prefix", seed: int = 0, steps: int = 3):
    model = tiny_model(lm_kind, seed=seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": parameters[:3], "lr": 1e-2}, {"params": parameters[3:], "lr": 1e-3}])
    average = average_of(model)
    for step in range(steps):
        optimizer.zero_grad()
        sum((p * (step + 1)).sin().sum() for p in parameters).backward()
        optimizer.step()
    return model, optimizer, average


def equal_states(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("lm_kind", ["prefix", "whisper"])
def test_model_optimiser_and_average_come_back_exactly(tmp_path, lm_kind):
    model, optimizer, average = trained(lm_kind)
    save_checkpoint(tmp_path, 3, model, optimizer, average, keep=2, extra={"note": "x"})
    other, fresh, blank = trained(lm_kind, seed=1, steps=1)
    assert load_checkpoint(tmp_path / "step-000003", other, fresh, blank) == {"step": 3, "note": "x"}
    assert equal_states(model.state_dict(), other.state_dict()) and equal_states(average, blank)
    mine, theirs = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert mine.keys() == theirs.keys() and all(equal_states(mine[k], theirs[k]) for k in mine)
    for m, o in ((model, optimizer), (other, fresh)):  # and go on alike
        o.zero_grad()
        sum(p.square().sum() for p in m.parameters() if p.requires_grad).backward()
        o.step()
    assert equal_states(model.state_dict(), other.state_dict())


def test_only_the_newest_are_kept_and_listed_in_order_of_their_step(tmp_path):
    model, optimizer, average = trained("whisper")
    for step in (5, 10, 1_000_000, 999_999):
        save_checkpoint(tmp_path, step, model, optimizer, average, keep=3, extra={})
    assert [step for step, _ in list_checkpoints(tmp_path)] == [10, 999_999, 1_000_000]


def test_what_a_kill_left_is_no_checkpoint_and_no_obstacle(tmp_path):
    model, optimizer, average = trained("whisper")
    (tmp_path / "part-000004").mkdir()
    (tmp_path / "part-000004" / "model.safetensors").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == []
    save_checkpoint(tmp_path, 4, model, optimizer, average, keep=2, extra={})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000004"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_a_checkpoint_is_written_without_pickle_and_names_its_step(tmp_path):
    model, optimizer, average = trained("whisper")
    save_checkpoint(tmp_path, 7, model, optimizer, average, keep=1, extra={})
    folder = tmp_path / "step-000007"
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"
    }  # fmt: skip
    assert json.loads((folder / "state.json").read_text()) == {"step": 7}
    for file in folder.glob("*.safetensors"):
        assert load_file(file)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    model, optimizer, average = trained("whisper")
    save_checkpoint(tmp_path, 1, model, optimizer, average, keep=1, extra={})
    other = tiny_model("whisper", model__gate__mode="shared")
    with pytest.raises(ValueError, match=r"step-000001 does not fit the config: size mismatch for gate\.logits"):
        load_checkpoint(tmp_path / "step-000001", other, optimizer, average)


def test_without_averaging_none_is_written(tmp_path):
    model, optimizer, _ = trained("whisper")
    save_checkpoint(tmp_path, 1, model, optimizer, None, keep=1, extra={})
    assert not (tmp_path / "step-000001" / "average.safetensors").exists()
    assert load_checkpoint(tmp_path / "step-000001", model, optimizer, None) == {"step": 1}
