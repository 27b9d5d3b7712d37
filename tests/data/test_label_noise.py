"""Label noise: the share that was asked for, symmetric, seeded, nested, and in training labels only."""

from collections import Counter
from dataclasses import replace

import pytest
from factories import tiny_config, tiny_corpus

from harmonifuse_core.config import CorpusConfig, DataConfig, TrainingConfig
from harmonifuse_core.data.batching import InterleavedBatches
from harmonifuse_core.data.examples import Example, with_label_noise
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.tasks import SER

CORPUS = CorpusConfig("m.jsonl", "ser")


def clean(count: int = 4000, classes: int = 5, absent: int = 1) -> list[Example]:
    allowed = (True,) * (classes - absent) + (False,) * absent
    return [
        Example(Utterance(f"u{i}", None), CORPUS, label=i % (classes - absent), allowed=allowed) for i in range(count)
    ]


def changed(a, b) -> set[str]:
    return {x.utterance.id for x, y in zip(a, b, strict=True) if x.label != y.label}


def test_the_share_is_replaced_and_every_other_class_of_the_corpus_is_as_likely():
    rows = clean()
    noisy = with_label_noise(rows, 0.3, seed=0)
    assert len(changed(rows, noisy)) / len(rows) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    became = Counter(y.label for x, y in zip(rows, noisy, strict=True) if x.label == 0 and y.label != 0)
    assert set(became) == {1, 2, 3}, "the class that the corpus lacks is never drawn"
    assert min(became.values()) > 0.7 * max(became.values())


def test_noise_is_of_seed_and_utterance_alone_and_less_is_part_of_more():
    rows = clean()
    little, much = with_label_noise(rows, 0.1, seed=1), with_label_noise(rows, 0.4, seed=1)
    assert changed(rows, little) < changed(rows, much)
    labels = {e.utterance.id: e.label for e in much}
    assert all(labels[e.utterance.id] == e.label for e in little if e.utterance.id in changed(rows, little))
    backwards = with_label_noise(rows[::-1], 0.4, seed=1)[::-1]
    assert backwards == much and with_label_noise(rows, 0.4, seed=2) != much
    assert with_label_noise(rows, 0.0, seed=1) == rows


def test_training_batches_carry_it_and_a_corpus_of_one_class_cannot(tmp_path):
    _, ser = tiny_corpus(tmp_path, n=16)
    corpora = [CorpusConfig(str(ser), "ser", label_noise=share) for share in (0.0, 0.5)]
    settings = TrainingConfig(batch_size={"ser": 16})
    heard = [InterleavedBatches(DataConfig(train=(c,)), settings, (SER,), byte_tokenizer()) for c in corpora]
    labels = [dict(zip(b.ids, b.labels.tolist(), strict=True)) for b in (h.step(0)[0]["ser"] for h in heard)]
    assert labels[0].keys() == labels[1].keys() and 3 <= sum(labels[0][i] != labels[1][i] for i in labels[0]) <= 13
    with pytest.raises(ValueError, match="needs two classes"):
        with_label_noise([replace(e, allowed=(True, False)) for e in clean(4)], 0.1, 0)


def test_it_is_refused_where_it_makes_no_sense(tmp_path):
    with pytest.raises(ValueError, match="label_noise 1.0 is a share"):
        replace(CORPUS, label_noise=1.0)
    noisy = replace(CORPUS, label_noise=0.1)
    with pytest.raises(ValueError, match="label_noise belongs to training labels"):
        tiny_config(data__train=(replace(noisy, task="asr"),))
    with pytest.raises(ValueError, match="label_noise belongs to training labels"):
        tiny_config(data__dev=(noisy,))
