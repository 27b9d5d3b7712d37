"""IEMOCAP, RAVDESS, CREMA-D, EMO-DB, nEMO and MSP-Podcast: labels, speakers and what is wrong with a tree."""

import pytest

from harmonifuse_core.data.corpora import crema_d, emo_db, iemocap, msp_podcast, nemo, ravdess
from harmonifuse_core.data.corpora.entries import CorpusError
from harmonifuse_core.tasks import EMOTIONS


def iemocap_dialogue(tree, name: str, turns: dict[str, str], texts: dict[str, str] | None = None):
    """turns: `F000` -> label code."""
    session = f"Session{name[4]}"
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for turn, code in turns.items():
        lines += [f"[6.2901 - 8.2357]\t{name}_{turn}\t{code}\t[2.5000, 3.0000, 3.5000]", "C-E2:\tNeutral;\t()", ""]
    tree.text(f"{session}/dialog/EmoEvaluation/{name}.txt", *lines)
    tree.text(f"{session}/dialog/EmoEvaluation/._{name}.txt", "[macOS leaves these]")
    spoken = {turn: "Excuse me. [LAUGHTER]" for turn in turns} | (texts or {})
    tree.text(
        f"{session}/dialog/transcriptions/{name}.txt",
        *(f"{name}_{turn} [006.2901-008.2357]: {text}" for turn, text in spoken.items()),
    )
    tree.audio(*(f"{session}/sentences/wav/{name}/{name}_{turn}.wav" for turn in turns))


def test_iemocap_healthy(tree, run):
    codes = {"F000": "neu", "F001": "hap", "M000": "exc", "M001": "sad", "M002": "ang", "M003": "fru", "M004": "xxx"}
    iemocap_dialogue(tree, "Ses01F_impro01", codes)
    iemocap_dialogue(tree, "Ses04M_script01_1b", {"F000": "sad"})
    iemocap_dialogue(tree, "Ses05M_script02_2", {"M000": "neu"})
    made = run("iemocap")
    assert len(made.ids) == 7
    assert made.report.counts["emotion"] == {"neutral": 2, "happy": 2, "sad": 2, "angry": 1}
    row = made.rows["Ses01F_impro01_M000"]
    assert row["text"] == "Excuse me."
    assert (row["emotion"], row["style"], row["session"]) == ("happy", "improvised", "1")
    assert (row["speaker"], row["gender"]) == ("iemocap-1M", "m"), "Ses01F names the marker wearer, not the speaker"
    assert (row["valence"], row["activation"], row["dominance"]) == (2.5, 3.0, 3.5)
    splits = {name[3:5]: row["split"] for name, row in made.rows.items()}
    assert splits == {"01": "train", "04": "dev", "05": "test"}
    assert made.rows["Ses04M_script01_1b_F000"]["style"] == "scripted"
    assert made.json["left_out_by_choice"] == {
        "label fru, outside the four classes": 1, "label xxx, no agreement among the annotators": 1,
    }  # fmt: skip
    assert made.json["published"][0] == "published 5,531 (classes: four), found 7: 5,524 missing"
    every = run("iemocap", settings={"force": True}, classes="all", test_session=1, dev_session=0)
    assert every.rows["Ses01F_impro01_M000"]["emotion"] == "excited"
    assert every.rows["Ses01F_impro01_M003"]["emotion"] == "frustrated" and "Ses01F_impro01_M004" not in every.rows
    assert every.rows["Ses01F_impro01_M003"]["split"] == "test" and every.report.counts["split"]["train"] == 2
    with pytest.raises(CorpusError, match="take two different ones"):
        run("iemocap", settings={"force": True}, test_session=2, dev_session=2)


def test_iemocap_counts_are_those_of_the_literature():
    assert sum(iemocap.COUNTS["four"].values()) == 5_531
    assert sum(iemocap.COUNTS["all"].values()) == 10_039 - 2_507
    assert iemocap.COUNTS["four"]["happy"] == iemocap.COUNTS["all"]["happy"] + iemocap.COUNTS["all"]["excited"]


