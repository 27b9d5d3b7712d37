"""Weights on disk: bit-exact, whole or refused, in files that git hosts take."""

import json

import pytest
import torch
from factories import tiny_config, tiny_model, tiny_run, tone
from safetensors.torch import load_file, save_file
from torch import nn

from harmonifuse_core import load, predict
from harmonifuse_core.config import save_yaml
from harmonifuse_core.model import weights
from harmonifuse_core.model.weights import load_shards, load_state, save_shards, unique_state
from harmonifuse_core.runs import RunError, RunFolder, save_model

PAIRS = [("whisper", "whisper"), ("prefix", "wavlm-large"), ("prefix", "hubert"), ("whisper", "wav2vec2")]


@pytest.mark.parametrize(("lm_kind", "encoder"), PAIRS)
def test_a_saved_run_gives_its_model_back_bit_for_bit(tmp_path, lm_kind, encoder):
    changes = {"model__lm__speech_token": lm_kind == "whisper", "model__gate__input_score": True}
    run = tiny_run(tmp_path, lm_kind=lm_kind, encoder=encoder, **changes)
    model, again = tiny_model(lm_kind, encoder, **changes), load(run.path)
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys() and not again.training
    for name, tensor in mine.items():
        half = tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor
        assert torch.equal(theirs[name], half) and theirs[name].dtype == tensor.dtype, name
    save_model(again, RunFolder(tmp_path / "second"), run.config())
    third = load(tmp_path / "second")
    assert all(torch.equal(t, third.state_dict()[n]) for n, t in theirs.items())
    a, b = (predict(m, [tone(0.5)])[0] for m in (again, third))
    assert a["asr"].tokens == b["asr"].tokens and a["ser"].probabilities == b["ser"].probabilities


def test_a_run_holds_no_pickle_and_every_part(tmp_path):
    run = tiny_run(tmp_path)
    names = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    model = {"encoder.json", "lm.json", "tokenizer.json", "weights.json", "weights-1.safetensors"}
    assert names == {"config.yaml", "environment.json", *(f"model/{name}" for name in model)}
    for file in run.path.rglob("*"):
        assert not file.is_file() or not file.read_bytes().startswith((b"\x80", b"PK"))  # pickle, torch.save


def test_weights_can_be_read_by_whoever_may_read_the_config(tmp_path):
    run = tiny_run(tmp_path)
    (weights_file,) = run.model.glob("*.safetensors")
    assert weights_file.stat().st_mode == (run.path / "config.yaml").stat().st_mode


def test_tied_weights_are_stored_once_and_tied_again(tmp_path):
    model = tiny_model("prefix")
    names = [n for n in unique_state(model) if n.endswith(("embed_tokens.weight", "lm_head.weight"))]
    assert len(names) == 1
    other = tiny_model("prefix", seed=1)
    save_shards(model, tmp_path, torch.float32)
    load_shards(other, tmp_path)
    body = other.lm.body
    assert body.get_input_embeddings().weight is body.get_output_embeddings().weight
    assert torch.equal(body.get_output_embeddings().weight, model.lm.body.get_output_embeddings().weight)


class Big(nn.Module):
    def __init__(self, fill: float = 0.0):
        super().__init__()
        self.large = nn.Parameter(torch.arange(70 * 8.0).view(70, 8) + fill)
        self.small = nn.ParameterList([nn.Parameter(torch.full((10,), float(k) + fill)) for k in range(30)])
        self.register_buffer("count", torch.tensor(7 + int(fill)))


def test_files_stay_below_the_limit_and_a_huge_tensor_is_cut_and_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 200)
    save_shards(Big(), tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    sizes = [sum(t.nbytes for t in load_file(f).values()) for f in files]
    assert len(files) > 5 and max(sizes) <= 200
    index = json.loads((tmp_path / "weights.json").read_text())
    assert index["dtype"] == "float16" and set(index["joined"]) == {"large"}
    assert sorted(index["files"]) == [f.name for f in files]
    model = Big(fill=1)
    load_shards(model, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), Big().state_dict().values(), strict=True))


def test_default_files_stay_below_50_megabytes(tmp_path):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(60 * 2**20 // 512, 256))  # 60 MiB as float16

    save_shards(Wide(), tmp_path)
    sizes = [f.stat().st_size for f in tmp_path.glob("*.safetensors")]
    assert len(sizes) == 2 and max(sizes) < 50e6


def test_writing_again_leaves_nothing_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 200)
    save_shards(Big(), tmp_path)
    monkeypatch.setattr(weights, "SHARD_BYTES", 10_000)
    save_shards(Big(fill=2), tmp_path)
    assert [f.name for f in tmp_path.glob("*.safetensors")] == ["weights-1.safetensors"]
    model = Big()
    load_shards(model, tmp_path)
    assert int(model.count) == 9


def test_missing_and_foreign_tensors_are_named(tmp_path):
    state = Big().state_dict()
    with pytest.raises(ValueError, match=r"here lacks 'small\.3' \(1 tensors missing\)"):
        load_state(Big(), {n: t for n, t in state.items() if n != "small.3"}, "here")
    with pytest.raises(ValueError, match="here holds 'stranger', which the config does not build"):
        load_state(Big(), {**state, "stranger": torch.zeros(1)}, "here")
    with pytest.raises(ValueError, match="here does not fit the config: size mismatch for large"):
        load_state(Big(), {**state, "large": torch.zeros(2, 2)}, "here")


def test_a_damaged_folder_says_what_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"has no weights\.json"):
        load_shards(Big(), tmp_path)
    save_shards(Big(), tmp_path)
    (tmp_path / "weights-1.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"lacks the weight file 'weights-1\.safetensors'"):
        load_shards(Big(), tmp_path)
    index = json.loads((tmp_path / "weights.json").read_text())
    save_file({"large": torch.zeros(1)}, tmp_path / "outside.safetensors")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "weights.json").write_text(json.dumps({**index, "files": {"../outside.safetensors": ["large"]}}))
    with pytest.raises(ValueError, match="lacks the weight file"):
        load_shards(Big(), inside)


def test_a_run_that_is_no_run_or_has_no_model_says_so(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.yaml"):
        load(tmp_path)
    run = tiny_run(tmp_path)
    (run.model / "weights.json").unlink()
    with pytest.raises(RunError, match=r"has no model: train it with `python -m harmonifuse_core\.train"):
        load(run.path)


def test_weights_of_another_config_are_refused(tmp_path):
    run = tiny_run(tmp_path)
    other = tiny_config("whisper", model__gate__mode="shared")
    save_yaml(other, run.config_file)
    with pytest.raises(ValueError, match=r"does not fit the config: size mismatch for gate\.logits"):
        load(run.path)


def test_calibration_travels_with_the_weights(tmp_path):
    model = tiny_model("whisper")
    model.heads["ser"].temperature.fill_(2.5)
    config = tiny_config("whisper")
    save_model(model, RunFolder(tmp_path / "run"), config)
    assert float(load(tmp_path / "run").heads["ser"].temperature) == 2.5
