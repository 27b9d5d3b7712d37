"""Tables that are put into Markdown files: between their markers, and nowhere else."""

import pytest
from planted_results import plant_study

from harmonifuse_core.card import insert, main

TEXT = "before\n<!-- studies -->\nFORMER ROWS\n<!-- /studies -->\nafter\n"


def test_claims_of_every_study_stand_between_the_markers(tmp_path, capsys):
    plant_study(tmp_path / "runs")
    target = tmp_path / "README.md"
    target.write_text(TEXT)
    assert main(["--studies", str(tmp_path / "runs"), "--into", str(target)]) == 0
    text = target.read_text()
    assert text.startswith("before\n<!-- studies -->\n| study | claim |") and text.endswith(
        "<!-- /studies -->\nafter\n"
    )
    assert "FORMER ROWS" not in text and "<img" not in text and "points (95 % over speakers and seeds" in text
    assert sum("here*" in line or "size*" in line for line in text.splitlines()) >= 1
    assert main(["--studies", str(tmp_path / "runs"), "--into", str(target)]) == 0 and target.read_text() == text


@pytest.mark.parametrize("broken", ["no marker", "<!-- /studies --> <!-- studies -->", "<!-- studies -->"])
def test_a_file_without_markers_is_left_as_it_is(tmp_path, broken):
    target = tmp_path / "x.md"
    target.write_text(broken)
    with pytest.raises(ValueError, match="has no <!-- studies -->"):
        insert(target, "studies", "table")
    assert target.read_text() == broken


def test_no_study_and_no_aim_are_said(tmp_path, capsys):
    (tmp_path / "x.md").write_text(TEXT)
    assert main(["--studies", str(tmp_path), "--into", str(tmp_path / "x.md")]) == 1
    assert "holds no study" in capsys.readouterr().err
    for arguments in ([], ["--studies", "runs"]):
        with pytest.raises(SystemExit):
            main(arguments)
