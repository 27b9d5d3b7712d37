"""LibriSpeech, Emilia, Common Voice and speechocean762: transcripts, subsets and what is wrong with a tree."""

import json

import pytest

from harmonifuse_core.data.corpora.entries import CorpusError

CHAPTER = "LibriSpeech/test-clean/1089/134686/1089-134686"


def librispeech(tree):
    tree.text("LibriSpeech/SPEAKERS.TXT", ";ID |SEX| SUBSET", "1089 | M | test-clean | 8.0 | A B", "19 | F | x | 1 | C")
    tree.text(f"{CHAPTER}.trans.txt", "1089-134686-0000 HE HOPED  THERE WOULD", "1089-134686-0001 BE STEW")
    tree.audio(f"{CHAPTER}-0000.flac", f"{CHAPTER}-0001.flac")
    tree.text("LibriSpeech/train-clean-100/19/198/19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY")
    tree.audio("LibriSpeech/train-clean-100/19/198/19-198-0000.flac")


def test_librispeech_healthy(tree, run):
    librispeech(tree)
    made = run("librispeech")
    assert made.ids == ["libri-1089-134686-0000", "libri-1089-134686-0001", "libri-19-198-0000"]
    row = made.rows["libri-1089-134686-0000"]
    assert row["text"] == "he hoped there would"
    assert (row["speaker"], row["gender"], row["split"], row["subset"]) == (
        "libri-1089",
        "m",
        "test-clean",
        "test-clean",
    )
    assert made.rows["libri-19-198-0000"]["split"] == "train"
    assert made.rows["libri-19-198-0000"]["dataset"] == "librispeech-train-clean-100"
    assert row["sample_rate"] == 16_000 and row["duration"] == 0.2
    assert made.why() == {}
    assert made.json["published"][0] == "published 31,159, found 3: 31,156 missing"
    assert "test-clean 2,620 published, 2 found" in made.json["published"][1]
    assert "dev-clean" in made.json["published"][2], (
        "subsets that were not downloaded are named, not counted as missing"
    )


def test_librispeech_damaged(tree, run):
    librispeech(tree)
    tree.text(
        f"{CHAPTER}.trans.txt", "1089-134686-0000 HE HOPED", "1089-134686-0001", "1089-134686-0002 NO FILE",
        "1089-134686-0000 SAID AGAIN", "1089-134686-0003 HEADER", "1089-134686-0004 SLOW", "1089-134686-0005 EMPTY",
        "1089-134686-0006 NOT AUDIO", "../../../../../secret ESCAPES",
    )  # fmt: skip
    tree.bytes("../secret.flac", b"x")
    tree.header_only(f"{CHAPTER}-0003.wav")
    tree.audio(f"{CHAPTER}-0004.flac", rate=8_000)
    tree.bytes(f"{CHAPTER}-0005.flac", b"")
    tree.bytes(f"{CHAPTER}-0006.flac", b"<html>not found</html>")
    tree.audio(f"{CHAPTER}-0099.flac")
    tree.audio("LibriSpeech/train-clean-101/1/2/1-2-0000.flac")
    tree.text("LibriSpeech/train-clean-101/1/2/1-2.trans.txt", "1-2-0000 A SUBSET THAT IS NONE")
    made = run("librispeech", subsets=("test-clean",))
    assert made.ids == ["libri-1089-134686-0000", "libri-1089-134686-0004"]
    assert made.why() == {
        "libri-1089-134686-0001": "empty transcript",
        "libri-1089-134686-0002": "missing audio",
        "libri-1089-134686-0000": "duplicate id",
        "libri-1089-134686-0003": "zero length",
        "libri-1089-134686-0005": "zero length",
        "libri-1089-134686-0006": "unreadable audio",
        "libri-../../../../../secret": "path outside the raw folder",
        "libri-1089-134686-0099": "audio without an entry",
        "LibriSpeech/train-clean-101": "unknown label",
    }
    assert made.detail("libri-1089-134686-0002") == (
        "LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt, line 3: "
        "no such file: LibriSpeech/test-clean/1089/134686/1089-134686-0002.flac"
    )
    assert made.json["sample_rates"]["8000"] == {
        "count": 1, "note": "rate 8000 Hz, will be resampled (published: 16000 Hz)", "ids": ["libri-1089-134686-0004"],
    }  # fmt: skip
    told = "\n".join(made.report.lines())
    assert "left out, zero length: 2" in told and "libri-1089-134686-0003" in told
    assert "rate 8000 Hz, will be resampled (published: 16000 Hz): 1; first: libri-1089-134686-0004" in told


