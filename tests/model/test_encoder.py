"""Every encoder against transformers alone; padding, freezing, top-K, limits."""

import json

import numpy as np
import pytest
import torch
from factories import LAYERS, encoder_folder, encoder_hf_config, tiny_config, tiny_model, tone
from transformers import AutoFeatureExtractor, AutoModel, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from harmonifuse_core import load
from harmonifuse_core.config import AugmentConfig, EncoderConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.encoder import build_encoder
from harmonifuse_core.model.frontend import LogMel, mask_spans, normalise_waveforms
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.speech_encoder import SpeechEncoder
from harmonifuse_core.runs import RunFolder, save_model

WAVEFORM = ["wavlm", "wavlm-large", "hubert", "hubert-large", "wav2vec2", "wav2vec2-large"]
CLIPS = [tone(0.8, 200), tone(0.31, 320, seed=1), tone(1.13, 140, seed=2)]


def checkpoint(folder, encoder: str, normalise: bool = True, **fields):
    """A tiny pre-trained checkpoint as the hub holds it."""
    torch.manual_seed(3)
    model = AutoModel.from_config(encoder_hf_config(encoder, **fields)).eval()
    model.save_pretrained(folder)
    if encoder == "whisper":
        WhisperFeatureExtractor().save_pretrained(folder)
    else:
        Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True).save_pretrained(folder)
    return model


def fresh(encoder: str, **fields) -> SpeechEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(**{"name": str(encoder_folder(encoder)), "weights": "random", **fields})
    return build_encoder(config).eval()


@torch.no_grad()
def encode(encoder: SpeechEncoder, clips):
    return encoder(*pad_waveforms(clips))


@pytest.mark.parametrize("encoder", WAVEFORM)
@pytest.mark.parametrize("normalise", [True, False])
def test_states_equal_those_of_transformers(tmp_path, encoder, normalise):
    model = checkpoint(tmp_path, encoder, normalise)
    ours = build_encoder(EncoderConfig(name=str(tmp_path))).eval()
    assert ours.normalise == normalise and ours.layers == LAYERS
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    # a group norm reads the padding too, so transformers gets those clips one by one
    batches = [CLIPS] if encoder.endswith("large") else [[clip] for clip in CLIPS]
    for clips in batches:
        inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt", padding=True)
        with torch.no_grad():
            theirs = model(**inputs, output_hidden_states=True)
        states = encode(ours, clips)
        assert len(states.states) == len(theirs.hidden_states) == LAYERS + 1
        for mine, reference in zip(states.states, theirs.hidden_states, strict=True):
            torch.testing.assert_close(mine[states.mask], reference[states.mask], atol=2e-5, rtol=1e-4)
        if encoder.endswith("large"):  # state L is taken before the final norm of the stable variants
            last = model.encoder.layer_norm(states.states[-1])
            torch.testing.assert_close(last[states.mask], theirs.last_hidden_state[states.mask], atol=2e-5, rtol=1e-4)
        assert (states.states[1] - states.states[2]).abs().max() > 0.1


