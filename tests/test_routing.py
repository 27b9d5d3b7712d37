"""Routing: what a record holds, that files appear whole, and statistics on weights whose answer is known by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import tiny_model, tone

from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import predict
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.routing import (
    SCHEMA,
    Reference,
    RoutingError,
    RoutingRecord,
    RoutingWriter,
    entropy_bits,
    jensen_shannon,
    read_routing,
    records_of,
    routing_statistics,
    shard_path,
    task_divergence,
    utterance_statistics,
)


def record(utterance="a", task="asr", stage="encoder", alpha=(0.5, 0.25, 0.25), **fields) -> RoutingRecord:
    zeros = (0.0,) * len(alpha)
    return RoutingRecord(
        utterance=utterance, task=task, stage=stage, prompt="p", alpha=alpha, bias=zeros, score=zeros, share=alpha,
        prediction="x", **fields,
    )  # fmt: skip


def frame(*rows: RoutingRecord) -> pd.DataFrame:
    return pd.DataFrame([vars(row) for row in rows])


def one_hot(layer: int, layers: int = 3) -> tuple[float, ...]:
    return tuple(float(i == layer) for i in range(layers))


# --- records ---


@pytest.fixture(scope="module")
def answers():
    return predict(tiny_model("whisper"), [tone(1.0)])[0]


@pytest.fixture
def utterance(tmp_path) -> Utterance:
    labels = {"gender": "f", "age": "23", "emotion": "anger", "intensity": "strong"}
    return Utterance("u1", tmp_path / "a.wav", 1.0, "hello there", "s1", "tones", "test", labels)


def test_one_record_a_task_and_stage_with_the_answers_own_weights(answers, utterance):
    counts = word_errors("hello there", answers["asr"].text)
    references = {"asr": Reference("hello there", counts), "ser": Reference("angry", label="anger")}
    records = records_of(utterance, answers, references, audio="wavs/a.wav", seconds=1.5)
    assert [(r.task, r.stage) for r in records] == [
        ("asr", "encoder"),
        ("asr", "lm"),
        ("ser", "encoder"),
        ("ser", "lm"),
    ]
    for r in records:
        weights = getattr(answers[r.task], r.stage)
        np.testing.assert_array_equal(np.float32(r.alpha), weights.alpha)
        np.testing.assert_array_equal(np.float32(r.share), weights.share)
        assert sum(r.alpha) == pytest.approx(1, abs=1e-5)
        assert (r.speaker, r.gender, r.age, r.dataset, r.split) == ("s1", "f", "23", "tones", "test")
        assert (r.intensity, r.language, r.duration, r.audio) == ("strong", None, 1.5, "wavs/a.wav")
    text, emotion = records[0], records[2]
    assert (text.errors, text.reference_words, text.error) == (counts.word_errors, 2, counts.word_errors / 2)
    assert (text.label, emotion.label, emotion.reference) == (None, "anger", "angry")
    assert emotion.error == float(answers["ser"].label != "angry")
    assert emotion.probability == answers["ser"].probabilities[emotion.prediction]
    assert emotion.errors is None and emotion.reference_words is None


def test_encoder_alpha_is_the_softmax_of_bias_and_score(answers, utterance):
    for r in records_of(utterance, answers):
        if r.stage == "encoder" or r.task == "ser":  # the LM's of a text are means over its tokens
            logits = np.add(r.bias, r.score)
            np.testing.assert_allclose(r.alpha, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_without_a_reference_there_is_no_error_and_no_count(answers, utterance):
    for r in records_of(utterance, answers, {"ser": Reference(label="bored")}):
        assert (r.reference, r.error, r.errors, r.reference_words) == (None, None, None, None)
        assert r.label == ("bored" if r.task == "ser" else None)


def test_an_empty_reference_divides_by_one(answers, utterance):
    answer = replace(answers["asr"], text="two words")
    rows = records_of(utterance, {"asr": answer}, {"asr": Reference("", word_errors("", "two words"))})
    assert (rows[0].error, rows[0].reference_words) == (2.0, 0)


def test_an_absolute_path_never_reaches_the_log(answers, utterance):
    assert {r.audio for r in records_of(utterance, answers, audio="/home/someone/a.wav")} == {"a.wav"}


# --- files ---


def test_what_is_written_is_read_and_rows_leave_memory_in_groups(tmp_path):
    rows = [record(f"u{i}", error=None if i % 2 else 0.5, errors=None if i % 2 else i) for i in range(10)]
    with RoutingWriter(tmp_path / "new" / "r.parquet", rows_in_memory=4) as writer:
        for row in rows:
            writer.write([row])
            assert len(writer.rows) < 4
    file = pq.ParquetFile(tmp_path / "new" / "r.parquet")
    assert file.metadata.num_row_groups == 3 and file.schema_arrow.equals(SCHEMA)
    read = read_routing(tmp_path / "new" / "r.parquet")
    assert read["utterance"].tolist() == [row.utterance for row in rows]
    np.testing.assert_array_equal(read["alpha"][3], np.float32([0.5, 0.25, 0.25]))
    assert read["errors"].isna().tolist() == [bool(i % 2) for i in range(10)]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.parquet"]


def test_the_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.parquet"
    with RoutingWriter(path) as writer:
        writer.write([record("old")])
        assert not path.exists()
    with pytest.raises(RuntimeError), RoutingWriter(path, rows_in_memory=1) as writer:
        writer.write([record("new")])
        raise RuntimeError
    assert read_routing(path)["utterance"].tolist() == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["r.parquet"]


def test_discard_after_close_keeps_the_file(tmp_path):
    writer = RoutingWriter(tmp_path / "r.parquet")
    writer.write([record()])
    writer.close()
    writer.discard()
    assert len(read_routing(tmp_path / "r.parquet")) == 1


def test_shards_are_read_as_one_and_half_written_ones_are_not(tmp_path):
    for index in (1, 0, 2):
        with RoutingWriter(shard_path(tmp_path, index)) as writer:
            writer.write([record(f"u{index}")] if index < 2 else [])
    (tmp_path / ".part-00003.parquet.77.part").write_bytes(b"half")
    assert shard_path(tmp_path, 2).name == "part-00002.parquet"
    assert read_routing(tmp_path)["utterance"].tolist() == ["u0", "u1"]


def test_filters_and_columns(tmp_path):
    with RoutingWriter(tmp_path / "r.parquet") as writer:
        for task in ("asr", "ser", "sid"):
            writer.write([record(task=task, stage=stage) for stage in ("encoder", "lm")])
    read = read_routing(tmp_path / "r.parquet", ["task", "alpha"], {"stage": "lm", "task": ["asr", "sid"]})
    assert read["task"].tolist() == ["asr", "sid"] and list(read.columns) == ["task", "alpha"]
    with pytest.raises(RoutingError, match="no column 'nosuch'"):
        read_routing(tmp_path / "r.parquet", filters={"nosuch": 1})


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(RoutingError, match="none.parquet is missing.*--save"):
        read_routing(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(RoutingError, match="bad.parquet is damaged"):
        read_routing(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(RoutingError, match="no routing file: it has no column 'alpha'"):
        read_routing(tmp_path / "other.parquet")
    with pytest.raises(RoutingError, match="'r.csv'"):
        RoutingWriter(tmp_path / "r.csv")


# --- statistics ---


def test_entropy_and_divergence_by_hand():
    assert entropy_bits(np.full(4, 0.25)) == pytest.approx(2)
    assert entropy_bits(np.array([1.0, 0.0])) == 0
    a, b = np.array([[1.0, 0, 0], [0.5, 0.5, 0]]), np.array([[0, 0, 1.0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(jensen_shannon(a, b), [1, 0], atol=1e-12)
    half = jensen_shannon(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert half == pytest.approx(1.5 - 0.75 * np.log2(3))  # H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.3113
    assert half == jensen_shannon(np.array([0.5, 0.5]), np.array([1.0, 0.0]))


def test_statistics_of_two_utterances_by_hand():
    rows = frame(record("a", alpha=one_hot(0)), record("b", alpha=one_hot(2)))
    (stage,) = routing_statistics(rows).stages
    assert (stage.task, stage.stage, stage.utterances) == ("asr", "encoder", 2)
    assert stage.mean == (0.5, 0, 0.5) and stage.std == (0.5, 0, 0.5)
    assert (stage.entropy, stage.centre, stage.centre_std) == (0, 1, 1)
    assert stage.spread == pytest.approx(1)  # which of two layers tells which of two utterances: one bit
    same = frame(record("a"), record("b"))
    assert routing_statistics(same).stages[0].spread == pytest.approx(0, abs=1e-12)


def test_centre_of_mass_counts_layers_from_zero():
    values = utterance_statistics(frame(record("a", alpha=(0.0, 0.5, 0.5)), record("b", alpha=one_hot(0))))
    assert values["centre"].tolist() == [1.5, 0.0] and values["entropy"].tolist() == [1.0, 0.0]


def test_tasks_are_compared_on_the_same_utterances_only():
    rows = frame(
        record("a", "asr", alpha=one_hot(0)), record("a", "ser", alpha=one_hot(1)),
        record("b", "asr", alpha=one_hot(0)), record("b", "ser", alpha=one_hot(0)),
        record("c", "asr", alpha=one_hot(2)),
    )  # fmt: skip
    (divergence,) = routing_statistics(rows).divergences
    assert (divergence.stage, divergence.tasks, divergence.utterances) == ("encoder", ("asr", "ser"), 2)
    assert (divergence.mean, divergence.std) == (0.5, 0.5)
    assert task_divergence(rows[rows["task"] == "asr"]).empty


def test_share_can_take_the_place_of_alpha():
    row = replace(record(alpha=one_hot(0)), share=one_hot(2))
    assert routing_statistics(frame(row), "share").stages[0].centre == 2


def test_statistics_read_from_a_file_are_those_of_memory(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        record(f"u{i}", task, stage, tuple(rng.dirichlet(np.ones(n)).tolist()))
        for i in range(6)
        for task in ("asr", "ser")
        for stage, n in (("encoder", 5), ("lm", 3))
    ]
    with RoutingWriter(tmp_path / "r.parquet") as writer:
        writer.write(rows)
    stored, kept = (routing_statistics(table).stages for table in (read_routing(tmp_path / "r.parquet"), frame(*rows)))
    for a, b in zip(stored, kept, strict=True):
        assert (a.task, a.stage, a.utterances) == (b.task, b.stage, 6)
        np.testing.assert_allclose([*a.mean, a.entropy, a.spread], [*b.mean, b.entropy, b.spread], atol=1e-6)


def test_rows_of_different_depth_and_no_rows_are_refused():
    with pytest.raises(RoutingError, match=r"\[2, 3\] layers"):
        routing_statistics(frame(record("a"), record("b", alpha=(0.5, 0.5))))
    with pytest.raises(RoutingError, match="0 rows"):
        routing_statistics(frame(record())[:0])