def test_iemocap_damaged(tree, run):
    turns = {"F000": "neu", "F001": "ang", "F002": "qqq", "F003": "", "M000": "sad", "M001": "sad", "M002": "hap"}
    iemocap_dialogue(tree, "Ses01F_impro01", turns, texts={"F000": "[BREATHING]"})
    folder = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01"
    listing = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    (tree / f"{folder}_F001.wav").unlink()
    tree.header_only(f"{folder}_M000.wav")
    tree.audio(f"{folder}_M001.wav", rate=8_000)
    tree.cut_off(f"{folder}_M002.wav")
    tree.audio(f"{folder}_M999.wav")
    again = [
        "[1.0 - 2.0]\tSes01F_impro01_F000\tang\t[1, 2, 3]",
        "[1.0 - 2.0] broken",
        "[1 - 2]\tnoname\tneu\t[1, 2, 3]",
    ]
    tree.text(listing, *(tree / listing).read_text().splitlines(), *again)
    made = run("iemocap")
    assert made.ids == ["Ses01F_impro01_F000", "Ses01F_impro01_M001", "Ses01F_impro01_M002"]
    assert made.rows["Ses01F_impro01_F000"]["emotion"] == "neutral", "the first of two lines counts"
    broken = next(name for name in made.why() if name.startswith(listing))
    assert made.why() == {
        "Ses01F_impro01_F001": "missing audio", "Ses01F_impro01_F002": "unknown label",
        "Ses01F_impro01_F003": "label absent", "Ses01F_impro01_F000": "duplicate id",
        "Ses01F_impro01_M000": "zero length", "Ses01F_impro01_M999": "label absent",
        broken: "damaged entry", "noname": "damaged entry",
    }  # fmt: skip
    assert "label 'qqq' is none of neu, hap, exc, sad, ang" in made.detail("Ses01F_impro01_F002")
    assert made.json["remarks"]["no transcript"]["ids"] == ["Ses01F_impro01_F000"]
    assert made.json["remarks"]["cut off"]["ids"] == ["Ses01F_impro01_M002"]
    assert made.json["sample_rates"]["8000"]["ids"] == ["Ses01F_impro01_M001"]
    strict = run("iemocap", settings={"force": True, "need_text": True})
    assert strict.ids == ["Ses01F_impro01_M001", "Ses01F_impro01_M002"]


def ravdess_names(actors):
    return [name for name in ravdess.EXPECTED if int(name[-2:]) in actors and name[6:8] in ("01", "05")]


def test_ravdess_names_all_that_is_missing_of_the_full_design(tree, run):
    names = ravdess_names(range(1, 7))
    tree.audio(*(f"Actor_{name[-2:]}/{name}.wav" for name in names), rate=48_000, seconds=0.05)
    made = run("ravdess")
    assert len(ravdess.EXPECTED) == 1_440 and len(made.ids) == len(names) == 6 * 12
    row = made.rows["ravdess-03-01-05-02-01-02-06"]
    assert (row["emotion"], row["intensity"], row["sentence"]) == ("angry", "strong", "01")
    assert (row["speaker"], row["gender"], row["text"]) == ("ravdess-06", "f", "kids are talking by the door")
    assert made.json["left_out"]["missing audio"]["count"] == 1_440 - len(names)
    assert made.json["published"][0] == f"published 1,440, found {len(names)}: {1_440 - len(names):,} missing"
    assert made.json["sample_rates"] == {"48000": {"count": len(names), "note": "rate 48000 Hz, will be resampled"}}
    by_split = {s: {r["speaker"] for r in made.rows.values() if r["split"] == s} for s in ("train", "dev", "test")}
    assert [len(by_split[s]) for s in ("train", "dev", "test")] == [4, 1, 1]
    assert made.json["speakers_in_several_splits"] == {}


def test_two_sentences_cannot_be_held_out(tree, run):
    tree.audio(*(f"Actor_01/{name}.wav" for name in ravdess_names([1, 2, 3])), seconds=0.05)
    with pytest.raises(CorpusError, match="also-disjoint sentence: 2 values cannot be divided into 3"):
        run("ravdess", settings={"also_disjoint": "sentence"})


def test_ravdess_damaged(tree, run):
    good, song, fresh, stray = "03-01-05-01-01-01-01", "03-02-05-01-01-01-01", "03-01-09-01-01-01-01", "03-01-05"
    tree.audio(*(f"Actor_01/{name}.wav" for name in (good, song, fresh, stray)))
    tree.audio(f"audio_speech_actors_01-24/Actor_01/{good}.wav")
    made = run("ravdess")
    assert made.ids == [f"ravdess-{good}"]
    why = {name: reason for name, reason in made.why().items() if reason != "missing audio"}
    assert why == {
        f"ravdess-{good}": "duplicate id", f"ravdess-{song}": "left out by choice",
        f"ravdess-{fresh}": "unknown label", f"ravdess-{stray}": "damaged entry",
    }  # fmt: skip
    assert "emotion '09'" in made.detail(f"ravdess-{fresh}")


def crema(tree, names):
    tree.text("VideoDemographics.csv", '"ActorID","Age","Sex","Race"', '1001,51,"Male","x"', '1002,21,"Female","x"')
    tree.text("SentenceFilenames.csv", '"Stimulus_Number","Filename"', *(f'{i},"{n}"' for i, n in enumerate(names)))


