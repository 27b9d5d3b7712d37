"""The runner: paths that escape, files that exist, audio that is not there, splits, and the command line."""

import json
import os
import stat

import numpy as np
import pytest
import soundfile as sf

from harmonifuse_core import prepare as command
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.corpora.checking import Checker
from harmonifuse_core.data.corpora.entries import CorpusError, Reason
from harmonifuse_core.data.corpora.probing import UnusableAudio, probe
from harmonifuse_core.data.corpora.registry import CORPORA
from harmonifuse_core.data.corpora.splitting import divide
from harmonifuse_core.data.corpora.writing import Settings, prepare
from harmonifuse_core.data.manifest import read_manifest


def emo_db(tree, speakers=("03", "08", "09", "10", "11"), letters="WLF"):
    tree.audio(*(f"wav/{speaker}a01{letter}a.wav" for speaker in speakers for letter in letters))


def test_paths_that_leave_the_raw_folder_are_named(tree, run, tmp_path):
    emo_db(tree)
    tree.audio("../private/16a01Wa.wav", "wav/real.dat.wav")
    os.symlink(tmp_path / "private/16a01Wa.wav", tree / "wav/16a01Wa.wav")
    os.symlink(tmp_path / "private", tree / "linked")
    os.symlink("real.dat.wav", tree / "wav/15a01Wa.wav")
    os.symlink("nowhere.wav", tree / "wav/14a01Wa.wav")
    os.symlink("13a01Wa.wav", tree / "wav/13a01Wa.wav")
    made = run("emo_db")
    why = made.why()
    assert why["emodb-16a01Wa"] == "path outside the raw folder"
    assert why["emodb-14a01Wa"] == "missing audio"
    assert why["emodb-13a01Wa"] == "unreadable audio", "a link to itself"
    assert "emodb-15a01Wa" in made.ids, "a link inside the folder is fine"
    linked = tmp_path / "alias"
    os.symlink(tree.root, linked)
    assert run("emo_db", raw=linked, settings={"force": True}).ids == made.ids, "the raw folder itself may be a link"


def test_a_list_that_is_a_link_out_is_not_read(tree, run, tmp_path):
    tree.audio("a.wav")
    tree.text("wav.scp", "u1 a.wav")
    (tmp_path / "secret").write_text("u1 PASSWORD\n")
    os.symlink(tmp_path / "secret", tree / "text")
    with pytest.raises(CorpusError, match="path outside the raw folder") as error:
        run("kaldi")
    assert "PASSWORD" not in str(error.value)


def test_manifest_in_a_linked_folder_still_finds_its_audio(tree, tmp_path):
    emo_db(tree)
    (tmp_path / "deep/er").mkdir(parents=True)
    os.symlink(tmp_path / "deep/er", tmp_path / "short")
    prepare(CORPORA["emo_db"], tree.root, tmp_path / "short/m.jsonl")
    assert all(u.audio.is_file() for u in read_manifest(tmp_path / "short/m.jsonl"))


def test_existing_manifest_is_kept_without_force_and_on_failure(tree, run):
    emo_db(tree)
    made = run("emo_db")
    before = made.out.read_bytes()
    with pytest.raises(CorpusError, match="exists already.*--force"):
        run("emo_db")
    for path in (tree / "wav").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="no manifest was written; zero length: 15 .first: emodb-03a01Fa"):
        run("emo_db", settings={"force": True})
    assert made.out.read_bytes() == before
    assert not list(made.out.parent.glob(".*"))


@pytest.mark.parametrize(
    ("raw", "out", "message"),
    [
        ("absent", "m.jsonl", "does not exist"),
        ("raw", "m.json", "must be named .jsonl"),
        ("raw", "m.jsonl", "nothing of EMO-DB was found.*wav/"),
    ],
)
def test_requests_that_cannot_work_say_why(tree, tmp_path, raw, out, message):
    with pytest.raises(CorpusError, match=message):
        prepare(CORPORA["emo_db"], tmp_path / raw, tmp_path / out)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize("name", CORPORA)
def test_an_empty_folder_is_told_the_layout(tree, tmp_path, name):
    with pytest.raises(CorpusError, match="must hold"):
        prepare(CORPORA[name], tree.root, tmp_path / "m.jsonl")


def test_probe_tells_length_and_rate_of_every_format_without_decoding(tree, monkeypatch):
    monkeypatch.setattr("harmonifuse_core.data.corpora.probing.decode_waveform", None)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"):
        tree.audio(name, rate=24_000, seconds=0.5)
        header = probe(tree / name)
        assert (header.rate, header.share) == (24_000, 1.0)
        assert header.seconds == pytest.approx(0.5, abs=0.08)


