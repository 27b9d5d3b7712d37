"""Kaldi folders, SpeechBrain CSV, NeMo JSONL and Hugging Face datasets folders."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from harmonifuse_core.data.corpora.entries import CorpusError


def kaldi(tree, folder: str, **files: tuple[str, ...]):
    for name, content in files.items():
        tree.text(f"{folder}/{name.replace('wav_scp', 'wav.scp')}", *content)


def test_kaldi_folder_of_folders(tree, run):
    tree.audio("audio/a.wav", "audio/b.flac", "audio/c.wav")
    kaldi(
        tree, "train", wav_scp=("u1 audio/a.wav", "u2 audio/b.flac"), text=("u1 HELLO  THERE", "u2 GO"),
        utt2spk=("u1 s1", "u2 s2"), spk2gender=("s1 m", "s2 f"), utt2lang=("u1 de",),
        utt2emotion=("u1 anger", "u2 calm"),
        utt2dur=("u1 0.2",),
    )  # fmt: skip
    kaldi(tree, "test", wav_scp=("u3 audio/c.wav",), utt2spk=("u3 s3",))
    made = run("kaldi", dataset="mine", language="en")
    assert made.ids == ["u1", "u2", "u3"] and made.why() == {}
    assert made.rows["u1"] == {
        "id": "u1", "audio_filepath": "../raw/audio/a.wav", "duration": 0.2, "text": "HELLO THERE", "emotion": "angry",
        "language": "de", "gender": "m", "speaker": "s1", "sample_rate": 16_000, "dataset": "mine", "split": "train",
    }  # fmt: skip
    assert made.rows["u2"]["language"] == "en"
    assert made.rows["u3"]["split"] == "test" and "text" not in made.rows["u3"], "no text file: a corpus of labels"
    only = run("kaldi", settings={"force": True}, labels=("angry", "sad"))
    assert only.ids == ["u1"] and only.why() == {"u2": "unknown label", "u3": "label absent"}


def test_kaldi_damaged(tree, run):
    tree.audio("a.wav")
    tree.header_only("h.wav")
    tree.text("archive.ark", "x")
    scp = (
        "u1 a.wav", "u2 missing.wav", "u3 sox a.wav -t wav - |", "u4 ../../etc/passwd", "u5 archive.ark:12", "u6 h.wav",
        "u7 a.wav", "u1 a.wav", "u8 /etc/hostname",
    )  # fmt: skip
    words = [f"u{n} WORDS" for n in (1, 2, 3, 4, 5, 6, 8, 9)]
    kaldi(tree, ".", wav_scp=scp, text=(*words, "u7"), utt2spk=("u1 s1",))
    tree.bytes("utt2spk", b"u1 s1\nu2 \xff\xfe\n")
    made = run("kaldi")
    assert made.ids == ["u1"] and made.rows["u1"]["split"] == "all"
    assert made.why() == {
        "u1": "duplicate id", "u2": "missing audio", "u3": "command instead of a file",
        "u4": "path outside the raw folder",
        "u5": "command instead of a file", "u6": "zero length", "u7": "empty transcript",
        "u8": "path outside the raw folder",
        "u9": "missing audio", "utt2spk, line 2": "damaged entry",
    }  # fmt: skip
    assert "never run" in made.detail("u3")


def test_kaldi_segments_are_named_or_cut(tree, run):
    tree.audio("long.wav", seconds=1.0, rate=8_000)
    tree.audio("short.wav")
    segments = ("u1 long 0.25 0.75", "u2 short 0 0.2", "u3 long 2 3", "u4 gone 0 1", "u5 long x y", "u6 long 0.5 -1")
    kaldi(
        tree, ".", wav_scp=("long long.wav", "short short.wav"), segments=segments,
        text=tuple(f"u{n} W" for n in range(1, 7)),
    )  # fmt: skip
    made = run("kaldi")
    assert made.ids == ["u2"] and made.rows["u2"]["audio_filepath"] == "../raw/short.wav"
    assert made.why() == {
        "u1": "part of a longer recording", "u3": "damaged entry", "u4": "missing audio", "u5": "damaged entry",
        "u6": "part of a longer recording",
    }  # fmt: skip
    assert "0.25 to 0.75 s of 1.000 s; --cut" in made.detail("u1")
    assert not (made.out.parent / "kaldi.audio").exists()
    cut = run("kaldi", settings={"force": True, "cut": True})
    assert cut.ids == ["u1", "u2", "u6"]
    assert cut.rows["u1"]["audio_filepath"].startswith("kaldi.audio/")
    info = sf.info(cut.utterances["u1"].audio)
    assert (info.samplerate, info.frames, info.format) == (16_000, 8_000, "FLAC")
    original, _ = sf.read(tree / "long.wav", dtype="float32")
    piece, _ = sf.read(cut.utterances["u1"].audio, dtype="float32")
    assert (
        abs(piece.std() / original[2_000:6_000].std() - 1) < 0.1
        and abs(piece[::2] - original[2_000:6_000]).mean() < 0.1
    )


def test_speechbrain_csv(tree, run):
    tree.audio("data/a.flac", "data/b.flac", "data/c.flac")
    header = "ID,duration,wav,spk_id,wrd"
    tree.text(
        "train.csv", header, '1,0.2,$data_root/data/a.flac,s1,"HELLO, YOU"', "2,5.0,{data_root}/data/b.flac,s2,GO"
    )
    tree.text("valid.csv", header, "3,0.2,data/c.flac,s3,STOP")
    made = run("speechbrain_csv")
    assert {i: row["split"] for i, row in made.rows.items()} == {"1": "train", "2": "train", "3": "dev"}
    assert made.rows["1"]["text"] == "HELLO, YOU" and made.rows["1"]["speaker"] == "s1"
    assert made.json["remarks"]["shorter than stated"]["ids"] == ["2"]
    single = run("speechbrain_csv", raw=tree / "valid.csv", settings={"force": True}, columns=("emotion=wrd",))
    assert single.rows["3"]["emotion"] == "STOP" and "text" not in single.rows["3"]
    with pytest.raises(CorpusError, match="no column 'mood' for emotion; the columns are: ID, duration"):
        run("speechbrain_csv", settings={"force": True}, columns=("emotion=mood",))
    with pytest.raises(CorpusError, match="write field=column"):
        run("speechbrain_csv", settings={"force": True}, columns=("emotion",))


def test_speechbrain_csv_damaged(tree, run):
    tree.audio("a.wav", seconds=1.0)
    tree.audio("low.wav", rate=8_000)
    tree.text(
        "train.csv", "ID,duration,wav,start,stop,spk_id,wrd", "1,1.0,a.wav,0,16000,s,ALL OF IT",
        "2,0.5,a.wav,4000,12000,s,PART",
        "3,1,b.wav,,,s,GONE", "4,1,a.wav,,,s,", "1,1,a.wav,,,s,AGAIN", "5,1,,,,s,NO PATH", "6,1,a.wav,,,s",
        "7,1,../outside.wav,,,s,X", "8,1,a.wav,1,x,s,X", "9,0.2,low.wav,,,s,LOW", '10,1,a.wav,,,s,"never closed',
        "11,1,a.wav,,,s,KEPT",
    )  # fmt: skip
    tree.audio("../outside.wav")
    made = run("speechbrain_csv")
    assert made.ids == ["1", "11", "9"], "a quote that is never closed must not swallow the line behind it"
    assert made.why() == {
        "2": "part of a longer recording", "3": "missing audio", "4": "empty transcript", "1": "duplicate id",
        "5": "missing audio", "7": "path outside the raw folder", "8": "damaged entry",
        "train.csv, line 8": "damaged entry", "train.csv, line 12": "damaged entry",
    }  # fmt: skip
    assert made.json["sample_rates"]["8000"]["count"] == 1


def nemo_row(path: str, **more) -> str:
    return json.dumps({"audio_filepath": path, "duration": 0.2, "text": "this is  it"} | more)


def test_nemo_jsonl(tree, run):
    tree.audio("wavs/a.wav", "wavs/b.wav", "other/a.wav")
    tree.audio("wavs/long.wav", seconds=1.0)
    tree.text(
        "train_manifest.json", nemo_row("wavs/a.wav", speaker=7, emotion="joy"), nemo_row("other/a.wav"),
        nemo_row("wavs/long.wav", offset=0.25, duration=0.5), nemo_row("wavs/gone.wav"),
        nemo_row("wavs/b.wav", text=""),
        nemo_row("wavs/a.wav"), nemo_row("/etc/passwd"), nemo_row(3), "{", nemo_row("wavs/b.wav", offset="x"),
    )  # fmt: skip
    made = run("nemo_jsonl")
    assert made.ids == ["other/a", "wavs/a"], "two files of one name are two utterances"
    row = made.rows["wavs/a"]
    assert (row["split"], row["speaker"], row["emotion"], row["text"]) == ("train", "7", "happy", "this is it")
    assert made.why() == {
        "wavs/long@0.25": "part of a longer recording", "wavs/gone": "missing audio", "wavs/b": "empty transcript",
        "wavs/a": "duplicate id", "/etc/passwd": "path outside the raw folder",
        "train_manifest.json, line 8": "damaged entry", "train_manifest.json, line 9": "damaged entry",
        "wavs/b.wav": "damaged entry",
    }  # fmt: skip
    cut = run("nemo_jsonl", settings={"force": True, "cut": True})
    assert cut.rows["wavs/long@0.25"]["duration"] == 0.5


def test_columns_of_the_data_never_replace_what_was_measured(tree, run):
    tree.audio("a.wav")
    tree.text(
        "train.csv", "ID,wav,sample_rate,audio_filepath,dataset,mood,note", f"1,a.wav,7,/x,theirs,fine,{'n' * 300}"
    )
    row = run("speechbrain_csv", dataset="mine").rows["1"]
    assert row == {
        "id": "1", "audio_filepath": "../raw/a.wav", "duration": 0.2, "mood": "fine", "sample_rate": 16_000,
        "dataset": "mine", "split": "train",
    }  # fmt: skip


def test_absolute_paths_are_taken_below_the_audio_root_only(tree, run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    tree.audio("../elsewhere/a.wav", "in.wav")
    rows = [nemo_row(str(elsewhere / "a.wav")), nemo_row(str(tree / "in.wav"))]
    tree.text("test.jsonl", *rows)
    made = run("nemo_jsonl")
    assert [row["audio_filepath"] for row in made.rows.values()] == ["../raw/in.wav"]
    assert list(made.why().values()) == ["path outside the raw folder"]
    both = run("nemo_jsonl", settings={"force": True, "audio_root": str(elsewhere)})
    assert sorted(row["audio_filepath"] for row in both.rows.values()) == ["../elsewhere/a.wav", "../raw/in.wav"]


FEATURES = {
    "audio": {"sampling_rate": 16_000, "_type": "Audio"},
    "label": {"names": ["neutral", "anger"], "_type": "ClassLabel"},
    "sentence": {"dtype": "string", "_type": "Value"},
}


def dataset_table(tree, rows: list[tuple]) -> pa.Table:
    """rows: (bytes, path, label, sentence); the schema is that of `datasets`, with its features in the metadata."""
    columns = {
        "audio": [{"bytes": content, "path": path} for content, path, _, _ in rows],
        "label": [label for _, _, label, _ in rows],
        "sentence": [sentence for _, _, _, sentence in rows],
    }
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("audio", audio), ("label", pa.int64()), ("sentence", pa.string())])
    return pa.table(columns, schema.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})}))


def sound(tree, name: str) -> bytes:
    tree.audio(f"../sounds/{name}")
    return (tree / f"../sounds/{name}").read_bytes()


def test_hf_parquet_writes_the_bytes_beside_the_manifest(tree, run):
    flac, wav = sound(tree, "a.flac"), sound(tree, "b.wav")
    rows = [
        (flac, "a.flac", 1, "one"), (wav, "b.wav", 0, "two"), (wav[:44], "h.wav", 0, "header"),
        (b"no audio", "x", 0, "x"),
        (None, None, 0, "nothing"), (wav, "b.wav", 0, " "), (None, "../../escape.wav", 0, "out"),
        (wav, None, 9, "label 9"),
    ]  # fmt: skip
    (tree / "data").mkdir()
    pq.write_table(dataset_table(tree, rows), tree / "data/train-00000-of-00001.parquet")
    pq.write_table(dataset_table(tree, rows[:1]), tree / "data/validation-00000-of-00001.parquet")
    made = run("hf_datasets", columns=("emotion=label",))
    assert made.ids == ["dev-1", "train-1", "train-2", "train-8"]
    row = made.rows["train-1"]
    assert (row["emotion"], row["text"], row["split"]) == ("angry", "one", "train")
    assert made.utterances["train-1"].audio.read_bytes() == flac, "the bytes are written as they are"
    assert made.utterances["train-1"].audio.suffix == ".flac" and made.utterances["train-2"].audio.suffix == ".wav"
    assert "emotion" not in made.rows["train-8"], "a class number without a name is no label"
    assert made.why() == {
        "train-3": "zero length", "train-4": "unreadable audio", "train-5": "missing audio",
        "train-6": "empty transcript",
        "train-7": "path outside the raw folder",
    }  # fmt: skip
    assert len(list((made.out.parent / "hf_datasets.audio").iterdir())) == 4


def test_hf_saved_to_disk(tree, run):
    flac = sound(tree, "a.flac")
    tree.text("dataset_dict.json", '{"splits": ["train", "test"]}')
    for split in ("train", "test"):
        tree.text(f"{split}/state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": null}')
        table = dataset_table(tree, [(flac, "a.flac", 0, "one"), (None, "sounds/p.wav", 1, "two")])
        path = str(tree / f"{split}/data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    tree.audio("sounds/p.wav")
    made = run("hf_datasets")
    assert made.ids == ["test-1", "test-2", "train-1", "train-2"]
    assert made.rows["train-2"]["audio_filepath"] == "../raw/sounds/p.wav", "a path in the folder is used where it is"
    assert made.rows["test-1"]["label"] == "neutral"
    tree.text(
        "test/state.json", '{"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [{"filename": "i"}]}'
    )
    with pytest.raises(CorpusError, match="flatten_indices"):
        run("hf_datasets", settings={"force": True})


def test_hf_file_that_breaks_off_is_named(tree, run):
    flac = sound(tree, "a.flac")
    (tree / "data").mkdir()
    good, bad = tree / "data/test-00000-of-00001.parquet", tree / "data/train-00000-of-00001.parquet"
    pq.write_table(dataset_table(tree, [(flac, "a.flac", 0, "one")]), good)
    bad.write_bytes(good.read_bytes()[:-20])
    made = run("hf_datasets")
    assert made.ids == ["test-1"]
    assert made.why() == {"data/train-00000-of-00001.parquet": "damaged entry"}
