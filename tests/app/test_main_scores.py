"""The main numbers of a run come from the evaluation that a reader expects, by one rule."""

from dataclasses import replace
from pathlib import Path

from app import overview
from app.main_scores import RULE, main_scores
from app.tables import results_table
from harmonifuse_core.config import Config, CorpusConfig
from harmonifuse_core.runs import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SER = {"ua": 0.5, "utterances": 100, "speakers": 4}


def config(**weights: float) -> Config:
    plain = Config()
    corpora = tuple(CorpusConfig(f"../data/{name}.jsonl", "ser", weight=weight) for name, weight in weights.items())
    return replace(plain, data=replace(plain.data, train=corpora))


def order(evaluations: dict, of: Config | None = None, key: str = "ua") -> list[str]:
    found = main_scores(of, evaluations)
    return found[found["key"] == key]["evaluation"].tolist()


def test_the_corpus_that_training_drew_most_from_comes_first_and_size_decides_the_rest():
    found = {
        "a-far": {"ser": SER | {"utterances": 900}, "manifest": "far.jsonl", "split": "test"},
        "b-small": {"ser": SER, "manifest": "home.jsonl", "split": "test"},
        "c-large": {"ser": SER | {"utterances": 120}, "manifest": "home.jsonl", "split": "test"},
        "d-side": {"ser": SER | {"utterances": 500}, "manifest": "side.jsonl", "split": ""},
    }
    assert order(found, config(home=0.7, side=0.3)) == ["c-large", "b-small", "d-side", "a-far"]
    assert order(found, config(home=0.3, side=0.7)) == ["d-side", "c-large", "b-small", "a-far"]
    assert order(found) == ["a-far", "d-side", "c-large", "b-small"]


def test_splits_that_training_saw_come_last_by_name_or_by_record():
    found = {
        "home-dev": {"ser": SER | {"utterances": 900}}, "plain": {"ser": SER | {"utterances": 800}, "split": "train"},
        "devon-test": {"ser": SER},
    }  # fmt: skip
    assert order(found, config(home=1.0)) == ["devon-test", "home-dev", "plain"]


def test_an_older_file_is_told_by_the_longest_corpus_its_name_begins_with():
    found = {"home-two-test": {"ser": SER}, "home-test": {"ser": SER | {"utterances": 500}}}
    assert order(found, config(**{"home": 0.2, "home-two": 0.8})) == ["home-two-test", "home-test"]


def test_each_measure_has_its_first_before_any_has_its_second():
    asr = {"wer": 0.1, "utterances": 50, "speakers": 9}
    found = {"a": {"asr": asr, "ser": SER}, "b": {"asr": asr | {"utterances": 40}, "ser": SER | {"utterances": 40}}}
    rows = main_scores(None, found)
    assert list(zip(rows["key"], rows["evaluation"], strict=True)) == [
        ("wer", "a"), ("ua", "a"), ("wer", "b"), ("ua", "b"),
    ]  # fmt: skip
    assert main_scores(None, {}).empty and set(main_scores(None, {}).columns) == set(results_table({}).columns)


def test_the_committed_run_shows_the_test_sets_of_its_main_corpora():
    run = RunFolder(ROOT / "runs" / "default")
    found = {n.removesuffix(".json"): run.read_json("evaluation", n) for n in run.names("evaluation", ".json")}
    table = overview.table_of([overview.summarise("default", run.config(), "", [], found, True)])
    assert (table["WER on"][0], table["UA on"][0]) == ("speechocean762-test", "ravdess-test")
    assert table["UA"][0] == found["ravdess-test"]["ser"]["ua"]


def test_the_card_names_its_evaluation_and_the_page_its_rule(full_run):
    from dashboard import opened, shown

    said = shown(opened("overview", run="full"))
    assert "UA · test" in said and "WER · test" in said and RULE in said