def test_crema_d_healthy(tree, run):
    names = ["1001_DFA_ANG_XX", "1002_IEO_HAP_HI", "1040_ITH_SAD_X"]
    crema(tree, names)
    tree.audio("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_HAP_HI.wav", "AudioWAV/1040_ITH_SAD_XX.wav")
    made = run("crema_d")
    assert made.ids == ["crema-1001_DFA_ANG_XX", "crema-1002_IEO_HAP_HI", "crema-1040_ITH_SAD_XX"]
    row = made.rows["crema-1002_IEO_HAP_HI"]
    assert (row["emotion"], row["intensity"], row["sentence"], row["text"]) == (
        "happy",
        "high",
        "IEO",
        "it's eleven o'clock",
    )
    assert (row["speaker"], row["gender"], row["age"]) == ("crema-1002", "f", 21)
    assert "intensity" not in made.rows["crema-1001_DFA_ANG_XX"]
    assert made.why() == {}
    assert made.json["published"][0] == "published 7,442, found 3: 7,439 missing"


def test_crema_d_damaged(tree, run):
    names = ["1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1001_MTI_SAD_XX", "1001_TSI_FEA_XX"]
    crema(tree, names)
    tree.audio("AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_JOY_XX.wav", "AudioWAV/1001_QQQ_ANG_XX.wav")
    tree.audio("AudioWAV/copy/1001_DFA_ANG_XX.wav", "AudioWAV/readme.wav")
    tree.header_only("AudioWAV/1001_MTI_SAD_XX.wav")
    tree.audio("AudioWAV/1001_WSI_NEU_XX.wav", rate=8_000)
    tree.text("AudioWAV/1001_TSI_FEA_XX.wav", "version https://git-lfs.github.com/spec/v1", "oid sha256:00", "size 7")
    made = run("crema_d")
    assert made.ids == ["crema-1001_DFA_ANG_XX", "crema-1001_WSI_NEU_XX"]
    assert made.why() == {
        "crema-1001_IEO_HAP_HI": "missing audio", "crema-1001_DFA_JOY_XX": "unknown label",
        "crema-1001_QQQ_ANG_XX": "unknown label", "crema-1001_DFA_ANG_XX": "duplicate id",
        "crema-readme": "damaged entry", "crema-1001_MTI_SAD_XX": "zero length",
        "crema-1001_TSI_FEA_XX": "unreadable audio",
    }  # fmt: skip
    assert "git lfs pull" in made.detail("crema-1001_TSI_FEA_XX")
    assert made.json["sample_rates"]["8000"]["ids"] == ["crema-1001_WSI_NEU_XX"]


def test_emo_db(tree, run):
    tree.audio(
        "wav/03a01Fa.wav", "wav/08b02Wb.wav", "wav/16a07La.wav", "wav/03a01Qa.wav", "wav/99a01Fa.wav", "wav/x.wav"
    )
    tree.header_only("wav/10a02Na.wav")
    made = run("emo_db", settings={"splits": "none"})
    assert {name: row["emotion"] for name, row in made.rows.items()} == {
        "emodb-03a01Fa": "happy", "emodb-08b02Wb": "angry", "emodb-16a07La": "bored",
    }  # fmt: skip
    row = made.rows["emodb-03a01Fa"]
    assert (row["text"], row["gender"], row["age"]) == ("Der Lappen liegt auf dem Eisschrank.", "m", 31)
    assert row["split"] == "all" and row["language"] == "de"
    assert made.why() == {
        "emodb-03a01Qa": "unknown label", "emodb-99a01Fa": "unknown label", "emodb-x": "damaged entry",
        "emodb-10a02Na": "zero length",
    }  # fmt: skip
    assert made.json["published"][0] == "published 535, found 3: 532 missing"
    assert "bored 81 published, 1 found" in made.json["published"][1]


def nemo_line(name: str, emotion: str | None = None, text: str = "„ród smoka” to serial") -> str:
    speaker, code, _ = name.split("_")
    return f"{name}.wav\t{emotion or code}\t{text.title()}\t{text}\t        {speaker}\tmale\t23"


NEMO_HEADER = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"


def test_nemo_healthy_and_held_out_by_speaker_and_sentence(tree, run):
    names = [f"{speaker}_anger_{sentence}" for speaker in ("WR0", "EB0", "KS0", "MP0") for sentence in range(1, 6)]
    tree.text("data.tsv", NEMO_HEADER, *map(nemo_line, names))
    tree.audio(*(f"samples/{name}.wav" for name in names), rate=24_000, seconds=0.05)
    made = run("nemo", settings={"also_disjoint": "sentence"})
    row = made.rows["nemo-WR0_anger_1"]
    assert (row["emotion"], row["speaker"], row["gender"], row["age"]) == ("angry", "nemo-WR0", "m", 23)
    assert row["sentence"] == "1" and row["text"] == "„ród smoka” to serial" and row["language"] == "pl"
    for field in ("speaker", "sentence"):
        kept = {s: {r[field] for r in made.rows.values() if r["split"] == s} for s in ("train", "dev", "test")}
        assert all(kept.values())
        assert not kept["train"] & kept["test"] and not kept["train"] & kept["dev"] and not kept["dev"] & kept["test"]
    assert made.report.counts["split"] == {"train": 6, "dev": 1, "test": 1, "unused": 12}
    assert len(made.ids) == 20 and "unused" in made.json["notices"][0]