def test_librispeech_chapter_without_transcripts_names_its_audio(tree, run):
    librispeech(tree)
    (tree / f"{CHAPTER}.trans.txt").unlink()
    made = run("librispeech")
    assert made.ids == ["libri-19-198-0000"]
    assert set(made.why().values()) == {"audio without an entry"} and len(made.why()) == 2


def test_librispeech_refuses_an_unknown_subset(tree, run):
    librispeech(tree)
    with pytest.raises(CorpusError, match="'test-clear' is unknown.*test-clean"):
        run("librispeech", subsets=("test-clear",))


def emilia_line(name: str, **changes) -> str:
    wav = f"EN_B00000/EN_B00000_S00000/mp3/{name}.mp3"
    row = {"id": name, "wav": wav, "text": " You can  help.", "duration": 0.2, "speaker": name[:16], "language": "en"}
    return json.dumps(row | {"dnsmos": 3.3} | changes)


def test_emilia_healthy_in_both_layouts(tree, run):
    names = [f"EN_B00000_S0000{speaker}_W00000{n}" for speaker in range(5) for n in range(2)]
    tree.text("EN/EN_B00000.jsonl", *map(emilia_line, names))
    tree.audio(*(f"EN/EN_B00000/EN_B00000_S00000/mp3/{name}.mp3" for name in names), rate=24_000)
    tree.text("DE/DE_B00000_S00000_W000000.json", emilia_line("DE_B00000_S00000_W000000", language="de"))
    tree.audio("DE/DE_B00000_S00000_W000000.mp3", rate=24_000)
    made = run("emilia")
    assert made.ids == ["DE_B00000_S00000_W000000", *names]
    row = made.rows[names[0]]
    assert (row["text"], row["language"], row["dnsmos"]) == ("You can help.", "en", 3.3)
    assert row["speaker"] == "emilia-EN_B00000_S00000" and row["sample_rate"] == 24_000
    splits = {row["speaker"]: row["split"] for row in made.rows.values()}
    assert all(row["split"] == splits[row["speaker"]] for row in made.rows.values())
    assert sorted(splits.values()) == ["dev", "test", "train", "train", "train", "train"]
    assert "en published 46,828 h, found 0.00 h" in made.json["published"][0]
    assert made.json["sample_rates"]["24000"]["note"] == "rate 24000 Hz, will be resampled"


def test_emilia_damaged(tree, run):
    name = "EN_B00000_S00000_W00000"
    folder = "EN/EN_B00000/EN_B00000_S00000/mp3"
    lines = [
        emilia_line(name + "0"), emilia_line(name + "1"), emilia_line(name + "2", text="  "), emilia_line(name + "0"),
        emilia_line(name + "3", language="tlh"), emilia_line(name + "4"), emilia_line(name + "5"), "{not json",
        emilia_line(name + "6", speaker=""), emilia_line(name + "7", dnsmos=2.1), emilia_line(name + "8", duration=9.0),
        emilia_line(name + "9", wav="../../outside.mp3"), "[1, 2]",
    ]  # fmt: skip
    tree.text("EN/EN_B00000.jsonl", *lines)
    tree.audio(*(f"{folder}/{name}{n}.mp3" for n in "02367"))
    tree.audio(f"{folder}/{name}8.mp3", rate=8_000)
    tree.bytes(f"{folder}/{name}4.mp3", b"")
    tree.bytes(f"{folder}/{name}5.mp3", b"nothing like an mp3" * 40)
    tree.audio(f"{folder}/stray.mp3", "../outside.mp3")
    made = run("emilia", min_dnsmos=3.0)
    assert made.ids == [name + "0", name + "8"]
    assert made.why() == {
        name + "1": "missing audio", name + "2": "empty transcript", name + "0": "duplicate id",
        name + "3": "unknown label", name + "4": "zero length", name + "5": "unreadable audio",
        "EN/EN_B00000.jsonl, line 8": "damaged entry", name + "6": "damaged entry", name + "7": "left out by choice",
        name + "9": "path outside the raw folder", "EN/EN_B00000.jsonl, line 13": "damaged entry",
        "stray": "audio without an entry",
    }  # fmt: skip
    assert made.json["left_out_by_choice"] == {"dnsmos below 3": 1}
    assert made.json["remarks"]["shorter than stated"]["ids"] == [name + "8"]
    assert "language 'tlh' is none of en" in made.detail(name + "3")
    assert made.json["sample_rates"]["8000"]["count"] == 1


