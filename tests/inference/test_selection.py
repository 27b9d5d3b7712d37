"""Selectors of a manifest: conditions on fields."""

import argparse

import pytest
from factories import tone, write_manifest, write_wav

from harmonifuse_core.inference.selection import add_selection_arguments, selections_of
from harmonifuse_core.inference.sources import SourceError


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for number, (age, gender) in enumerate([(8, "f"), (17, "m"), (18, "f"), (40.5, "m"), (None, "f")]):
        write_wav(tmp_path / f"{number}.wav", tone(0.2))
        row = {"id": f"u{number}", "audio_filepath": f"{number}.wav", "gender": gender, "speaker": f"s{number}"}
        rows.append(row | ({"age": age} if age is not None else {}))
    return write_manifest(tmp_path, rows)


def chosen(manifest, where):
    parser = argparse.ArgumentParser()
    add_selection_arguments(parser)
    (selection,) = selections_of(parser.parse_args(["--manifest", str(manifest), "--where", where]))
    return [source.utterance.id for source in selection.sources()]


def test_numbers_compare_as_numbers_and_missing_fields_fail(manifest):
    assert chosen(manifest, "age>=18") == ["u2", "u3"]
    assert chosen(manifest, "age<18") == ["u0", "u1"]


def test_conditions_join(manifest):
    assert chosen(manifest, "age>=8, gender=f") == ["u0", "u2"]
    assert chosen(manifest, "gender!=f") == ["u1", "u3"]


def test_text_that_should_be_a_number_is_named(manifest):
    with pytest.raises(SourceError, match="gender of 'u0' is 'f', not a number"):
        chosen(manifest, "gender>3")


@pytest.mark.parametrize("where", ["age", "age>=old", ">=3"])
def test_malformed_conditions_are_refused(manifest, where, capsys):
    with pytest.raises(SystemExit):
        chosen(manifest, where)
    assert "--where" in capsys.readouterr().err


def test_nothing_left_says_what_to_loosen(manifest):
    with pytest.raises(SourceError, match="--where"):
        chosen(manifest, "age>99")
