"""Which tasks a step holds: exact ratios, moving ones, and the same draws whoever asks and whenever."""

from collections import Counter

import pytest
from factories import tiny_config, tiny_corpus

from harmonifuse_core.config import CorpusConfig, InterleavingConfig
from harmonifuse_core.data.batching import InterleavedBatches
from harmonifuse_core.data.interleaving import Interleaving, apportion
from harmonifuse_core.model.tokenizer import byte_tokenizer

SIZES, CORPORA = {"asr": 12, "ser": 8}, {"asr": 900, "ser": 100}


def interleaving(steps: int = 101, **fields) -> Interleaving:
    return Interleaving(InterleavingConfig(**fields), SIZES, CORPORA, steps)


def test_by_default_every_step_holds_the_batch_sizes():
    assert all(interleaving().plan(step) == SIZES for step in (0, 50, 1000))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ratio": "fixed", "shares": {"asr": 1, "ser": 4}}, {"asr": 4, "ser": 16}),
        ({"ratio": "fixed", "shares": {"asr": 4.0, "ser": 1}}, {"asr": 16, "ser": 4}),
        ({"ratio": "proportional"}, {"asr": 18, "ser": 2}),
        ({"ratio": "temperature", "temperature": 2.0}, {"asr": 15, "ser": 5}),  # 30 : 10
        ({"ratio": "temperature", "temperature": 1e6}, {"asr": 10, "ser": 10}),
    ],
)
def test_ratios_divide_the_sum_of_the_batch_sizes(fields, expected):
    assert interleaving(**fields).plan(7) == expected
    turns = interleaving(mode="alternating", **fields)
    names = [next(iter(turns.plan(step))) for step in range(200)]
    for count in range(1, 201):  # at every step within one turn of the share
        drawn = Counter(names[:count])
        assert all(abs(drawn[n] - count * expected[n] / 20) <= 1 for n in SIZES)
    assert all(turns.plan(step) == {names[step]: SIZES[names[step]]} for step in range(20))


def test_ratios_move_evenly_from_start_to_end():
    moving = interleaving(ratio="fixed", shares={"asr": 1, "ser": 3}, end_shares={"asr": 3, "ser": 1})
    assert [moving.shares(step)["asr"] for step in (0, 50, 100, 500)] == pytest.approx([0.25, 0.5, 0.75, 0.75])
    assert [moving.plan(step)["asr"] for step in (0, 50, 100)] == [5, 10, 15]
    warmer = interleaving(ratio="temperature", temperature=1.0, end_temperature=2.0)
    assert [warmer.shares(step)["asr"] for step in (0, 100)] == pytest.approx([0.9, 0.75])


def test_equal_turns_where_sizes_rule_alternating():
    turns = interleaving(mode="alternating")
    assert [next(iter(turns.plan(step))) for step in range(6)] == ["asr", "ser"] * 3


def test_parts_are_whole_fill_the_total_and_leave_nobody_out():
    assert apportion({"a": 0.5, "b": 0.3, "c": 0.2}, 10) == {"a": 5, "b": 3, "c": 2}
    assert apportion({"a": 0.998, "b": 0.001, "c": 0.001}, 10) == {"a": 8, "b": 1, "c": 1}
    assert apportion({"a": 0.9, "b": 0.1}, 1) == {"a": 1, "b": 1}
    for total in range(3, 40):
        parts = apportion({"a": 0.55, "b": 0.34, "c": 0.11}, total)
        assert sum(parts.values()) == total and min(parts.values()) >= 1


def batches(folder, **fields) -> InterleavedBatches:
    asr, ser = tiny_corpus(folder, 8)
    corpora = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser"))
    config = tiny_config(data__train=corpora, training__interleaving=fields, training__steps=20)
    return InterleavedBatches(config.data, config.training, config.model.tasks, byte_tokenizer())


def drawn(source: InterleavedBatches, step: int) -> dict:
    return {task: [e.utterance.id for e in rows] for task, rows in source.examples(step).items()}


def test_what_a_step_holds_does_not_depend_on_what_was_asked_before(tmp_path):
    fields = {"ratio": "fixed", "shares": {"asr": 3, "ser": 1}, "end_shares": {"asr": 1, "ser": 3}}
    for mode in ("within", "alternating"):
        forwards, late = (batches(tmp_path, mode=mode, **fields) for _ in range(2))
        seen = [drawn(forwards, step) for step in range(20)]
        assert [drawn(late, step) for step in (17, 3, 19)] == [seen[17], seen[3], seen[19]]
        assert all(len(s) == (2 if mode == "within" else 1) for s in seen)


def test_turns_go_through_a_corpus_without_leaving_an_utterance_out(tmp_path):
    source = batches(tmp_path, mode="alternating")
    ids = Counter(i for step in range(48) for i in drawn(source, step).get("asr", ()))
    assert len(ids) == 8 and set(ids.values()) == {12}  # 24 turns of four: a whole block, twelve passes over eight


def test_parts_of_a_step_are_the_step(tmp_path):
    source = batches(tmp_path)
    whole, examples = source.step(3)
    for parts in (2, 3, 5):
        found = [source.step(3, part, parts) for part in range(parts)]
        for task, batch in whole.items():
            rows = sorted((i for _, e in found for i in (x.utterance.id for x in e.get(task, ()))))
            assert rows == sorted(batch.ids) == sorted(e.utterance.id for e in examples[task])
            for number, (mine, _) in enumerate(found):
                if task in mine:
                    expected = batch.rows(range(number, len(batch), parts))
                    assert mine[task].waveforms.equal(expected.waveforms) and mine[task].prompts == expected.prompts
        assert parts < 5 or "asr" not in found[-1][0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "mixed"}, "interleaving.mode is 'mixed'; choose one of within, alternating"),
        ({"ratio": "fixed"}, "shares and ratio: fixed belong together"),
        ({"ratio": "fixed", "shares": {"asr": 0, "ser": 1}}, "shares.asr is 0; give a number above 0"),
        ({"ratio": "fixed", "shares": {"asr": 1}, "end_shares": {"ser": 1}}, "end_shares must name the tasks"),
        ({"ratio": "temperature", "temperature": 0.5}, "temperature is below 1"),
    ],
)
def test_impossible_ratios_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InterleavingConfig(**fields)


def test_shares_name_the_tasks_that_have_corpora(tmp_path):
    with pytest.raises(ValueError, match="shares and the corpora differ in 'ser'"):
        batches(tmp_path, ratio="fixed", shares={"asr": 1})
