"""Recordings of logged utterances: found below the allowed folders, and nowhere else."""

import os
from pathlib import Path

import pytest
from factories import tone, write_wav

from app.audio_folders import DATA_VARIABLE, data_folders, find_audio


@pytest.fixture
def folders(tmp_path) -> tuple[Path, ...]:
    """Two data folders; a recording in each, one outside, and links that lead there."""
    write_wav(tmp_path / "one" / "corpus" / "a.wav", tone(0.2))
    write_wav(tmp_path / "two" / "b.wav", tone(0.2))
    write_wav(tmp_path / "outside" / "secret.wav", tone(0.2))
    (tmp_path / "one" / "notes.txt").write_text("no audio")
    os.symlink(tmp_path / "outside" / "secret.wav", tmp_path / "one" / "link.wav")
    os.symlink(tmp_path / "outside", tmp_path / "one" / "folder")
    os.symlink(tmp_path / "one" / "corpus" / "a.wav", tmp_path / "one" / "inside.wav")
    os.symlink("loop.wav", tmp_path / "one" / "loop.wav")
    return tmp_path / "absent", tmp_path / "one", tmp_path / "two"


def test_a_recording_below_any_folder_is_found(folders, tmp_path):
    assert find_audio("corpus/a.wav", folders) == (tmp_path / "one/corpus/a.wav").resolve()
    assert find_audio("b.wav", folders) == (tmp_path / "two/b.wav").resolve()
    assert find_audio("corpus/../corpus/a.wav", folders) is not None and find_audio("inside.wav", folders) is not None


@pytest.mark.parametrize(
    "name",
    ["../outside/secret.wav", "corpus/../../outside/secret.wav", "link.wav", "folder/secret.wav", "loop.wav",
     "notes.txt", "corpus", "", " ", "nothing.wav", "a\x00.wav", "x" * 5000 + ".wav", None, 3.0],
)  # fmt: skip
def test_nothing_leads_out_and_nothing_else_is_opened(folders, name):
    assert find_audio(name, folders) is None


def test_an_absolute_name_is_refused_even_inside(folders, tmp_path):
    assert find_audio(str(tmp_path / "one/corpus/a.wav"), folders) is None


def test_the_folders_come_from_the_environment_or_lie_beside_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv(DATA_VARIABLE, os.pathsep.join(["/a", "/b c"]))
    assert data_folders(tmp_path) == (Path("/a"), Path("/b c"))
    monkeypatch.delenv(DATA_VARIABLE)
    assert data_folders(tmp_path / "repository") == (tmp_path / "shared" / "data",)