def test_probe_agrees_with_the_decoder(tree):
    for name, rate in (("a.wav", 8_000), ("b.flac", 48_000), ("c.ogg", 16_000), ("d.mp3", 44_100)):
        tree.audio(name, rate=rate, seconds=0.7)
        assert probe(tree / name).seconds == pytest.approx(len(decode_waveform(tree / name)) / 16_000, abs=0.06)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.ZERO_LENGTH),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", Reason.UNREADABLE),
        (b"%PDF-1.4 not a sound", Reason.UNREADABLE),
        (b"\xff\xfb\x90\x00" + bytes(20), Reason.UNREADABLE),
        (b"version https://git-lfs.github.com/spec/v1\n", Reason.UNREADABLE),
    ],
)
def test_probe_refuses(tree, content, reason):
    tree.bytes("x.wav", content)
    with pytest.raises(UnusableAudio) as error:
        probe(tree / "x.wav")
    assert error.value.reason is reason


def test_probe_refuses_folders_pipes_and_rates(tree):
    (tree / "folder.wav").mkdir()
    os.mkfifo(tree / "pipe.wav")
    sf.write(tree / "slow.wav", np.zeros(500), 1_000)
    for name, reason in (
        ("folder.wav", Reason.UNREADABLE), ("pipe.wav", Reason.UNREADABLE), ("slow.wav", Reason.RATE),
        ("none.wav", Reason.MISSING), ("slow.wav/x.wav", Reason.MISSING), ("n" * 300 + ".wav", Reason.UNREADABLE),
    ):  # fmt: skip
        with pytest.raises(UnusableAudio) as error:
            probe(tree / name)
        assert error.value.reason is reason, name


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_rights_is_named(tree, run):
    emo_db(tree)
    (tree / "wav/03a01Wa.wav").chmod(0)
    assert run("emo_db").why() == {"emodb-03a01Wa": "unreadable audio"}


def test_names_that_are_not_utf8_do_not_stop_the_rest(tree, run):
    emo_db(tree)
    tree.audio("wav/x.wav")
    os.rename(tree / "wav/x.wav", os.fsencode(tree / "wav") + b"/16a01W\xff.wav")
    made = run("emo_db")
    assert len(made.ids) == 15 and list(made.why().values()) == ["damaged entry"]
    assert all(line.isprintable() for line in made.report.lines())


@pytest.mark.parametrize("seed", range(6))
def test_divided_speakers_are_disjoint_complete_and_balanced(seed):
    rng = np.random.default_rng(seed)
    speakers = {f"s{i}": "f" if i % 2 else "m" for i in range(int(rng.integers(10, 60)))}
    splits = divide(speakers, 0.2, 0.2, seed)
    shuffled = dict(sorted(speakers.items(), key=lambda item: rng.random()))
    assert divide(shuffled, 0.2, 0.2, seed) == splits, "the order of the speakers does not matter"
    assert divide(speakers, 0.2, 0.2, seed + 1) != splits
    assert splits.keys() == speakers.keys()
    for split in ("dev", "test"):
        members = [speaker for speaker, where in splits.items() if where == split]
        assert len(members) == round(0.2 * len(speakers))
        women = sum(speakers[m] == "f" for m in members)
        assert abs(women - len(members) / 2) <= 1


@pytest.mark.parametrize("count", range(3, 8))
def test_every_split_has_a_speaker_even_when_there_are_few(count):
    splits = divide({str(i): "" for i in range(count)}, 0.4, 0.5, 0)
    assert set(splits.values()) == {"train", "dev", "test"}


def test_too_few_speakers_are_all_train():
    assert divide({"a": "", "b": ""}, 0.1, 0.1, 0) == {"a": "train", "b": "train"}
    assert set(divide({"a": "", "b": ""}, 0.1, 0.0, 0).values()) == {"train", "dev"}


def test_split_seed_and_official_splits(tree, run):
    emo_db(tree, speakers=("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"))
    first = run("emo_db")
    again = run("emo_db", settings={"force": True})
    other = run("emo_db", settings={"force": True, "split_seed": 1})
    assert again.rows == first.rows and other.rows != first.rows
    assert first.report.counts["split"] == {"train": 24, "dev": 3, "test": 3}
    assert first.json["speakers"] == {"total": 10, "by_split": {"dev": 1, "test": 1, "train": 8}}
    uneven = run("emo_db", settings={"force": True, "dev_share": 0.0, "test_share": 0.5})
    assert uneven.report.counts["split"] == {"train": 15, "test": 15}
    with pytest.raises(CorpusError, match="together below 1"):
        Settings(dev_share=0.5, test_share=0.5)


def test_dev_comes_out_of_an_official_train_set(tree, run):
    for split, numbers in (("train", range(10)), ("test", range(10, 12))):
        tree.audio(*(f"{n}.wav" for n in numbers))
        tree.text(f"{split}/wav.scp", *(f"u{n} {n}.wav" for n in numbers))
        tree.text(f"{split}/utt2spk", *(f"u{n} s{n}" for n in numbers))
    plain = run("kaldi")
    assert plain.report.counts["split"] == {"train": 10, "test": 2}
    carved = run("kaldi", settings={"force": True, "dev_share": 0.2})
    assert carved.report.counts["split"] == {"train": 8, "dev": 2, "test": 2}
    assert {i for i in carved.ids if carved.rows[i]["split"] == "test"} == {"u10", "u11"}
    (tree / "train").rename(tree / "dev")
    with pytest.raises(CorpusError, match="official dev split"):
        run("kaldi", settings={"force": True, "dev_share": 0.2})


