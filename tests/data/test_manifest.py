"""JSONL manifests: what a line may hold, and errors that name file, line, value and remedy."""

import json

import pytest
from factories import tiny_corpus, write_manifest

from harmonifuse_core.data.manifest import ManifestError, parse_line, read_manifest


def test_a_manifest_is_read_in_order_with_paths_relative_to_its_own_folder(tmp_path, monkeypatch):
    asr, ser = tiny_corpus(tmp_path / "corpus", n=8)
    monkeypatch.chdir(tmp_path)
    rows = read_manifest("corpus/asr.jsonl")
    assert [u.id for u in rows] == [f"asr-{i}" for i in range(8)]
    assert all(u.audio.is_absolute() and u.audio.is_file() for u in rows)
    first = rows[0]
    assert (first.text, first.speaker, first.dataset, first.split) == ("one two", "speaker-0", "tones-asr", "train")
    assert first.duration == 0.5 and first.labels == {"gender": "f"}
    assert [u.id for u in read_manifest(ser, "test")] == ["ser-3", "ser-7"]


def test_fields_are_asked_by_name(tmp_path):
    row = {
        "audio_filepath": "a.wav",
        "text": "",
        "emotion": "sad",
        "age": 31,
        "score": 0.5,
        "notes": None,
        "tags": ["x"],
    }
    utterance = parse_line(json.dumps(row), tmp_path, "here")
    assert utterance.id == "a" and utterance.audio == (tmp_path / "a.wav").resolve()
    assert utterance.field("emotion") == "sad" and utterance.field("age") == "31" and utterance.field("score") == "0.5"
    assert [utterance.field(name) for name in ("text", "speaker", "notes", "tags", "absent")] == [None] * 5
    assert utterance.duration == 0.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"m\.jsonl, line 2: not a JSON object \(.*at column 2\); write one object a line"),
        ("[1, 2]", "line 2: '\\[1, 2\\]' is not an object"),
        ('{"id": "b"}', "line 2: audio_filepath is None; give the path"),
        ('{"audio_filepath": " "}', "line 2: audio_filepath is ' '"),
        ('{"audio_filepath": 7}', "line 2: audio_filepath is 7"),
        ('{"audio_filepath": "b.wav", "duration": -1}', "line 2: duration is -1; give seconds, or leave the field out"),
        ('{"audio_filepath": "b.wav", "duration": NaN}', "line 2: duration is nan"),
        ('{"audio_filepath": "b.wav", "duration": "2"}', "line 2: duration is '2'"),
        ('{"audio_filepath": "b.wav", "duration": true}', "line 2: duration is True"),
        ('{"audio_filepath": "b.wav", "text": 5}', "line 2: text is 5; give a string"),
        ('{"audio_filepath": "c.wav", "id": "a"}', "line 2: id 'a' stands in line 1 already; ids must differ"),
    ],
)
def test_a_bad_line_is_named_with_its_value(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a.wav"}\n' + line + "\n")
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_the_same_id_in_another_split_is_refused_too(tmp_path):
    rows = [{"id": "a", "audio_filepath": "a.wav", "split": s} for s in ("train", "test")]
    with pytest.raises(ManifestError, match="stands in line 1 already"):
        read_manifest(write_manifest(tmp_path, rows), "train")


def test_an_unknown_split_lists_those_there_are(tmp_path):
    path = write_manifest(tmp_path, [{"audio_filepath": f"{s}.wav", "split": s} for s in ("train", "dev")])
    with pytest.raises(ManifestError, match=r"no utterance of split 'tset'; its splits are: dev, train"):
        read_manifest(path, "tset")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n \n")
    with pytest.raises(ManifestError, match=r"empty\.jsonl has no utterance; its splits are: none"):
        read_manifest(empty)
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(tmp_path / "absent.jsonl")
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(tmp_path)


def test_blank_lines_byte_order_marks_and_other_scripts_are_fine_and_other_encodings_are_not(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes('\ufeff{"audio_filepath": "zażółć.wav"}\r\n\n'.encode())
    assert read_manifest(path)[0].id == "zażółć"
    path.write_bytes(b'{"audio_filepath": "a.wav"}\n' + '{"audio_filepath": "é.wav"}\n'.encode("latin-1"))
    with pytest.raises(ManifestError, match=r"m\.jsonl, line 2: not UTF-8 text"):
        read_manifest(path)