CV = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment"


def cv_line(
    name: str, client: str = "c" * 128, text: str = 'She said "no', tail: str = "twenties\tmale_masculine\t"
) -> str:
    return f"{client}\t{name}\t{text}\t2\t0\t{tail}\ten\t"


def test_common_voice_healthy(tree, run):
    for split, client in (("train", "a"), ("dev", "b"), ("test", "c")):
        tree.text(f"cv-corpus-17.0/en/{split}.tsv", CV, cv_line(f"cv_{split}.mp3", client * 128))
        tree.audio(f"cv-corpus-17.0/en/clips/cv_{split}.mp3", rate=32_000)
    tree.text("cv-corpus-17.0/en/validated.tsv", CV, cv_line("cv_train.mp3"))
    made = run("common_voice")
    assert {name: row["split"] for name, row in made.rows.items()} == {
        "cv_train": "train", "cv_dev": "dev", "cv_test": "test",
    }  # fmt: skip
    row = made.rows["cv_train"]
    assert row["text"] == 'She said "no', "a quote that is never closed must not swallow the rest of the file"
    assert (row["speaker"], row["gender"], row["age_group"]) == ("cv-" + "a" * 16, "m", "twenties")
    assert row["language"] == "en" and "accent" not in row
    assert made.json["published"] == ["published 3 (rows of the .tsv files), found 3: complete"]
    doubled = run("common_voice", settings={"force": True}, lists=("train", "validated"))
    assert doubled.why() == {"cv_train": "duplicate id"}


def test_common_voice_damaged(tree, run):
    rows = [cv_line("a"), cv_line("b.mp3"), cv_line("c.mp3", text=""), "too\tfew", cv_line("../../../x.mp3")]
    tree.text("en/train.tsv", CV, *rows)
    tree.audio("en/clips/a.mp3", "en/clips/c.mp3", rate=8_000)
    made = run("common_voice")
    assert made.ids == ["a"]
    assert made.why() == {
        "b": "missing audio", "c": "empty transcript", "en/train.tsv, line 5": "damaged entry",
        "x": "path outside the raw folder",
    }  # fmt: skip
    assert made.json["published"][0] == "published 5 (rows of the .tsv files), found 1: 4 missing"
    with pytest.raises(CorpusError, match="'de' is not in .*there are: en"):
        run("common_voice", settings={"force": True}, languages=("de",))


def speechocean(tree, split: str, speaker: str, names):
    tree.text(f"{split}/wav.scp", *(f"{n}\tWAVE/SPEAKER{speaker}/{n}.WAV" for n in names))
    tree.text(f"{split}/text", *(f"{n} WE CALL IT BEAR" for n in names))
    tree.text(f"{split}/utt2spk", *(f"{n} {speaker}" for n in names))
    tree.text(f"{split}/spk2gender", f"{speaker} m")
    tree.text(f"{split}/spk2age", f"{speaker} 6")
    tree.audio(*(f"WAVE/SPEAKER{speaker}/{n}.WAV" for n in names))


def test_speechocean762_healthy(tree, run):
    speechocean(tree, "train", "0001", ["000010011", "000010035"])
    speechocean(tree, "test", "0003", ["000030012"])
    made = run("speechocean762")
    row = made.rows["so762-000010011"]
    assert (row["text"], row["speaker"], row["gender"], row["age"]) == ("we call it bear", "so762-0001", "m", 6)
    assert [made.rows[i]["split"] for i in made.ids] == ["train", "train", "test"]
    assert made.json["published"][1] == "  by split: train 2,500 published, 2 found, test 2,500 published, 1 found"


def test_speechocean762_damaged(tree, run):
    speechocean(tree, "train", "0001", ["000010011", "000010035", "000010063"])
    speechocean(tree, "test", "0003", ["000030012"])
    (tree / "WAVE/SPEAKER0001/000010035.WAV").unlink()
    tree.text("train/text", "000010011 WE", "000010035 CALL", "000010063", "000019999 NOT IN WAV.SCP")
    made = run("speechocean762")
    assert made.ids == ["so762-000010011", "so762-000030012"]
    assert made.why() == {
        "so762-000010035": "missing audio", "so762-000010063": "empty transcript", "so762-000019999": "missing audio",
    }  # fmt: skip