def test_whisper_states_equal_those_of_transformers_at_30_seconds(tmp_path):
    model = checkpoint(tmp_path, "whisper")
    ours = build_encoder(EncoderConfig(name=str(tmp_path), tail_seconds=2.0)).eval()
    clip = np.tile(tone(1.0), 28)
    mel = WhisperFeatureExtractor.from_pretrained(tmp_path)(clip, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = model.encoder(mel.input_features, output_hidden_states=True)
    states = encode(ours, [clip])
    assert states.states[0].shape == (1, 1500, 16) and bool(states.mask.all())
    for mine, reference in zip(states.states[:-1], theirs.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3)
    last = model.encoder.layer_norm(states.states[-1])
    torch.testing.assert_close(last, theirs.last_hidden_state, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("encoder", ["whisper", *WAVEFORM])
@pytest.mark.parametrize("tail", [0.0, 0.3])
def test_padding_never_changes_a_valid_frame(encoder, tail):
    model = fresh(encoder, tail_seconds=tail)
    together = encode(model, CLIPS)
    assert not bool(together.mask.all())
    for row, clip in enumerate(CLIPS):
        alone, frames = encode(model, [clip]), int(together.frames[row])
        assert int(alone.frames) == frames and bool(alone.mask.all())
        for a, b in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(a[0], b[row, :frames], atol=1e-5, rtol=1e-4)


def test_whisper_encodes_speech_at_its_own_length_and_the_tail_behind_it():
    clip = tone(1.0)
    assert int(encode(fresh("whisper"), [clip]).frames) == 50
    assert int(encode(fresh("whisper", tail_seconds=0.5), [clip]).frames) == 75
    with_tail = encode(fresh("whisper", tail_seconds=0.5), [clip])
    with_silence = encode(fresh("whisper"), [np.pad(clip, (0, 8000))])
    for a, b in zip(with_tail.states, with_silence.states, strict=True):
        torch.testing.assert_close(a, b)


def test_waveform_encoders_take_no_tail():
    assert int(encode(fresh("wavlm", tail_seconds=0.5), [tone(1.0)]).frames) == 50


def test_too_long_and_too_short_clips_are_refused_with_their_length():
    with pytest.raises(ValueError, match=r"31\.0 s is longer than 29\.5 s: segment it"):
        encode(fresh("whisper", tail_seconds=0.5), [np.zeros(31 * 16_000, np.float32)])
    with pytest.raises(ValueError, match="100 samples is shorter than one frame"):
        encode(fresh("wavlm"), [CLIPS[0], CLIPS[0][:100]])


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "hubert-large", "wav2vec2"])
def test_frozen_stays_frozen_in_training(encoder):
    dropping = {} if encoder == "whisper" else {"layerdrop": 0.9, "hidden_dropout": 0.5, "feat_proj_dropout": 0.5}
    model = fresh(encoder, name=str(encoder_folder(encoder, **dropping)))
    before = encode(model, CLIPS)
    model.train()
    assert model.training and not any(module.training for module in model.body.modules())
    assert not any(p.requires_grad for p in model.body.parameters())
    states = model(*pad_waveforms(CLIPS))
    assert len(states.states) == LAYERS + 1 and not any(s.requires_grad for s in states.states)
    assert all(torch.equal(a, b) for a, b in zip(before.states, states.states, strict=True))


@pytest.mark.parametrize("encoder", WAVEFORM)
def test_layer_drop_never_shortens_the_states_of_an_encoder_that_learns(encoder):
    model = fresh(encoder, name=str(encoder_folder(encoder, layerdrop=0.9)), finetune="all").train()
    for _ in range(5):
        assert len(model(*pad_waveforms(CLIPS)).states) == LAYERS + 1


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "hubert", "wav2vec2-large"])
@pytest.mark.parametrize("top", [1, 2])
def test_top_k_trains_exactly_the_last_k_blocks(encoder, top):
    model = fresh(encoder, finetune=f"top-{top}").train()
    sum(s.square().sum() for s in model(*pad_waveforms(CLIPS)).states).backward()
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    blocks = "layers" if encoder == "whisper" else "encoder.layers"
    last = tuple(f"body.{blocks}.{k}." for k in range(LAYERS - top, LAYERS))
    assert learns == {name for name, _ in model.named_parameters() if name.startswith(last)}
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved <= learns and all(any(name.startswith(block) for name in moved) for block in last)


def test_more_blocks_than_there_are_cannot_be_trained():
    with pytest.raises(ValueError, match="'top-3'.*has 2 blocks; use all"):
        fresh("wavlm", finetune="top-3")


def test_everything_learns_with_finetune_all():
    model = fresh("whisper", finetune="all").train()
    model(*pad_waveforms(CLIPS)).states[-1].square().sum().backward()
    still = {n for n, p in model.named_parameters() if p.grad is None}
    assert still == {"body.embed_positions.weight", "body.layer_norm.weight", "body.layer_norm.bias"}


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "hubert-large"])
def test_gradient_checkpointing_changes_memory_and_nothing_else(encoder):
    gradients = []
    for checkpointing in (False, True):
        model = fresh(encoder, finetune="all", gradient_checkpointing=checkpointing)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()
        for name in ("attention_dropout", "activation_dropout", "dropout"):
            for module in model.modules():
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        states = model(*pad_waveforms(CLIPS))
        sum(s[states.mask].square().sum() for s in states.states).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("encoder", "normalise"), [("hubert", True), ("wavlm-large", False)])
