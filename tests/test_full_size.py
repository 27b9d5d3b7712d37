"""The Large encoders at their published sizes, with random weights: the same states as transformers alone, and a step.

    python -m pytest -m slow tests/test_full_size.py

Each needs about 6 GB of memory.
"""

import gc

import pytest
import torch
from factories import LLAMA, tiny_config, tiny_corpus, tone
from transformers import AutoModel, HubertConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, WavLMConfig

from harmonifuse_core.config import CorpusConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.training.loop import Trainer

# microsoft/wavlm-large, facebook/hubert-large-ll60k, facebook/wav2vec2-large-lv60
LARGE = dict(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, conv_bias=True,
    feat_extract_norm="layer", do_stable_layer_norm=True, layerdrop=0.1, feat_proj_dropout=0.1,
)  # fmt: skip
CONFIGS = {
    "wavlm": lambda: WavLMConfig(**{**LARGE, "conv_bias": False}, num_buckets=320, max_bucket_distance=800),
    "hubert": lambda: HubertConfig(**LARGE),
    "wav2vec2": lambda: Wav2Vec2Config(**LARGE),
}
MILLIONS = {"wavlm": (310, 320), "hubert": (310, 320), "wav2vec2": (310, 325)}


@pytest.fixture(params=sorted(CONFIGS))
def model(request, tmp_path):
    CONFIGS[request.param]().save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "encoder")
    asr, ser = tiny_corpus(tmp_path / "corpus", n=4)
    config = tiny_config(
        "prefix", model__encoder__name=str(tmp_path / "encoder"),
        model__lm__architecture={**LLAMA, "hidden_size": 64, "intermediate_size": 128},
        data__train=(CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser")), training__steps=1,
        training__batch_size={"default": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    built = build_model(config.model)
    yield request.param, config, built
    del built
    gc.collect()


@pytest.mark.slow
def test_a_large_encoder_gives_the_states_of_transformers_and_takes_part_in_a_step(model, tmp_path):
    kind, config, ours = model
    low, high = MILLIONS[kind]
    assert low < sum(p.numel() for p in ours.encoder.parameters()) / 1e6 < high
    clip = tone(1.0)
    reference = AutoModel.from_config(ours.encoder.hf_config).eval()
    reference.load_state_dict(ours.encoder.body.state_dict())
    inputs = Wav2Vec2FeatureExtractor(do_normalize=True)(clip, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = reference(inputs.input_values, output_hidden_states=True).hidden_states
        states = ours.eval().encode(*pad_waveforms([clip]))
    assert len(states.states) == len(theirs) == 25 and states.states[0].shape == (1, 49, 1024)
    for mine, expected in zip(states.states, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-3)
    del reference, theirs
    before = ours.gate.logits.detach().clone()
    row = Trainer(config, ours, RunFolder(tmp_path / "run"))._step(0)
    assert set(row["tasks"]) == {"asr", "ser"} and all(len(t["encoder_alpha"]) == 25 for t in row["tasks"].values())
    assert row["gradient_norm"] > 0 and bool((ours.gate.logits != before).all())
    assert not any(p.requires_grad or p.grad is not None for p in ours.encoder.body.parameters())
