"""What a step sees: a pure function of (seed, step), every utterance once an epoch, weights, limits, labels."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import tiny_corpus, tiny_model, write_manifest, write_wav

from harmonifuse_core.config import AugmentConfig, CorpusConfig, DataConfig, TrainingConfig
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.batching import (
    AudioCache,
    InterleavedBatches,
    TaskSchedule,
    collate,
    mix,
    pad_waveforms,
    seconds_of,
)
from harmonifuse_core.data.examples import Example, load_examples, styled
from harmonifuse_core.data.manifest import Utterance, read_manifest
from harmonifuse_core.model.heads import classification_loss
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.randomness import generator
from harmonifuse_core.tasks import ASR, SER, TaskConfig

DATA = DataConfig()


def corpus(manifest, task="asr", **fields) -> CorpusConfig:
    return CorpusConfig(manifest=str(manifest), task=task, **fields)


def examples(count: int, name: str = "a", weight: float = 1.0, seconds=None) -> list[Example]:
    """Examples without files."""
    owner = corpus(name, weight=weight)
    length = seconds or (lambda i: 1.0 + i % 7)
    return [Example(Utterance(f"{name}-{i}", None, length(i)), owner, text="x") for i in range(count)]


@pytest.fixture
def batches(tmp_path):
    asr, ser = tiny_corpus(tmp_path, n=8)
    data = replace(DATA, train=(corpus(asr), corpus(ser, "ser")), augment=AugmentConfig(speed=(0.9, 1.1), gain_db=6))

    def make(**training):
        settings = TrainingConfig(**{"batch_size": {"asr": 3, "ser": 2}, **training})
        return InterleavedBatches(data, settings, (ASR, SER), byte_tokenizer())

    return make


def same(a, b) -> bool:
    return all(
        torch.equal(a[t].waveforms, b[t].waveforms) and a[t].prompts == b[t].prompts and a[t].ids == b[t].ids for t in a
    )


def test_a_step_depends_on_seed_and_number_alone(batches):
    one, other = batches(), batches()
    for step in (5, 0, 9):  # asked in any order, by two processes
        assert same(one.step(step)[0], other.step(step)[0])
    again = one.step(5)[0]
    assert same(again, other.step(5)[0])
    assert not same(again, one.step(6)[0])
    assert not same(again, batches(seed=1).step(5)[0])


def test_both_tasks_are_in_every_step_with_their_own_targets(batches):
    step, chosen = batches().step(0)
    assert set(step) == {"asr", "ser"} and len(step["asr"].ids) == 3 and len(step["ser"].ids) == 2
    asr, ser = step["asr"], step["ser"]
    assert asr.labels is None and ser.token_ids is None
    assert [byte_tokenizer().decode(ids) for ids in asr.token_ids] == [e.text for e in chosen["asr"]]
    assert ser.labels.tolist() == [e.label for e in chosen["ser"]] and bool(ser.allowed.all())
    assert list(ser.ids) == [e.utterance.id for e in chosen["ser"]]
    assert set(asr.prompts) <= set(ASR.prompts) and set(ser.prompts) <= set(SER.prompts)
    assert seconds_of(asr) == pytest.approx(int(asr.lengths.sum()) / 16_000)


def test_every_prompt_paraphrase_is_drawn_in_training_and_the_first_one_otherwise(batches):
    source = batches()
    drawn = {prompt for step in range(30) for prompt in source.step(step)[0]["asr"].prompts}
    assert drawn == set(ASR.prompts)
    calm = collate(source.step(0)[1]["asr"], ASR, byte_tokenizer(), source.audio.get)
    assert set(calm.prompts) == {ASR.default_prompt}


def test_each_pass_sees_each_utterance_once():
    rows = examples(50)
    schedule = TaskSchedule([rows], batch_size=5, max_seconds=1e9, seed=0, task="asr")
    seen = [e.utterance.id for step in range(240) for e in schedule.batch(step)]  # 10 blocks of 24 passes together
    counts = Counter(seen)
    assert len(seen) == 1200 and set(counts) == {e.utterance.id for e in rows}
    assert set(counts.values()) == {24}
    block = [e.utterance.id for step in range(24) for e in schedule.batch(step)]
    assert max(Counter(block).values()) - min(Counter(block).values()) <= 1  # 120 draws of 50: twice or three times


def test_corpora_are_drawn_by_weight_not_by_size():
    schedule = TaskSchedule([examples(400, "big", 1.0), examples(10, "small", 3.0)], 8, 1e9, seed=0, task="asr")
    drawn = Counter(e.corpus.manifest for step in range(48) for e in schedule.batch(step))
    assert drawn["small"] / sum(drawn.values()) == pytest.approx(0.75, abs=0.01)


def test_a_corpus_of_tiny_weight_is_still_heard():
    schedule = TaskSchedule([examples(50, "a", 1.0), examples(5, "b", 1e-6)], 4, 1e9, seed=0, task="asr")
    assert any(e.corpus.manifest == "b" for step in range(25) for e in schedule.batch(step))


def test_a_batch_never_lasts_longer_than_its_limit_padding_included():
    rows = examples(60, seconds=lambda i: 0.5 + 9 * (i % 10) / 10)
    schedule = TaskSchedule([rows], batch_size=16, max_seconds=20.0, seed=0, task="asr")
    sizes = []
    for step in range(100):
        lengths = [e.utterance.duration for e in schedule.batch(step)]
        assert max(lengths) * len(lengths) <= 20.0
        sizes.append(len(lengths))
    assert max(sizes) == 16 and min(sizes) < 4
    alone = TaskSchedule([examples(3, seconds=lambda i: 30.0)], 16, 20.0, seed=0, task="asr")
    assert [len(alone.batch(step)) for step in range(5)] == [1] * 5


def test_a_batch_holds_clips_of_like_length_and_batches_come_in_mixed_order():
    rows = examples(480, seconds=lambda i: 1.0 + 19 * (i / 480))
    schedule = TaskSchedule([rows], 8, 1e9, seed=0, task="asr")
    batches = [[e.utterance.duration for e in schedule.batch(step)] for step in range(24)]
    waste = np.mean([1 - sum(b) / (max(b) * len(b)) for b in batches])
    assert waste < 0.2
    means = [np.mean(b) for b in batches]
    assert abs(np.corrcoef(means, range(24))[0, 1]) < 0.6


def test_generators_depend_on_their_keys():
    assert generator(1, "a").integers(1 << 40) == generator(1, "a").integers(1 << 40)
    assert len({int(generator(*keys).integers(1 << 40)) for keys in ((1, "a"), (2, "a"), (1, "b"), (1, "a", 0))}) == 4


def test_examples_are_chosen_by_split_speaker_id_and_length(tmp_path):
    asr, _ = tiny_corpus(tmp_path)

    def ids(data=DATA, **fields):
        return [e.utterance.id.removeprefix("asr-") for e in load_examples(corpus(asr, **fields), ASR, data, {})]

    assert ids() == list("01234567")
    assert ids(split="train") == list("012456")
    assert ids(speakers=("speaker-1",)) == list("15")
    assert ids(exclude_speakers=("speaker-1", "speaker-2")) == list("0347")
    assert ids(ids="[67]$") == list("67")
    assert ids(replace(DATA, min_seconds=0.6, max_seconds=0.9)) == ["1", "2", "3", "6", "7"]
    with pytest.raises(ValueError, match=r"asr\.jsonl \(split train\): no utterance has a 'text' for task asr"):
        ids(split="train", speakers=("nobody",))


def test_labels_are_mapped_dropped_or_refused(tmp_path):
    labels = ["anger", "happy", "boredom", "sad", ""]
    rows = [{"id": str(i), "audio_filepath": "a.wav", "emotion": label} for i, label in enumerate(labels)]
    path = write_manifest(tmp_path, rows)
    with pytest.raises(ValueError, match=r"label 'anger' is none of the classes of task ser.*map it in label_map"):
        load_examples(corpus(path, "ser"), SER, DATA, {})
    found = load_examples(corpus(path, "ser", label_map={"anger": "angry", "boredom": ""}), SER, DATA, {})
    assert [(e.utterance.id, SER.labels[e.label]) for e in found] == [("0", "angry"), ("1", "happy"), ("3", "sad")]
    known = {label for label, allowed in zip(SER.labels, found[0].allowed, strict=True) if allowed}
    assert known == {"angry", "happy", "sad"}


def test_any_manifest_field_can_be_a_task(tmp_path):
    rows = [{"id": str(i), "audio_filepath": "a.wav", "age": 30 + i} for i in range(2)]
    task = TaskConfig("decade", prompts=("How old?",), labels=("30", "31"), field="age")
    found = load_examples(corpus(write_manifest(tmp_path, rows), "decade"), task, DATA, {})
    assert [e.label for e in found] == [0, 1]


def test_a_class_that_a_corpus_lacks_gets_exactly_no_gradient():
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    allowed = torch.tensor([[True, False, True, True], [True, True, True, True]])
    for smoothing in (0.0, 0.1):
        loss = classification_loss(logits, torch.tensor([2, 1]), allowed, smoothing)
        assert bool(torch.isfinite(loss).all())
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert float(gradient[0, 1]) == 0.0
        assert bool((gradient[allowed] != 0).all()) and bool(torch.isfinite(gradient).all())


def test_classification_loss_by_hand():
    """Two allowed classes with equal logits: ln 2, smoothed or not, however far ahead a foreign third one is."""
    logits, allowed = torch.tensor([[1.0, 1.0, 50.0]]), torch.tensor([[True, True, False]])
    for smoothing in (0.0, 0.3):
        loss = classification_loss(logits, torch.tensor([0]), allowed, smoothing)
        assert float(loss) == pytest.approx(np.log(2), abs=1e-6)
    sure = classification_loss(torch.tensor([[np.log(3.0), 0.0]]), torch.tensor([0]), torch.ones(1, 2).bool(), 0.2)
    assert float(sure) == pytest.approx(-0.8 * np.log(0.75) - 0.2 * (np.log(0.75) + np.log(0.25)) / 2, abs=1e-6)


def test_transcripts_of_a_teacher_replace_the_text_and_skip_what_it_did_not_hear(tmp_path):
    asr, _ = tiny_corpus(tmp_path)
    taught = replace(corpus(asr), teacher=True, text_style="sentence")
    found = load_examples(taught, ASR, DATA, {"asr-1": "heard so.", "asr-2": ""})
    assert [(e.utterance.id, e.text) for e in found] == [("asr-1", "heard so.")]


def test_text_styles():
    assert styled("  i said  i'm here ", "sentence") == "I said I'm here."
    assert styled("what is it?", "sentence") == "What is it?"
    assert styled("i  am", "asis") == "i am" and styled("", "sentence") == ""


def test_time_warp_is_kept_from_utterances_with_a_teacher(tmp_path):
    asr, _ = tiny_corpus(tmp_path)
    settings, lengths = AugmentConfig(speed=(0.9,), gain_db=6), {}
    for teacher in (False, True):
        rows = load_examples(corpus(asr), ASR, DATA, {})
        rows = [replace(e, corpus=replace(e.corpus, teacher=teacher)) for e in rows]
        rngs = [generator(i) for i in range(len(rows))]
        batch = collate(rows, ASR, byte_tokenizer(), lambda u: decode_waveform(u.audio), rngs, settings)
        lengths[teacher] = batch.lengths
    plain = torch.tensor([round(u.duration * 16_000) for u in read_manifest(asr)])
    assert torch.equal(lengths[True], plain)
    assert torch.allclose(lengths[False] / plain, torch.tensor(1 / 0.9), atol=1e-3)


def test_a_corpus_own_augmentation_replaces_that_of_all(tmp_path):
    asr, _ = tiny_corpus(tmp_path)
    for changes, factor in (({}, 0.9), ({"speed": [1.1]}, 1.1), ({"speed": []}, 1.0)):
        rows = load_examples(corpus(asr, augment=changes), ASR, DATA, {})
        rngs = [generator(i) for i in range(len(rows))]
        settings = AugmentConfig(speed=(0.9,))
        batch = collate(rows, ASR, byte_tokenizer(), lambda u: decode_waveform(u.audio), rngs, settings)
        plain = torch.tensor([round(u.duration * 16_000) for u in read_manifest(asr)])
        assert torch.allclose(batch.lengths / plain, torch.tensor(1 / factor), atol=1e-3)


def test_babble_is_the_batchs_own_speech_and_the_same_in_one_process_and_in_two(tmp_path):
    asr, _ = tiny_corpus(tmp_path, n=8)
    loud = {"babble_probability": 1.0, "babble_snr_db": [0, 0]}
    settings = TrainingConfig(batch_size={"asr": 4})

    def source(changes):
        data = replace(DATA, train=(corpus(asr, augment=changes),))
        return InterleavedBatches(data, settings, (ASR,), byte_tokenizer())

    whole, clean = source(loud).step(0)[0]["asr"], source({}).step(0)[0]["asr"]
    assert whole.ids == clean.ids and torch.equal(whole.lengths, clean.lengths)
    for row, own, length in zip(whole.waveforms, clean.waveforms, whole.lengths, strict=True):
        assert (row - own)[:length].std() > 0.3 * own[:length].std()
    for part in (0, 1):
        half = source(loud).step(0, part, 2)[0]["asr"]
        assert list(half.ids) == list(whole.ids[part::2])
        assert torch.equal(half.waveforms, whole.rows(range(part, 4, 2)).waveforms)


def test_waveforms_are_padded_with_silence_behind():
    waveforms, lengths = pad_waveforms([np.ones(3, np.float32), np.full(5, 2, np.float32)[::2]])
    assert waveforms.tolist() == [[1, 1, 1], [2, 2, 2]] and lengths.tolist() == [3, 3]
    waveforms, lengths = pad_waveforms([np.ones(1, np.float32), np.ones(4, np.float32)])
    assert waveforms.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]] and lengths.tolist() == [1, 4]


def test_decoded_audio_stays_in_memory_up_to_a_limit(tmp_path, monkeypatch):
    clips = [write_wav(tmp_path / f"{i}.wav", np.linspace(-0.9, 0.9, 300_000, dtype=np.float32)) for i in range(3)]
    calls = Counter()

    def counted(path):
        calls[path] += 1
        return decode_waveform(path)

    monkeypatch.setattr("harmonifuse_core.data.batching.decode_waveform", counted)
    cache = AudioCache(megabytes=1)  # 600 kB each as int16: one fits
    for _ in range(3):
        for path in clips:
            heard = cache.get(Utterance(path.stem, path))
    np.testing.assert_allclose(heard, np.linspace(-0.9, 0.9, 300_000), atol=1e-4)
    assert [calls[path] for path in clips] == [1, 3, 3] and heard.dtype == np.float32


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(ValueError, match=r"data\.train names no corpus"):
        InterleavedBatches(DATA, TrainingConfig(), (ASR, SER), byte_tokenizer())


def test_two_splits_of_one_manifest_are_counted_apart(tmp_path):
    asr, _ = tiny_corpus(tmp_path)
    data = replace(DATA, train=(corpus(asr, split="train"), corpus(asr, split="test")))
    source = InterleavedBatches(data, TrainingConfig(), (ASR,), byte_tokenizer())
    assert source.counts == {"asr": {f"{asr} train": 6, f"{asr} test": 2}}


def test_mixing_stays_within_a_corpus_and_the_share_is_that_of_the_first():
    one, other = examples(3, "a"), examples(2, "b")
    clips = [np.full(4, float(i), np.float32) for i in range(5)]
    rngs = [generator(1, i) for i in range(5)]
    results, partners, shares = mix(clips, [*one, *other], rngs, 1.0)
    assert all((i < 3) == (p < 3) for i, p in enumerate(partners)) and any(i != p for i, p in enumerate(partners))
    for i, (clip, partner, share) in enumerate(zip(results, partners, shares, strict=True)):
        np.testing.assert_allclose(clip, share * i + (1 - share) * partner, rtol=1e-6)
        assert share == 1.0 if partner == i else 0 < share < 1
    assert mix(clips, [*one, *other], rngs, 0.0)[1:] == ([0, 1, 2, 3, 4], [1.0] * 5)


def test_a_mixed_utterance_is_classified_in_the_shares_of_its_labels(tmp_path):
    asr, ser = tiny_corpus(tmp_path, n=8)
    model = tiny_model("whisper").eval()
    rows = load_examples(corpus(ser, "ser"), model.config.task("ser"), DATA, {})[:2]
    batch = collate(rows, model.config.task("ser"), model.tokenizer, AudioCache(10).get)
    with torch.inference_mode():
        plain = [
            model({"ser": replace(batch, labels=torch.tensor([label] * 2))})["ser"].loss for label in (0, 1)
        ]  # mean over both clips
        fields = dict(labels=torch.tensor([0, 0]), mixed_labels=torch.tensor([1, 1]), shares=torch.tensor([0.3, 0.3]))
        found = model({"ser": replace(batch, **fields)})["ser"].loss
    torch.testing.assert_close(found, 0.3 * plain[0] + 0.7 * plain[1])
