"""The commands, end to end on a tiny run: files, cache, report, joining, and words for what is wrong."""

import pandas as pd
import pytest
from factories import encoder_folder, tiny_run, tone, write_manifest, write_wav

from harmonifuse_core.routing import SCHEMA
from harmonifuse_core.runs import RunFolder, write_json
from probes import joined, run
from probes.report import report_html, shown
from probes.summary import summary

SPEAKERS, EACH = 6, 8
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    tiny_run(folder, "one")
    rows = []
    for i in range(SPEAKERS * EACH):
        speaker, mood = i // EACH, i % 2
        wave = tone(0.25 + 0.01 * (i % 5), (110 if mood else 220) * 1.03**speaker, seed=i)
        write_wav(folder / "wav" / f"{i}.wav", wave)
        row = {"id": f"u{i}", "audio_filepath": f"wav/{i}.wav", "duration": 0.3, "speaker": f"{EVIL}{speaker}"}
        row |= {"emotion": ["happy", "sad"][mood], "mark": EVIL if i % 3 else "plain"}
        rows.append(row | {"text": "one two" if i % 4 < 2 else "go home"})
    return folder, write_manifest(folder, rows)


@pytest.fixture(scope="module")
def result(home):
    folder, manifest = home
    code = run.main(
        ["--run", str(folder / "one"), "--manifest", str(manifest), "--targets", "emotion,pitch,mark", "--name", "try",
         "--folds", "3", "--inner-folds", "2", "--resamples", "50", "--probes", "linear", "--erase", "emotion",
         "--erase-layers", "1,all", "--erase-limit", "16", "--no-words", "--quiet"]
    )  # fmt: skip
    assert code == 0
    return RunFolder(folder / "one")


def table(stored: dict, name: str) -> pd.DataFrame:
    return pd.DataFrame(stored["tables"][name]["rows"])


def test_every_layer_stage_and_target_is_in_the_tables(result):
    stored = result.read_json("probes", "try.json")
    layers = table(stored, "layers")
    encoder = layers[layers["stage"] == "encoder"]
    assert sorted(encoder[encoder["target"] == "emotion"]["layer"]) == [0, 1, 2]
    assert set(zip(layers["stage"], layers["task"].fillna(""), strict=True)) == {
        ("encoder", ""), ("lm", "asr"), ("lm", "ser")
    }  # fmt: skip
    assert set(layers["target"]) == {"emotion", "pitch", "mark"}
    assert (layers["speakers"] == SPEAKERS).all() and stored["utterances"] == SPEAKERS * EACH
    baselines = table(stored, "baselines")
    assert set(baselines["features"]) == {"majority", "duration", "log-mel", "random encoder"}
    logmel = baselines[(baselines["features"] == "log-mel") & (baselines["target"] == "emotion")]
    assert logmel["score"].iloc[0] > 0.9  # the octave is in the mel bands
    assert stored["command"].startswith("python -m probes.run --run") and stored["seed"] == 0
    erasure = table(stored, "erasure")
    assert set(erasure["method"]) == {"intact", "leace", "random"} and set(erasure["task"].dropna()) == {"ser"}


def test_rows_hold_coordinates_and_out_of_fold_answers(result):
    rows = pd.read_parquet(result.part("probes", "try.parquet"))
    assert set(rows["stage"]) == {"encoder", "lm", "encoder_alpha", "lm_alpha"}
    assert rows[rows["stage"] == "encoder"].groupby("layer").size().tolist() == [SPEAKERS * EACH] * 3
    assert rows[["pca_1", "pca_2"]].notna().all().all() and rows["umap_1"].isna().all()
    own = rows[rows["stage"] == "encoder"]
    assert set(own["predicted_emotion"]) <= {"happy", "sad"} and own["target_emotion"].notna().all()
    assert rows[rows["stage"] == "lm_alpha"]["layer"].isna().all()


def test_the_page_stands_alone_and_runs_no_foreign_text(result):
    page = result.part("probes", "try.html").read_text()
    assert EVIL not in page and "&lt;script&gt;alert(1)" in page
    assert "<script src=" not in page and "Which layers hold what" in page
    assert shown({"a": 0.5, "a_low": 0.4, "a_high": 0.6}, "a") == "0.500 (0.400 to 0.600)"


def test_a_second_run_reads_no_audio(home, result, monkeypatch, capsys):
    folder, manifest = home
    monkeypatch.setattr("probes.features._attempt", lambda *_: pytest.fail("a recording was read again"))
    arguments = ["--run", str(folder / "one"), "--manifest", str(manifest), "--targets", "emotion", "--name", "again"]
    arguments += ["--folds", "3", "--inner-folds", "2", "--resamples", "50", "--probes", "linear", "--quiet"]
    assert run.main([*arguments, "--states", "encoder"]) == 0
    assert "* not distinguishable" in capsys.readouterr().out


def test_summary_and_report_bear_missing_tables():
    stored = {"name": "n", "question": "q", "model": "m", "utterances": 0, "speakers": 0, "caution": "", "tables": {},
              "verdicts": [], "seed": 0, "date": "d", "command": "c"}  # fmt: skip
    assert "n: q" in summary(stored) and "<h1>Probes: n</h1>" in report_html(stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--targets", "language"], "no utterance has it"),
        (["--states", "decoder"], "choose from encoder, lm"),
        (["--probes", "forest"], "choose from linear, mlp"),
        (["--folds", "1"], "give at least 2"),
        (["--name", "a/b"], "plain file name"),
        (["--speakers", f"{EVIL}1"], "1 speaker"),
        (["--output", "elsewhere"], "leave it out"),
        (["--erase", "emotion", "--erase-layers", "9"], "from 0 to 2"),
    ],
)
def test_what_is_wrong_is_said(home, result, change, words, capsys):
    folder, manifest = home
    arguments = ["--run", str(folder / "one"), "--manifest", str(manifest), "--probes", "linear", "--quiet"]
    assert run.main([*arguments, *change]) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_bare_encoder_needs_a_place_and_has_no_lm(home, capsys):
    _, manifest = home
    arguments = ["--encoder", str(encoder_folder("wavlm")), "--manifest", str(manifest)]
    assert run.main(arguments) == 2 and "--output FOLDER" in capsys.readouterr().err