def test_input_normalisation_travels_with_a_saved_run(tmp_path, encoder, normalise):
    folder = tmp_path / "checkpoint"
    checkpoint(folder, encoder, normalise)
    config = tiny_config(encoder=encoder, model__encoder__name=str(folder), model__encoder__weights="pretrained")
    run = RunFolder(tmp_path / "run")
    save_model(build_model(config.model), run, config)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert load(run.path).encoder.normalise == normalise


def test_without_a_feature_extractor_large_models_want_normalised_input():
    assert fresh("wavlm-large").normalise and not fresh("wavlm").normalise


def test_normalised_waveforms_have_zero_mean_and_unit_variance_over_their_own_samples():
    waveforms, lengths = pad_waveforms([CLIPS[0] + 0.3, 5 * CLIPS[1]])
    out = normalise_waveforms(waveforms, lengths)
    for row, length in zip(out, lengths, strict=True):
        own = row[:length]
        assert abs(float(own.mean())) < 1e-5 and float(own.std()) == pytest.approx(1, abs=1e-3)
        assert not row[length:].any()


@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_equals_whispers_on_30_seconds(bins):
    clip = np.tile(tone(1.0), 29)
    expected = WhisperFeatureExtractor(feature_size=bins)(clip, sampling_rate=16_000, return_tensors="pt")
    mel, frames = LogMel(bins)(*pad_waveforms([clip]), tail=16_000)
    assert frames.tolist() == [1500]
    torch.testing.assert_close(mel, expected.input_features, atol=1e-4, rtol=1e-4)


def test_log_mel_is_zero_behind_each_clip():
    mel, frames = LogMel()(*pad_waveforms(CLIPS), tail=1600)
    assert frames.tolist() == [-(-(len(c) + 1600) // 320) for c in CLIPS]
    for row, count in zip(mel, frames, strict=True):
        assert bool(row[:, : 2 * count].any()) and not row[:, 2 * count :].any()


def test_spec_augment_masks_spans_within_the_speech_in_training_only():
    torch.manual_seed(0)
    features, frames = torch.ones(200, 4, 60), torch.full((200,), 40)
    masked = mask_spans(features, frames, 2, count=2, width=30)
    hidden = (masked == 0).all(1)  # (B, T)
    assert not hidden[:, 40:].any() and bool(hidden[:, :40].any())
    assert int(hidden.sum(1).max()) <= 2 * 8  # a span covers at most a fifth of the 40 frames
    assert torch.equal(mask_spans(features, frames, 2, count=0, width=30), features)
    bands = mask_spans(features, frames, 1, count=1, width=2)
    assert int((bands == 0).all(2).sum(1).max()) <= 2
    heavy = AugmentConfig(time_masks=2, frequency_masks=2)
    for name in ("whisper", "wavlm"):
        model, batch = fresh(name, finetune="all"), pad_waveforms(CLIPS)
        calm, still = model(*batch), model(*batch, heavy)
        assert torch.equal(calm.states[0], still.states[0])
        for module in model.train().modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        assert not torch.equal(model(*batch).states[0], model(*batch, heavy).states[0])


def test_encoders_that_cannot_be_built_say_why(tmp_path):
    with pytest.raises(ValueError, match=r"encoder\.name 'nowhere/at-all' is neither a local folder"):
        build_encoder(EncoderConfig(name="nowhere/at-all"))
    with pytest.raises(ValueError, match="overrides names 'depth'"):
        fresh("wavlm", overrides={"depth": 3})
    assert fresh("wavlm", overrides={"num_hidden_layers": 3}).layers == 3
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a bert model; supported: wavlm, hubert, wav2vec2, whisper"):
        build_encoder(EncoderConfig(name=str(tmp_path)))


def test_the_assembled_model_shares_one_encoder_between_tasks():
    model = tiny_model(encoder="wavlm")
    states = encode(model.encoder, CLIPS)
    fused = {task: model.fuse_encoder(states, task).states for task in ("asr", "ser")}
    assert fused["asr"].shape == fused["ser"].shape == states.states[0].shape
    assert not torch.allclose(fused["asr"], fused["ser"])