def test_utterances_without_speaker_are_said_to_be_in_train(tree, run):
    tree.audio(*(f"{n}.wav" for n in range(6)))
    tree.text("wav.scp", *(f"u{n} {n}.wav" for n in range(6)))
    tree.text("utt2spk", *(f"u{n} s{n}" for n in range(5)))
    made = run("kaldi", settings={"splits": "speaker"})
    assert made.rows["u5"]["split"] == "train" and made.report.counts["split"]["test"] == 1
    assert made.json["remarks"]["no speaker"]["ids"] == ["u5"] and "not known" in made.json["notices"][0]


def test_audio_folder_of_somebody_else_is_not_written_into(tree, run, tmp_path):
    tree.audio("long.wav", seconds=1.0)
    tree.text("wav.scp", "r long.wav")
    tree.text("segments", "u1 r 0.2 0.6")
    mine = tmp_path / "made/kaldi.audio/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    with pytest.raises(CorpusError, match="not empty"):
        run("kaldi", settings={"cut": True})
    assert [p.name for p in mine.parent.iterdir()] == ["mine.txt"]


def test_a_recording_is_decoded_once_for_all_its_parts(tree, run, monkeypatch):
    tree.audio("long.wav", seconds=1.0)
    tree.text("wav.scp", "r long.wav")
    tree.text("segments", *(f"u{n} r {n / 10} {n / 10 + 0.2}" for n in range(1, 6)))
    calls = []
    monkeypatch.setattr(
        "harmonifuse_core.data.corpora.checking.decode_waveform",
        lambda path: calls.append(path) or decode_waveform(path),
    )
    assert len(run("kaldi", settings={"cut": True}).ids) == 5 and len(calls) == 1


def test_a_killed_run_leaves_no_manifest(tree, tmp_path, monkeypatch):
    emo_db(tree)

    def killed(self, entry):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checker, "row", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(CORPORA["emo_db"], tree.root, tmp_path / "made/m.jsonl")
    assert list((tmp_path / "made").iterdir()) == []


def test_command_writes_and_tells(tree, tmp_path, capsys):
    emo_db(tree)
    tree.header_only("wav/16a01Wa.wav")
    out = tmp_path / "m.jsonl"
    arguments = ["emo_db", str(tree.root), str(out), "--split-seed", "3"]
    assert command.main(arguments) == 0
    told = capsys.readouterr().out
    assert "EMO-DB: 15 utterances" in told and "speakers: 5 (dev 1, test 1, train 3)" in told
    assert "published 535, found 15: 520 missing" in told
    assert "left out, zero length: 1\n    emodb-16a01Wa (wav/16a01Wa.wav: a header without samples)" in told
    assert json.loads((tmp_path / "m.report.json").read_text())["request"]["split_seed"] == 3
    assert stat.S_IMODE(out.stat().st_mode) & 0o444
    assert command.main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert command.main([*arguments, "--force"]) == 0


def test_command_lists_corpora_and_keeps_the_teacher(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--list"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(name in told for name in CORPORA) and "5,531" in told and "CC BY-NC-SA 4.0" in told
    options = command.parser().parse_args(["teacher", "--whisper", "w", "--manifest", "m", "--output", "o"])
    assert (options.command, options.beams, options.split) == ("teacher", 1, "")


def test_command_reads_options_of_one_corpus(tree, tmp_path, capsys):
    names = ["LibriSpeech/test-clean/1/2/1-2", "LibriSpeech/dev-clean/3/4/3-4"]
    for name in names:
        tree.text(f"{name}.trans.txt", f"{name[-3:]}-0000 WORDS")
        tree.audio(f"{name}-0000.flac")
    out = tmp_path / "m.jsonl"
    assert command.main(["librispeech", str(tree.root), str(out), "--subsets", "dev-clean, test-other"]) == 0
    assert [u.id for u in read_manifest(out)] == ["libri-3-4-0000"]
    capsys.readouterr()
    assert command.main(["librispeech", str(tree.root), str(out), "--force", "--subsets", "dev"]) == 1
    assert "'dev' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_has_help_with_its_layout(name, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    assert "--split-seed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["EMO-DB", "emo_db", "EmoDB", "emo-db"])
def test_a_corpus_may_be_spelled_as_its_authors_do(tree, tmp_path, name):
    emo_db(tree)
    assert command.main([name, str(tree.root), str(tmp_path / "out.jsonl")]) == 0
    assert len(read_manifest(tmp_path / "out.jsonl")) == 15


def test_an_unknown_corpus_is_refused_with_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["emo-dc", str(tmp_path), str(tmp_path / "out.jsonl")])
    assert "emo_db" in capsys.readouterr().err
