"""Tasks by config alone: numbers divided into classes, units of CTC, and three and four tasks that train together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import tiny_config, tiny_corpus, tiny_model, tone, write_manifest, write_wav

from harmonifuse_core import load, predict
from harmonifuse_core.config import CorpusConfig, load_yaml, save_yaml
from harmonifuse_core.data.examples import load_examples
from harmonifuse_core.inference.evaluation import evaluate
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.heads import BLANK, ctc_greedy, ctc_loss
from harmonifuse_core.routing import RoutingWriter, read_routing
from harmonifuse_core.runs import RunFolder, save_model
from harmonifuse_core.tasks import ALPHABET, ASR, SER, TaskConfig
from harmonifuse_core.training.loop import Trainer

AGE = TaskConfig("age_group", field="age", labels=("child", "young", "old"), edges=(13, 40), prompts=("How old?",))
GENDER = TaskConfig("gender", field="gender", labels=("f", "m"), prompts=("Who speaks?",))
LETTERS = TaskConfig("letters", kind="ctc", field="text", prompts=("Spell the speech.",))
PHONES = TaskConfig(
    "phones", kind="ctc", units="symbols", field="phones", labels=("AH", "B", "K"), prompts=("Sounds?",)
)


def test_numbers_fall_between_edges():
    found = [AGE.class_of(raw) for raw in ("3", "12.9", "13", "39", "40", "99")]
    assert found == ["child", "child", "young", "young", "old", "old"]
    assert GENDER.class_of("f") == "f"
    for raw in ("unknown", "nan", "inf"):
        with pytest.raises(ValueError, match=f"age '{raw}' is not a number"):
            AGE.class_of(raw)


def test_texts_become_units_and_texts_again():
    assert LETTERS.labels == ALPHABET and LETTERS.join_units(LETTERS.split_units("  It's  SO ")) == "it's so"
    assert PHONES.split_units("AH B AH") == ("AH", "B", "AH") and PHONES.join_units(["K", "AH"]) == "K AH"
    assert LETTERS.split_units("a, é", {",": "", "é": "e"}) == ("a", " ", "e")
    with pytest.raises(ValueError, match="',' is no unit of task letters; map it in label_map"):
        LETTERS.split_units("a,")
    assert [(t.measure, t.normalizer) for t in (LETTERS, PHONES)] == [("cer", "basic"), ("wer", "none")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ("a", "b"), "edges": (1, 2)}, "2 edges make 3 classes, labels name 2"),
        ({"labels": ("a", "b", "c"), "edges": (2, 1)}, "do not rise"),
        ({"kind": "ctc", "units": "words"}, "units 'words' are unknown"),
        ({"kind": "ctc", "units": "symbols"}, "labels are empty; name every symbol"),
        ({"kind": "ctc", "labels": ("a", "bc")}, "label 'bc' is no single character; use units: symbols"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TaskConfig("t", prompts=("p",), **fields)


def logits_for(path: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([path]), classes).float() * 8


def test_runs_are_merged_blanks_divide_and_padding_is_not_read():
    logits = logits_for([1, 1, BLANK, 1, 2, BLANK, 2, 2, 3], 4)
    (units,) = ctc_greedy(logits, torch.tensor([8]))
    assert [u for u, _ in units] == [0, 0, 1, 1] and all(-0.1 < p <= 0 for _, p in units)


def test_the_loss_sums_over_alignments_by_hand():
    logits = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits[0], -1)
    by_hand = p[0, 2] * p[1, 2] + p[0, 2] * p[1, BLANK] + p[0, BLANK] * p[1, 2]  # "1" in two frames
    assert ctc_loss(logits, torch.tensor([2]), [[1]]).item() == pytest.approx(-by_hand.log().item(), rel=1e-5)
    assert ctc_loss(logits, torch.tensor([2]), [[0, 1, 0]]).item() == 0  # no alignment


def four_tasks(folder):
    """Pitch tells everything: who speaks (gender, age), what is said, and the emotion of other clips."""
    asr, ser = tiny_corpus(folder, 4)
    rows = [json.loads(line) | {"age": [8, 20, 30, 70][i]} for i, line in enumerate(asr.read_text().splitlines())]
    manifest = write_manifest(folder, rows, "people.jsonl")
    people = [CorpusConfig(str(manifest), task) for task in ("asr", "gender", "age_group", "letters")]
    return people, CorpusConfig(str(ser), "ser"), manifest


def spelt(folder, count: int) -> Path:
    """Manifest of clips in which every letter is a tone: a low, b in the middle, c high; with a pause behind each."""
    rows, rng = [], np.random.default_rng(0)
    for number in range(count):
        word = "".join(rng.choice(list("abc"), 3))
        parts = [np.pad(tone(0.14, {"a": 150, "b": 450, "c": 1350}[x], seed=number), (0, 1120)) for x in word]
        write_wav(folder / f"{number}.wav", np.concatenate(parts))
        split = "test" if number >= count - 6 else "train"
        rows.append({"audio_filepath": f"{number}.wav", "text": word, "duration": 0.63, "split": split})
    return write_manifest(folder, rows, "spelt.jsonl")


def test_a_ctc_task_learns_to_spell_new_words_and_is_scored_and_logged(tmp_path):
    manifest, letters = spelt(tmp_path, 30), TaskConfig("letters", "ctc", ("Spell.",), ("a", "b", "c"), "text")
    corpora = [CorpusConfig(str(manifest), "letters", split=split) for split in ("train", "test")]
    config = tiny_config(
        "whisper", model__tasks=(letters,), data__train=(corpora[0],), data__dev=(corpora[1],), training__steps=140,
        training__batch_size={"default": 8}, training__learning_rate=3e-2, training__eval_every=140,
        training__log_every=20, training__checkpoint_every=999,
    )  # fmt: skip
    torch.manual_seed(0)
    run = RunFolder(tmp_path / "run")
    model = Trainer(config, build_model(config.model), run).run()
    rows = run.metrics()
    assert rows[-1]["dev"]["letters.cer"] < 0.2 and rows[-1]["tasks"]["letters"]["loss"] < 0.3, rows[-1]
    save_model(model, run, config)
    loaded = load(run.path)
    with RoutingWriter(run.part("routing", "x.parquet")) as writer:
        result = evaluate(loaded, Selection(str(manifest), split="test").sources(), writer=writer, resamples=50)
    assert result.scores["letters"].cer < 0.2 and result.scores["letters"].normalizer.startswith("basic")
    frame = read_routing(run.part("routing", "x.parquet"), filters={"task": "letters"})
    assert len(frame) == 12 and set(frame["stage"]) == {"encoder", "lm"} and frame["errors"].notna().all()


def test_a_prompt_and_the_lm_reach_the_letters():
    model = tiny_model("whisper", model__tasks=(LETTERS, SER))
    batch = [tone(1.0)]
    states = model.encode(torch.from_numpy(batch[0])[None], torch.tensor([16_000]))
    fused = model.fuse_encoder(states, "letters")
    logits = []
    for prompt in ("Spell the speech.", "Something else entirely"):
        output = model.lm.teacher_forced(fused.states, states.mask, [model.tokenizer.prompt_ids(prompt)], None)
        logits.append(model.heads["letters"](fused.states, model.fuse_lm(output, "letters").states[:, 0]))
    assert logits[0].shape == (1, 50, len(ALPHABET) + 1) and not torch.allclose(*logits)
    logits[0].sum().backward()
    assert all(bool(p.grad.any()) for p in (model.fusion.task_bias, model.gate.logits))


def test_answers_of_a_batch_and_of_long_audio_are_whole():
    model = tiny_model("prefix", model__tasks=(LETTERS,))
    together = predict(model, [tone(0.6), tone(1.1, 300), np.tile(tone(1.0), 12)])
    alone = predict(model, [tone(0.6)])[0]["letters"]
    assert together[0]["letters"].text == alone.text and together[0]["letters"].tokens == alone.tokens
    for answers in together:
        answer = answers["letters"]
        assert answer.token_weights.alpha.shape[1] == 3 and answer.label is None
        assert len(answer.token_logprobs) == len(answer.tokens) <= max(len(answer.token_weights.alpha), 1)


def test_five_tasks_train_together_and_each_is_scored(tmp_path):
    people, emotions, manifest = four_tasks(tmp_path)
    config = tiny_config(
        "whisper", model__tasks=(ASR, SER, GENDER, AGE, LETTERS), data__train=(*people, emotions),
        training__steps=3, training__batch_size={"default": 2}, training__gradients_every=3,
    )  # fmt: skip
    torch.manual_seed(0)
    run = RunFolder(tmp_path / "run")
    model = Trainer(config, build_model(config.model), run).run()
    row = run.metrics()[-1]
    names = {"asr", "ser", "gender", "age_group", "letters"}
    assert set(row["tasks"]) == names and len(row["gradients"]["cosine"]) == 10
    result = evaluate(model, Selection(str(manifest)).sources(), resamples=20)
    assert set(result.scores) == names - {"ser"} and result.scores["age_group"].utterances == 4


def test_ages_are_classed_and_what_is_no_number_is_named(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.5))
    manifest = write_manifest(tmp_path, [{"audio_filepath": "a.wav", "age": "12"}])
    data = tiny_config().data
    (example,) = load_examples(CorpusConfig(str(manifest), "age_group"), AGE, data, {})
    assert example.label == 0 and example.allowed == (True, False, False)
    manifest = write_manifest(tmp_path, [{"audio_filepath": "a.wav", "age": "teens"}])
    with pytest.raises(ValueError, match="age 'teens' is not a number"):
        load_examples(CorpusConfig(str(manifest), "age_group"), AGE, data, {})
    mapped = CorpusConfig(str(manifest), "age_group", label_map={"teens": "young"})
    assert load_examples(mapped, AGE, data, {})[0].label == 1


def test_choosing_tasks_keeps_their_definition_and_drops_the_others_corpora(tmp_path, caplog):
    people, emotions, _ = four_tasks(tmp_path)
    narrow = TaskConfig("ser", labels=("happy", "sad"), prompts=("Happy or sad?",))
    config = tiny_config(
        "whisper", model__tasks=(ASR, narrow), data__train=(people[0], emotions), data__dev=(people[0],),
        training__batch_size={"asr": 3, "ser": 2, "default": 1}, model__lm__last_logit_tasks=("asr",),
        model__lm__last_logit=1.5,
    )  # fmt: skip
    save_yaml(config, tmp_path / "config.yaml")
    caplog.set_level("INFO")
    one = load_yaml(tmp_path / "config.yaml", ["model.tasks=[ser]"])
    assert one.model.tasks == (narrow,) and [c.task for c in one.data.train] == ["ser"] and not one.data.dev
    assert one.training.batch_size == {"ser": 2, "default": 1} and one.model.lm.last_logit == 0
    assert "people.jsonl of train is left out: task asr is not chosen" in caplog.text
    assert load_yaml(tmp_path / "config.yaml") == config
