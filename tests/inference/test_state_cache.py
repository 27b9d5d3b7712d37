"""States of a frozen encoder from disk: the same answers, the encoder left alone, bounded, never another encoder's."""

import numpy as np
import pytest
import torch
from factories import tiny_config, tiny_corpus, tiny_model, tone

from harmonifuse_core import load, predict
from harmonifuse_core.config import AugmentConfig, CorpusConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.inference.state_cache import attach_state_cache, detach_state_cache, fill
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder, save_model
from harmonifuse_core.training.loop import Trainer

CLIPS = [tone(0.5), tone(0.9, 300), tone(0.7, 150)]


def on_grid(clip: np.ndarray) -> np.ndarray:
    """As training holds clips in memory: whole numbers of 16 bits."""
    return (np.round(clip * 32767) / 32767).astype(np.float32)


def files(folder) -> list:
    return sorted(folder.rglob("*.safetensors"))


def forbid_encoding(monkeypatch, model):
    def refused(*_):
        raise AssertionError("the encoder was asked")

    monkeypatch.setattr(model.encoder, "_encode", refused)


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "hubert-large"])
def test_states_from_disk_are_the_encoders_own_to_half_precision(tmp_path, monkeypatch, encoder):
    model = tiny_model("prefix", encoder)
    batch = pad_waveforms([on_grid(c) for c in CLIPS])
    cache = attach_state_cache(model, tmp_path)
    first = model.encode(*batch)
    assert (cache.computed, cache.read, len(files(tmp_path))) == (3, 0, 3)
    with torch.no_grad():
        own = model.encoder.compute(*batch)
    assert torch.equal(own.mask, first.mask)
    for mine, kept in zip(own.states, first.states, strict=True):
        torch.testing.assert_close(mine[own.mask], kept[own.mask], atol=2e-3, rtol=2e-3)
        assert not kept[~own.mask].any()
    forbid_encoding(monkeypatch, model)
    again = model.encode(*batch)
    assert all(torch.equal(a, b) for a, b in zip(first.states, again.states, strict=True)) and cache.read == 3


def test_neighbours_in_a_batch_do_not_change_what_is_kept(tmp_path):
    model = tiny_model("prefix", "wavlm")
    attach_state_cache(model, tmp_path / "alone")
    fill(model, CLIPS[:1])
    attach_state_cache(model, tmp_path / "together")
    model.encode(*pad_waveforms(CLIPS))
    (alone,) = files(tmp_path / "alone")
    assert alone.read_bytes() == (tmp_path / "together" / alone.relative_to(tmp_path / "alone")).read_bytes()


def test_a_model_answers_as_without_and_a_saved_run_finds_the_states(tmp_path, monkeypatch):
    config = tiny_config("whisper")
    model = tiny_model("whisper")
    attach_state_cache(model, tmp_path / "cache")
    cached = predict(model, CLIPS)
    detach_state_cache(model)
    for mine, own in zip(cached, predict(model, CLIPS), strict=True):
        assert mine["asr"].text == own["asr"].text
        assert list(mine["ser"].probabilities.values()) == pytest.approx(
            list(own["ser"].probabilities.values()), abs=0.01
        )
    save_model(model, RunFolder(tmp_path / "run"), config)
    loaded = load(tmp_path / "run")
    attach_state_cache(loaded, tmp_path / "cache")
    forbid_encoding(monkeypatch, loaded)
    predict(loaded, CLIPS)


def test_other_weights_or_another_tail_never_share_states(tmp_path):
    variants = [tiny_model("prefix"), tiny_model("prefix", seed=1)]
    variants.append(tiny_model("prefix", model__encoder__tail_seconds=0.3))
    variants.append(tiny_model("prefix", model__encoder__silence_frames=4))
    for number, model in enumerate(variants, 1):
        cache = attach_state_cache(model, tmp_path)
        fill(model, CLIPS[:1])
        assert cache.computed == 1 and len(list(tmp_path.iterdir())) == number
    assert attach_state_cache(tiny_model("prefix"), tmp_path).store.folder.name in [p.name for p in tmp_path.iterdir()]


def test_the_folder_stays_below_its_limit_and_goes_on_without_room(tmp_path, caplog):
    model = tiny_model("prefix")
    size = 3 * 50 * 16 * 2  # L1 x frames x width x float16 of one second
    cache = attach_state_cache(model, tmp_path, gigabytes=2.5 * size / 1e9)
    clips = [tone(1.0, 100 + 10 * i) for i in range(4)]
    states = model.encode(*pad_waveforms(clips))
    assert len(files(tmp_path)) == 2 and "is full" in caplog.text and caplog.text.count("is full") == 1
    again = model.encode(*pad_waveforms(clips))
    assert (cache.computed, cache.read) == (6, 2)
    assert all(torch.equal(a, b) for a, b in zip(states.states, again.states, strict=True))


def test_a_damaged_file_is_made_again(tmp_path):
    model = tiny_model("prefix")
    cache = attach_state_cache(model, tmp_path)
    fill(model, CLIPS[:1])
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    fill(model, CLIPS[:1])
    assert cache.computed == 2 and file.read_bytes() == whole


def test_time_masks_blank_the_same_frames_of_every_layer_in_training_only(tmp_path):
    model = tiny_model("prefix")
    attach_state_cache(model, tmp_path)
    batch, augment = pad_waveforms(CLIPS), AugmentConfig(time_masks=2, time_mask_frames=20)
    plain = model.encode(*batch, augment)
    torch.manual_seed(3)
    masked = model.train().encode(*batch, augment)
    blank = [(state == 0).all(-1) & plain.mask for state in masked.states]
    assert not (plain.states[0] == 0).all(-1)[plain.mask].any()
    assert bool(blank[0].any()) and all(torch.equal(blank[0], other) for other in blank)


def test_an_encoder_that_learns_and_sound_that_changes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a frozen encoder, but encoder.finetune is 'top-1'"):
        attach_state_cache(tiny_model("prefix", model__encoder__finetune="top-1"), tmp_path)
    with pytest.raises(ValueError, match="state_cache needs model.encoder.finetune: frozen, not 'all'"):
        tiny_config("prefix", data__state_cache="x", model__encoder__finetune="all")
    with pytest.raises(ValueError, match="augment.gain_db changes the sound.* empty data.state_cache"):
        tiny_config("prefix", data__state_cache="x", data__augment={"gain_db": 3})
    tiny_config("prefix", data__state_cache="x", data__augment={"time_masks": 1, "speed": [1.0]})


def test_training_reads_states_and_learns_the_same(tmp_path, monkeypatch):
    asr, ser = tiny_corpus(tmp_path / "corpus")
    corpora = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser"))
    rows = {}
    for name, folder in (("plain", ""), ("first", str(tmp_path / "cache")), ("second", str(tmp_path / "cache"))):
        config = tiny_config("whisper", data__train=corpora, data__state_cache=folder, training__steps=3)
        torch.manual_seed(0)
        trainer = Trainer(config, build_model(config.model), RunFolder(tmp_path / name))
        if name == "second":
            forbid_encoding(monkeypatch, trainer.model)
        rows[name] = [trainer._step(step) for step in range(3)]
    losses = {n: [row["tasks"][t]["loss"] for row in r for t in ("asr", "ser")] for n, r in rows.items()}
    assert losses["first"] == losses["second"]
    assert losses["first"] == pytest.approx(losses["plain"], rel=0.01)
