"""The closed-form reading of layers: planted classes are found, scores pass exactly, and the words stay the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import tiny_corpus, tiny_model, tiny_run, tone, write_manifest, write_wav

from harmonifuse_core.card import write_card
from harmonifuse_core.discriminant import main
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.runs import RunFolder, load
from harmonifuse_core.training.discriminant import discriminant, unseen_recalls, write_reading
from harmonifuse_core.training.draws import Draws

TOKEN = {"model__lm__speech_token": True}
NAMES = "abcd"


def planted(classes: int, per_class: int = 40, features: int = 30):
    """Classes that differ in two features, under a nuisance as large that all features share."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    values = rng.standard_normal((len(labels), features)) + 3 * rng.standard_normal((len(labels), 1))
    values[:, 0] += 3 * labels
    return values, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_planted_classes_are_found_under_a_nuisance(classes):
    values, labels = planted(classes)
    weights, offsets = discriminant(values, labels, NAMES[:classes], 0.3)
    scores = values @ weights.T + offsets
    assert weights.shape == (classes, 30) and np.mean(scores.argmax(1) == labels) > 0.8
    np.testing.assert_allclose(scores.sum(1), 0, atol=1e-9)
    assert np.std(scores) == pytest.approx(1)


def test_a_rare_class_is_as_likely_before_as_the_others():
    values, labels = planted(2, 200)
    rare = np.flatnonzero((labels == 0) | (np.arange(len(labels)) % 10 == 0))
    weights, offsets = discriminant(values[rare], labels[rare], NAMES[:2], 0.3)
    found = (values @ weights.T + offsets).argmax(1)
    assert min(np.mean(found[labels == c] == c) for c in (0, 1)) > 0.8


def test_a_class_without_utterances_is_refused():
    with pytest.raises(ValueError, match="'c' has 0 utterances"):
        discriminant(np.zeros((4, 2)), np.array([0, 0, 1, 1]), NAMES[:3], 0.3)


def test_speakers_left_out_show_what_was_learned_by_heart():
    """Class 1 of each speaker has a sign of its own: the fit knows its own speakers, and guesses on the others."""
    rng = np.random.default_rng(0)
    labels, speakers = np.tile([0, 1], 200), np.repeat(np.arange(20), 20)
    values = 0.3 * rng.standard_normal((400, 60))
    values[np.arange(400), speakers] += np.where(labels == 0, 3, -3)
    shared = values.copy()
    shared[:, 50] += np.where(labels == 0, 3, -3)
    names, corpora = [str(s) for s in speakers], ["one" if s < 10 else "two" for s in speakers]
    weights, offsets = discriminant(values, labels, NAMES[:2], 0.1)
    assert np.mean((values @ weights.T + offsets).argmax(1) == labels) > 0.95
    alone, general = (unseen_recalls(v, labels, NAMES[:2], 0.1, names, corpora, 5) for v in (values, shared))
    assert set(alone) == {"one", "two"} and alone["one"].utterances == 200
    assert all(report.ua < 0.65 for report in alone.values())
    assert all(report.ua > 0.95 for report in general.values())
    assert alone["one"].ua_ci[0] <= alone["one"].ua <= alone["one"].ua_ci[1]