def test_nemo_damaged(tree, run):
    names = ["WR0_anger_1", "WR0_fear_2", "WR0_sadness_3", "WR0_neutral_4"]
    lines = [
        nemo_line(names[0]),
        nemo_line(names[1]),
        nemo_line(names[2], emotion="rage"),
        nemo_line(names[3], text=""),
    ]
    tree.text("nEMO/data.tsv", NEMO_HEADER, *lines, nemo_line(names[0]))
    tree.audio(*(f"nEMO/samples/{name}.wav" for name in names if name != "WR0_fear_2"), rate=24_000)
    made = run("nemo")
    assert made.ids == ["nemo-WR0_anger_1"]
    assert made.why() == {
        "nemo-WR0_fear_2": "missing audio", "nemo-WR0_sadness_3": "unknown label",
        "nemo-WR0_neutral_4": "empty transcript", "nemo-WR0_anger_1": "duplicate id",
    }  # fmt: skip
    assert "1 speakers cannot be divided" in made.json["notices"][0] and made.report.counts["split"] == {"train": 1}


def test_msp_podcast(tree, run):
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
    rows = [
        "MSP_1.wav,N,2.2,4.0,2.6,30,Male,Test1", "MSP_2.wav,A,5,2,5,30,Male,Test2",
        "MSP_3.wav,C,5,2,5,Unknown,Unknown,Train",
        "MSP_4.wav,X,5,2,5,7,Female,Train", "MSP_5.wav,Q,5,2,5,7,Female,Train", "MSP_6.wav,,5,2,5,7,Female,Train",
        "MSP_7.wav,H,5,2,5,7,Female,Mars", "MSP_8.wav,H,5,2,5,7,Female,Development",
        "MSP_1.wav,N,2.2,4.0,2.6,30,Male,Test1",
        "/etc/passwd,H,5,2,5,7,Female,Train",
    ]  # fmt: skip
    tree.text("readme.txt", "#  Release 1.11 (October 1, 2023)  #")
    tree.text("Labels/labels_consensus.csv", header, *rows)
    tree.text("Transcripts/MSP_1.txt", "well  yes")
    tree.audio(*(f"Audios/MSP_{n}.wav" for n in (1, 2, 3, 5, 6, 7)))
    made = run("msp_podcast")
    assert {name: (r["emotion"], r["split"]) for name, r in made.rows.items()} == {
        "MSP_1": ("neutral", "test1"), "MSP_2": ("angry", "test2"), "MSP_3": ("contempt", "train"),
    }  # fmt: skip
    row = made.rows["MSP_1"]
    assert (row["text"], row["speaker"], row["gender"]) == ("well yes", "msp-30", "m")
    assert (row["activation"], row["valence"], row["dominance"]) == (2.2, 4.0, 2.6)
    assert "speaker" not in made.rows["MSP_3"] and "gender" not in made.rows["MSP_3"]
    assert made.why() == {
        "MSP_4": "left out by choice", "MSP_5": "unknown label", "MSP_6": "label absent", "MSP_7": "unknown label",
        "MSP_8": "missing audio", "MSP_1": "duplicate id", "/etc/passwd": "path outside the raw folder",
    }  # fmt: skip
    assert made.json["speakers_in_several_splits"] == {"msp-30": ["test1", "test2"]}
    assert made.json["published"][0].startswith(
        "published 149,307 (release 1.11 without Test3), found 4 (1 of them left out"
    )
    tree.text("readme.txt", "no word of it")
    unknown = run("msp_podcast", settings={"force": True})
    assert unknown.json["published"] == ["published count: not available (no readme.txt states the release)"]


def test_emotions_have_the_names_of_the_model_or_are_said_to_be_others():
    others = {"bored", "contempt", "excited", "frustrated", "other"}
    maps = (
        iemocap.EVERY,
        iemocap.FOUR,
        ravdess.EMOTIONS,
        crema_d.EMOTIONS,
        emo_db.EMOTIONS,
        nemo.EMOTIONS,
        msp_podcast.EMOTIONS,
    )
    assert {name for classes in maps for name in classes.values()} <= set(EMOTIONS) | others


def test_published_parts_add_up():
    for module, total in ((crema_d, 7_442), (emo_db, 535), (nemo, 4_481), (ravdess, 1_440)):
        assert module.CORPUS.published.total == total == sum(module.CORPUS.published.parts.values())
