"""Features are pooled while the encoder runs, cached by weights and audio, and read once."""

import weakref

import numpy as np
import pytest
import torch
from factories import encoder_folder, tiny_model, tone, write_manifest, write_wav

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.model.encoder import build_encoder
from probes import features as features_module
from probes.features import FeatureCache, extract
from probes.readers import EncoderReader, ModelReader, RandomTwin, SignalReader, digest_of, encoded, pooled
from probes.signal import MEASURES, measure


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(5)
    return build_encoder(EncoderConfig(name=str(encoder_folder("whisper")), weights="random")).eval()


def corpus(folder, count=5, seconds=0.4):
    rows = []
    for i in range(count):
        write_wav(folder / f"{i}.wav", tone(seconds + 0.05 * i, 120 + 20 * i, seed=i))
        rows.append({"audio_filepath": f"{i}.wav", "speaker": f"s{i}", "duration": seconds + 0.05 * i})
    return Selection(str(write_manifest(folder, rows))).sources()


class Counting:
    """A reader that counts what it reads, and stops the process after some batches, as a kill would."""

    max_seconds, digest = 30.0, "counting"

    def __init__(self, most=10**9):
        self.read_clips, self.most = 0, most

    def read(self, waveforms):
        if self.read_clips >= self.most:
            raise KeyboardInterrupt
        self.read_clips += len(waveforms)
        return {"x": np.stack([[[w.mean(), len(w)]] for w in waveforms])}


def test_pooled_is_mean_and_deviation_of_the_valid_frames():
    states = [torch.randn(2, 7, 3) * 2 + 50 for _ in range(2)]
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    found = pooled(states, mask)
    for layer, state in enumerate(states):
        for row, length in enumerate((7, 4)):
            own = state[row, :length]
            expected = torch.cat([own.mean(0), own.std(0, unbiased=False)])
            assert torch.allclose(found[row, layer], expected, atol=1e-4)


def test_a_clip_has_the_same_features_alone_and_in_a_batch(encoder):
    clips = [tone(0.5, 200), tone(0.9, 150)]
    together = EncoderReader(encoder).read(clips)["encoder"]
    for row, clip in enumerate(clips):
        alone = EncoderReader(encoder).read([clip])["encoder"][0]
        assert np.allclose(together[row], alone, atol=1e-4)
    states = encoded(encoder, clips[:1]).states
    assert together.shape == (2, encoder.layers + 1, 2 * encoder.width)
    assert np.allclose(together[0, 1, : encoder.width], states[1][0].mean(0).detach(), atol=1e-4)


def test_the_digest_knows_the_weights_and_random_weights_differ_by_seed(encoder):
    twins = [RandomTwin(seed).of(encoder) for seed in (0, 0, 1)]
    digests = [digest_of(twin) for twin in twins]
    assert digests[0] == digests[1] != digests[2] and digest_of(encoder) not in digests


def test_a_killed_run_goes_on_and_reads_nothing_twice(tmp_path, monkeypatch):
    sources = corpus(tmp_path)
    monkeypatch.setattr(features_module, "BATCH_SIZE", 2)
    monkeypatch.setattr(features_module, "PART_SECONDS", 0.1)  # a part a batch
    killed = Counting(most=2)
    with pytest.raises(KeyboardInterrupt):
        extract(sources, [killed], [FeatureCache(tmp_path / "c", "d")])
    assert killed.read_clips == 2 and len(FeatureCache(tmp_path / "c", "d")) == 2
    again, cache = Counting(), FeatureCache(tmp_path / "c", "d")
    found = extract(sources, [again], [cache])
    assert again.read_clips == 3 and len(found.sources) == 5
    values = cache.layers("x", found.audio)
    assert values.shape == (1, 5, 2)
    assert values[0, :, 1].tolist() == [round((0.4 + 0.05 * i) * 16000) for i in range(5)]
    third = Counting()
    extract(sources, [third], [FeatureCache(tmp_path / "c", "d")])
    assert third.read_clips == 0
    extract(sources, [third], [FeatureCache(tmp_path / "c", "other weights")])
    assert third.read_clips == 5


