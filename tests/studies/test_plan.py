"""Study files: what a cell's config is, what its key depends on, and what is refused."""

from pathlib import Path

import pytest
import yaml
from planted_study import planted_study

from harmonifuse_core.fields import assign, to_dict
from harmonifuse_core.studies.plan import Study, System, load_study, study_text

SHIPPED = sorted(p for p in Path("harmonifuse_core/configs/studies").glob("*.yaml") if p.stem != "base")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return planted_study(tmp_path_factory.mktemp("study"))


def changed(path: Path, folder: Path, **fields) -> Path:
    values = yaml.safe_load(path.read_text()) | fields
    new = folder / "changed.yaml"
    new.write_text(yaml.safe_dump(values, sort_keys=False))
    return new


def test_cells_come_seed_by_seed_with_their_own_config(path):
    study = load_study(path)
    cells = study.cells()
    assert [c.name for c in cells[:3]] == ["learns.seed-0", "idle.seed-0", "learns.seed-1"] and len(cells) == 6
    assert [c.config.training.seed for c in cells] == [0, 0, 1, 1, 2, 2]
    assert [c.config.training.learning_rate for c in cells[:2]] == [1.2e-2, 0.0]
    assert len({c.key for c in cells}) == 6


def test_a_key_is_of_what_changes_numbers(path, tmp_path):
    keys = [c.key for c in load_study(path).cells()]
    words = changed(path, tmp_path, title="Other words", question="?", claims=[])
    assert [c.key for c in load_study(words).cells()] == keys
    base = yaml.safe_load(path.read_text())["base"]
    stated = changed(
        path, tmp_path, base=base | {"description": "x", "data": base["data"] | {"state_cache_gigabytes": 3.0}}
    )
    assert [c.key for c in load_study(stated).cells()] == keys
    kept = [changed(path, tmp_path, set={"data.state_cache": folder}) for folder in ("a", "b")]
    assert [c.key for c in load_study(kept[0]).cells()] != keys
    for fields in ({"set": {"training.steps": 7}}, {"evaluations": [evaluation(path, per_speaker=1)]}):
        others = [c.key for c in load_study(changed(path, tmp_path, **fields)).cells()]
        assert not set(others) & set(keys), fields


def evaluation(path: Path, **fields) -> dict:
    return yaml.safe_load(path.read_text())["evaluations"][0] | fields


def test_a_study_folder_keeps_a_file_that_needs_no_other(path, tmp_path):
    whole = tmp_path / "whole.yaml"
    whole.write_text(study_text(load_study(path)))
    assert load_study(whole) == load_study(path)


def test_the_base_may_be_a_file_beside_the_study(path, tmp_path):
    values = yaml.safe_load(path.read_text())
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values["base"]))
    beside = changed(path, tmp_path, base="base.yaml")
    assert load_study(beside) == load_study(path)


def test_a_system_of_some_tasks_leaves_the_others_corpora_and_sizes_out(path):
    study = load_study(SHIPPED[0].parent / "e2.yaml")
    alone = study.config(study.system("oracle-ser"))
    assert [t.name for t in alone.model.tasks] == ["ser"] and {c.task for c in alone.data.train} == {"ser"}
    values = to_dict(study.base) | {}
    values["model"]["gate"] = {"last_logit": 1.5, "last_logit_tasks": ["asr"]}
    values["training"]["batch_size"] = {"asr": 3, "ser": 4}
    changed = Study(
        "x", values, (System("a", tasks=("ser",)),), tuple(e for e in study.evaluations if "ser" in e.tasks)
    )
    config = changed.config(changed.systems[0])
    assert config.training.batch_size == {"ser": 4} and config.model.gate.last_logit == 0.0


def test_an_evaluation_takes_the_first_utterances_of_each_speaker(path):
    study = load_study(path)
    every, some = study.evaluations[0].sources(), load_study_with(path, per_speaker=2).evaluations[0].sources()
    assert len(every) == 16 and [s.utterance.id for s in some] == [f"ser-{i}" for i in range(8)]


def load_study_with(path: Path, **fields) -> Study:
    return load_study(changed(path, path.parent, evaluations=[evaluation(path, **fields)]))


def test_assign_reaches_into_lists_and_says_where_it_cannot():
    values = {"a": [{"b": 1}, {"b": 2}]}
    assign(values, "a.1.b", 5)
    assign(values, "c.d", 6)
    assert values == {"a": [{"b": 1}, {"b": 5}], "c": {"d": 6}}
    for key in ("a.2.b", "a.x.b", "a.-1"):
        with pytest.raises(ValueError, match="is no place in a list of 2"):
            assign(values, key, 0)
    with pytest.raises(ValueError, match="'b' has no fields"):
        assign(values, "a.0.b.c", 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seeds": [1, 1]}, "seeds are"),
        ({"systems": [{"name": "A b"}]}, "small letters"),
        ({"systems": [{"name": "a", "set": {"training.seed": 1}}]}, "the study's `seeds` do that"),
        ({"systems": [{"name": "a", "tasks": ["sid"]}]}, "task 'sid' is none of the base config's"),
        ({"systems": [{"name": "a", "set": {"model.gate.mode": "best"}}]}, "gate.mode is 'best'"),
        ({"systems": [{"name": "a", "set": {"model.gat.mode": "shared"}}]}, "unknown field 'gat'"),
        ({"evaluations": []}, "evaluations are"),
        ({"claims": [{"name": "c", "text": "t", "comparisons": []}]}, "has no comparisons"),
        ({"nonsense": 1}, "unknown field 'nonsense'"),
        ({"base": "nosuch.yaml"}, "does not exist"),
    ],
    ids=str,
)
def test_mistakes_are_named(path, tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        load_study(changed(path, tmp_path, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"baseline": "nobody"}, "system 'nobody' is unknown"),
        ({"baseline": "learns"}, "compared with itself"),
        ({"task": "asr"}, "has no task 'asr'"),
        ({"metric": "wer"}, "does not fit task ser"),
        ({"metric": "f1"}, "'f1' is unknown"),
        ({"evaluation": "other"}, "name one of"),
        ({"expect": "not worse"}, "margin is 0.0"),
        ({"expect": "same"}, "expect is 'same'"),
    ],
    ids=str,
)
def test_mistakes_in_a_comparison_are_named(path, tmp_path, fields, words):
    contrast = {"system": "learns", "baseline": "idle", "task": "ser"} | fields
    claims = [{"name": "c", "text": "t", "comparisons": [contrast]}]
    with pytest.raises(ValueError, match=words):
        load_study(changed(path, tmp_path, claims=claims))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.stem)
def test_shipped_studies_are_whole(file):
    study = load_study(file)
    assert study.name == file.stem and len(study.seeds) >= 3 and study.claims and study.question
    assert all(claim.source for claim in study.claims)