def test_many_speakers_of_one_corpus_leave_no_fold_without_another():
    """Only a speaker's neighbour in the small corpus tells what it says: a fold that lost both could but guess. With 97
    other speakers around, each of the 8 is still left out alone."""
    labels = np.tile([0, 1], 105 * 4)
    speakers = np.repeat(np.arange(105), 8)
    values = 0.3 * np.random.default_rng(0).standard_normal((len(labels), 60))
    small = speakers < 8
    values[small, speakers[small] // 2] += np.where(labels[small] == 0, 3, -3)
    corpora = np.where(small, "small", "large")
    report = unseen_recalls(values, labels, NAMES[:2], 0.1, [str(n) for n in speakers], corpora, 8)["small"]
    assert report.speakers == 8 and report.ua > 0.95


@pytest.mark.parametrize("folds", [1, 3])
def test_folds_need_speakers(folds):
    values, labels = planted(2)
    with pytest.raises(ValueError, match=f"{folds} folds of 2 speakers"):
        unseen_recalls(values, labels, NAMES[:2], 0.3, ["a", "b"] * 40, ["c"] * 80, folds)


@torch.no_grad()
def test_scores_pass_the_hidden_layer_exactly_along_directions_of_their_own():
    model = tiny_model("whisper", **TOKEN, model__lm__speech_token_layers=16)
    rng = np.random.default_rng(0)
    weights, offsets = rng.standard_normal((8, 3 * 32)) / 10, rng.standard_normal(8)
    write_reading(model, weights, offsets, strength=2.0, seed=1)
    weighed = torch.randn(5, 3, 32)
    directions = model.summary.output.weight[:, :8]
    scores = weighed.flatten(1) @ torch.from_numpy(weights).float().T + torch.from_numpy(offsets).float()
    torch.testing.assert_close(model.summary(weighed), scores @ directions.T, atol=1e-4, rtol=1e-4)
    gram = directions.T @ directions
    word = float(model.lm.body.embed_tokens.weight.norm(dim=-1).mean())
    torch.testing.assert_close(gram, torch.eye(8) * (2 * word) ** 2 / 8, atol=1e-5, rtol=1e-4)


def corpus_run(folder, rounds=1, **changes):
    """A run whose eight emotions are told by pitch; each round of them has a speaker of its own."""
    _, ser = tiny_corpus(folder, n=8 * rounds)
    rows = [json.loads(line) for line in ser.read_text().splitlines()]
    write_manifest(folder, [row | {"speaker": f"s{i // 8}"} for i, row in enumerate(rows)], ser.name)
    train = [{"manifest": str(ser), "task": "ser"}]
    taught = {"manifest": "texts.jsonl", "task": "asr", "teacher": True}  # neither opened nor in the way
    settings = (
        TOKEN
        | {
            "data__dev": [taught],
            "data__teacher": "teacher",
            "data__train": train,
            "data__augment": {"gain_db": 3.0, "mixup_probability": 0.5, "time_masks": 1, "time_mask_frames": 4},
        }
        | changes
    )
    return tiny_run(folder, "plain", "whisper", seed=2, **settings)


def test_the_command_names_the_planted_emotions_and_leaves_the_words(tmp_path):
    run, output = corpus_run(tmp_path), tmp_path / "fitted"
    command = ["--run", str(run.path), "--output", str(output), "--samples", "64", "--strength", "4"]
    assert main(command) == 0
    before, after = load(run), load(output)
    clips = [tone(0.5 + 0.5 * (i % 5) / 4, 180 * 1.15**i, seed=i) for i in range(8)]
    answers = predict(after, clips)
    assert [a["asr"].text for a in answers] == [a["asr"].text for a in predict(before, clips)]
    labels = after.config.task("ser").labels
    hits = sum(a["ser"].label == labels[i] for i, a in enumerate(answers))
    assert hits >= 6, [a["ser"].label for a in answers]
    made = json.loads(RunFolder(output).environment_file.read_text())
    assert made["discriminant_of"] == str(run.path) and made["samples"] >= 64 and made["head_agrees"] > 0.7
    kept = before.state_dict()
    changed = {n for n, t in after.state_dict().items() if n in kept and not torch.equal(t, kept[n])}
    assert "unseen_speakers" not in made and made["made_from"]["run"] == run.name
    assert changed <= {"heads.ser.output.weight", "heads.ser.output.bias"}
    again = tmp_path / "again"
    assert main([*command[:3], str(again), *command[4:]]) == 0
    fresh = load(again).state_dict()
    assert all(torch.equal(t, fresh[n]) for n, t in after.state_dict().items())


def hiss(seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(12_000)).astype(np.float32)


def test_sound_of_another_kind_gets_the_class_that_is_assumed_for_it(tmp_path, capsys):
    """Tones have emotions by pitch; hiss has none in its manifest, and is assumed to be calm."""
    run = corpus_run(tmp_path)
    rows = [{"id": f"h{i}", "audio_filepath": f"h{i}.wav", "duration": 0.75, "speaker": f"h{i % 3}"} for i in range(9)]
    for i, row in enumerate(rows):
        write_wav(tmp_path / row["audio_filepath"], hiss(i))
    manifest, more = write_manifest(tmp_path, rows, "hiss.jsonl"), tmp_path / "more.yaml"
    more.write_text(f"train: [{{manifest: {manifest}, task: ser, assumed_label: calm, weight: 0.2}}]\n")
    command = ["--run", str(run.path), "--samples", "96", "--strength", "4", "--output"]
    assert main([*command, str(tmp_path / "plain-fit")]) == 0
    assert main([*command, str(tmp_path / "added"), "--add", str(more), "--weights", "hiss=0.1"]) == 0
    unheard, tones = [hiss(100 + i) for i in range(6)], [tone(0.75, 180 * 1.15**i, seed=i) for i in range(8)]
    labels = {n: [a["ser"].label for a in predict(load(tmp_path / n), unheard)] for n in ("plain-fit", "added")}
    assert labels["added"] == ["calm"] * 6 and labels["plain-fit"].count("calm") < 3, labels
    model = load(tmp_path / "added")
    named = [a["ser"].label for a in predict(model, tones)]
    assert sum(n == label for n, label in zip(named, model.config.task("ser").labels, strict=True)) >= 6, named
    added = RunFolder(tmp_path / "added")
    assert added.config().data == run.config().data, "training never heard them"
    card = write_card(added)
    assert "| hiss | ser | all, assumed calm | only in the closed-form fit |" in card
    assert "hiss" not in write_card(RunFolder(tmp_path / "plain-fit"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("training: {}", "under `train` is expected, and found is training"),
        ("train: [{manifest: m.jsonl, task: asr}]", "m.jsonl is for task 'asr', not 'ser'"),
    ],
)
def test_corpora_that_the_fit_cannot_use_are_refused(tmp_path, capsys, text, reason):
    run, more, output = corpus_run(tmp_path), tmp_path / "more.yaml", tmp_path / "none"
    more.write_text(text)
    assert main(["--run", str(run.path), "--output", str(output), "--add", str(more)]) == 1 and not output.exists()
    assert reason in capsys.readouterr().err


def test_folds_are_scored_by_corpus_and_kept(tmp_path, capsys):
    run, output = corpus_run(tmp_path, rounds=3), tmp_path / "fitted"
    command = ["--run", str(run.path), "--output", str(output), "--samples", "96", "--folds"]
    assert main([*command, "4"]) == 1 and not output.exists()
    assert "4 folds of 3 speakers" in capsys.readouterr().err
    assert main([*command, "3"]) == 0
    made = json.loads(RunFolder(output).environment_file.read_text())
    (scores,) = made["unseen_speakers"].values()
    assert set(made["unseen_speakers"]) == {"ser"} and made["folds"] == 3
    assert scores["speakers"] == 3 and scores["utterances"] == made["samples"]
    assert scores["ua"] > 0.5 and scores["ua_ci"][0] <= scores["ua"]  # 0.125 is chance
    assert f"ser: UA {scores['ua']:.1%}" in capsys.readouterr().out


def test_weights_replace_those_of_the_corpora(tmp_path):
    """Two corpora of the same clips, the second three times as often as the first."""
    run = corpus_run(tmp_path)
    config = run.config()
    one = config.data.train[0]
    Path(one.manifest).with_name("again.jsonl").write_text(
        "".join(
            json.dumps(row | {"id": row["id"] + "b"}) + "\n"
            for row in map(json.loads, Path(one.manifest).read_text().splitlines())
        )
    )
    other = replace(one, manifest=str(Path(one.manifest).with_name("again.jsonl")))
    config = replace(config, data=replace(config.data, train=(one, other)))
    tokenizer = load(run).tokenizer
    for weights, share in (({}, 0.5), ({"again": 3.0}, 0.75)):
        draws = Draws(config, "ser", tokenizer, weights)
        ids = [name for batch in draws.take(192, "") for name in batch.ids]
        assert np.mean([name.endswith("b") for name in ids]) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("text", ["ser", "ser=x", "ser=0", "ser=-1", "ser=nan"])
def test_weights_are_positive_numbers(text, capsys):
    with pytest.raises(SystemExit):
        main(["--run", "r", "--output", "o", "--weights", text])
    assert "--weights" in capsys.readouterr().err


def test_what_the_reading_says_follows_alpha(tmp_path):
    run, output = corpus_run(tmp_path), tmp_path / "fitted"
    assert main(["--run", str(run.path), "--output", str(output), "--samples", "40"]) == 0
    model, clip = load(output), [tone(0.7, 240.0)]
    full = predict(model, clip, PredictOptions(("ser",)))[0]["ser"].probabilities
    alone = PredictOptions(("ser",), encoder_alpha={"ser": torch.tensor([1.0, 0.0, 0.0])})
    assert predict(model, clip, alone)[0]["ser"].probabilities != pytest.approx(full, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--task", "asr"], "a discriminant needs classes"),
        ({}, ["--task", "age"], "task 'age' is unknown"),
        ({}, ["--shrinkage", "1.5"], "--shrinkage goes from 0 to 1"),
        ({}, ["--samples", "3"], "the discriminant needs two of each"),
        ({"model__lm__speech_token": False}, [], "has no speech token"),
        ({"data__train": []}, [], "no corpus"),
        ({}, ["--weights", "nemo=1"], "--weights nemo: task 'ser' learns from ser"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_is_written(tmp_path, capsys, changes, arguments, message):
    run, output = corpus_run(tmp_path, **changes), tmp_path / "fitted"
    assert main(["--run", str(run.path), "--output", str(output), *arguments]) == 1
    assert message in capsys.readouterr().err and not output.exists()
    assert main(["--run", str(run.path), "--output", str(run.path)]) == 1
    assert "exists; name a new folder" in capsys.readouterr().err