def test_a_damaged_part_is_read_anew_and_bad_files_are_left_out_with_a_reason(tmp_path):
    sources = corpus(tmp_path, 3)
    extract(sources, [Counting()], [FeatureCache(tmp_path / "c", "d")])
    part = next((tmp_path / "c" / "d.cache").glob("part-*"))
    part.write_bytes(part.read_bytes()[:20])
    (tmp_path / "1.wav").write_text("no audio")
    again = Counting()
    found = extract(sources, [again], [FeatureCache(tmp_path / "c", "d")])
    assert again.read_clips == 2 and [s.utterance.id for s in found.sources] == ["0", "2"]
    assert "1.wav" in found.failed[0].error


def test_memory_is_flat_in_the_number_of_recordings(tmp_path, monkeypatch):
    """How many recordings are held at once does not depend on how many there are."""
    monkeypatch.setattr("harmonifuse_core.inference.sources.FIRST_CLIPS", 4)
    monkeypatch.setattr("harmonifuse_core.inference.sources.GROWTH", 1)
    held = []

    class Watching(Counting):
        clips, most_alive = (), 0

        def read(self, waveforms):
            owners = [w if w.base is None else w.base for w in waveforms]
            self.clips = [clip for clip in (*self.clips, *map(weakref.ref, owners)) if clip() is not None]
            self.most_alive = max(self.most_alive, len(self.clips))
            return super().read(waveforms)

    for count in (8, 32):
        reader = Watching()
        extract(
            corpus(tmp_path / str(count), count, seconds=0.5), [reader], [FeatureCache(tmp_path / f"c{count}", "d")]
        )
        assert reader.read_clips == count
        held.append(reader.most_alive)
    assert held[1] <= 12 and held[1] <= held[0] + 4  # three windows of four at most


def test_the_lm_is_read_without_the_reference_and_alphas_sum_to_one():
    model = tiny_model("whisper")
    found = ModelReader(model).read([tone(0.5), tone(0.8, 150)])
    assert set(found) == {f"{stage}/{task}" for stage in ("lm", "encoder_alpha", "lm_alpha") for task in ("asr", "ser")}
    assert found["lm/ser"].shape == (2, model.lm.layers + 1, 2 * model.lm.width)
    assert np.allclose(found["lm/ser"][..., model.lm.width :], 0)  # one position: no deviation
    for stage in ("encoder_alpha", "lm_alpha"):
        assert np.allclose(found[f"{stage}/asr"].sum(-1), 1, atol=1e-4)


def test_measures_of_a_known_signal():
    names = list(MEASURES)
    found = dict(zip(names, measure(tone(1.0, 200.0)), strict=True))
    assert found["duration"] == pytest.approx(1.0)
    assert found["pitch"] == pytest.approx(12 * np.log2(2), abs=0.3)  # 200 Hz
    louder = dict(zip(names, measure(2 * tone(1.0, 200.0)), strict=True))
    assert louder["energy"] - found["energy"] == pytest.approx(6.02, abs=0.01)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16000).astype(np.float32) * 0.01
    burst = np.where(np.arange(16000) < 10000, tone(1.0, 200.0), 0).astype(np.float32)
    assert (
        dict(zip(names, measure(burst + noise), strict=True))["snr"]
        < dict(zip(names, measure(burst + noise / 10), strict=True))["snr"]
    )
    assert np.isnan(dict(zip(names, measure(noise), strict=True))["pitch"])  # nothing periodic


def test_syllables_are_counted_a_second():
    time = np.arange(2 * 16000) / 16000
    swell = np.clip(np.sin(2 * np.pi * 4 * time), 0.02, 1).astype(np.float32)  # four a second
    rate = measure(tone(2.0, 150.0) * swell)[list(MEASURES).index("rate")]
    assert rate == pytest.approx(4, abs=0.6)


def test_the_signal_reader_gives_logmel_and_measures():
    found = SignalReader().read([tone(0.5), tone(0.7)])
    assert found["logmel"].shape == (2, 1, 160) and found["signal"].shape == (2, 1, len(MEASURES))
    assert np.allclose(found["logmel"][0], SignalReader().read([tone(0.5)])["logmel"][0], atol=1e-3)