def test_joining_names_what_is_missing_with_the_command(result, capsys):
    assert joined.main(["--run", str(result.path), "--probes", "try", "--pair", "asr=mark"]) == 1
    stored = result.read_json("probes", "joined.json")
    assert stored["parts"]["probe"]["available"] and not stored["parts"]["damage"]["available"]
    assert "harmonifuse_core.analyse" in stored["parts"]["damage"]["command"]
    assert {v["verdict"] for v in stored["verdicts"]} == {"not available"}
    assert "make it: python -m harmonifuse_core.evaluate" in capsys.readouterr().out


def test_joining_puts_probe_alpha_and_damage_of_a_layer_side_by_side(result):
    probe = {r["layer"]: r["score"] for r in result.read_json("probes", "try.json")["tables"]["layers"]["rows"]
             if (r["stage"], r["target"]) == ("encoder", "emotion")}  # fmt: skip
    order = sorted(probe, key=probe.get)
    alpha = [0.2, 0.3, 0.5]
    weights = [alpha[order.index(layer)] for layer in range(3)]  # alpha ranks the layers as the probe does
    rows = [
        {"utterance": f"u{i}", "task": "ser", "prompt": "p", "stage": "encoder", "prediction": "sad",
         "speaker": f"s{i % 4}", "truncated": False} | dict.fromkeys(("alpha", "bias", "score", "share"), weights)
        for i in range(8)
    ]  # fmt: skip
    result.part("routing").mkdir(exist_ok=True)
    pd.DataFrame(rows).reindex(columns=SCHEMA.names).to_parquet(result.part("routing", "try.parquet"), schema=SCHEMA)
    harm = [
        {"task": "ser", "stage": "encoder", "layer": layer, "removal": "zero", "weights": "renormalised",
         "loss_change": -weights[layer], "loss_change_low": None, "loss_change_high": None, "n": 8, "speakers": 4}
        for layer in range(3)
    ]  # fmt: skip
    write_json(result.part("analysis", "faithfulness.json"), {"tables": {"layers": {"definition": "", "rows": harm}}})
    assert joined.main(["--run", str(result.path), "--probes", "try", "--resamples", "50"]) == 0
    stored = result.read_json("probes", "joined.json")
    layers = table(stored, "layers")
    own = layers[(layers["stage"] == "encoder") & (layers["task"] == "ser") & (layers["layer"] == order[-1])]
    values = own.set_index("measure")["value"]
    assert values["alpha"] == pytest.approx(0.5) and values["damage"] == pytest.approx(-0.5)
    assert values["probe"] == pytest.approx(max(probe.values()), abs=1e-5)
    pairs = table(stored, "correlations")
    pair = pairs[(pairs["a"] == "alpha") & (pairs["b"] == "damage")]
    assert pair["rho"].tolist() == pytest.approx([-1])
    assert pairs["smallest_p"].iloc[0] == pytest.approx(2 / 6)
    verdict = next(v for v in stored["verdicts"] if v["about"] == "encoder / ser")
    assert verdict["verdict"] == "undecided"  # three layers cannot decide


def test_each_task_may_take_its_weights_from_another_evaluation(result, capsys):
    result.part("routing").mkdir(exist_ok=True)
    for name, task, alpha in (("words", "asr", [0.1, 0.2, 0.7]), ("words", "ser", [1.0, 0.0, 0.0]),
                              ("moods", "ser", [0.5, 0.25, 0.25])):  # fmt: skip
        row = {"utterance": task, "task": task, "prompt": "p", "stage": "encoder", "prediction": "", "truncated": False}
        row |= dict.fromkeys(("alpha", "bias", "score", "share"), alpha)
        path = result.part("routing", f"{name}.parquet")
        rows = ([*pd.read_parquet(path).to_dict("records")] if path.exists() else []) + [row]
        pd.DataFrame(rows).reindex(columns=SCHEMA.names).to_parquet(path, schema=SCHEMA)
    arguments = ["--run", str(result.path), "--probes", "try", "--resamples", "10"]
    joined.main([*arguments, "--routing", "asr=words,ser=moods"])
    stored = result.read_json("probes", "joined.json")
    layers = table(stored, "layers")
    alphas = layers[layers["measure"] == "alpha"].set_index(["task", "layer"])["value"]
    assert alphas["asr"].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert alphas["ser"].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert stored["parts"]["alpha"]["source"] == "words.parquet, moods.parquet"
    assert joined.main([*arguments, "--routing", "asr=words,moods"]) == 2
    assert "'moods' has no task" in capsys.readouterr().err
    assert joined.main([*arguments, "--routing", "nobody=words"]) == 2
    assert "no task 'nobody' to join" in capsys.readouterr().err


def test_joining_refuses_a_pair_without_a_task(result, capsys):
    assert joined.main(["--run", str(result.path), "--pair", "x=emotion"]) == 2
    assert "TASK=TARGET" in capsys.readouterr().err
