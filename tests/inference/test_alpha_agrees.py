"""The alpha that is stored of an utterance is the alpha that `infer` returns for its file, alone or among others."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import tiny_corpus, tiny_run

from harmonifuse_core import evaluate, infer
from harmonifuse_core.routing import read_routing
from harmonifuse_core.runs import RunFolder

ROOT = Path(__file__).resolve().parents[2]
RUN, CORPORA = ROOT / "runs" / "default", ROOT.parent / "shared" / "data"
SAME = 2e-6  # of weights that sum to 1: float32, in batches of other lengths
EACH = 20  # utterances of a corpus
KEYS = ["utterance", "task", "stage"]


def inferred(run: Path, files: list[Path], output: Path) -> pd.DataFrame:
    assert infer.main(["--run", str(run), *map(str, files), "--output", str(output)]) == 0
    return read_routing(output)


def compared(stored: pd.DataFrame, again: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Rows of `stored` beside those of infer, whose utterances bear the file's name. names: {that: utterance}."""
    again = again.assign(utterance=again["utterance"].map(names))[[*KEYS, "alpha", "prediction"]]
    both = stored.merge(again, on=KEYS, suffixes=("", "_again"), validate="one_to_one")
    far = [np.abs(np.subtract(a, b)).max() for a, b in zip(both["alpha"], both["alpha_again"], strict=True)]
    return both.assign(difference=far)


@pytest.mark.parametrize("lm_kind", ["whisper", "prefix"])
@pytest.mark.parametrize("beams", [1, 2])
def test_stored_alpha_is_that_of_the_file_alone(tmp_path, lm_kind, beams):
    run = tiny_run(tmp_path, lm_kind=lm_kind, model__beams=beams)
    manifest = tiny_corpus(tmp_path / "corpus")[0]
    assert evaluate.main(["--run", str(run.path), "--manifest", str(manifest), "--save", "tones"]) == 0
    stored = read_routing(run.part("routing", "tones.parquet"))
    files = sorted((tmp_path / "corpus" / "asr").glob("*.wav"))
    alone = [inferred(run.path, [file], tmp_path / f"{file.stem}.parquet") for file in files]
    both = compared(stored, pd.concat(alone), {file.stem: file.stem for file in files})
    assert len(both) == len(stored) == len(files) * 2 * 2  # tasks, stages
    assert (both["prediction"] == both["prediction_again"]).all()
    assert both["difference"].max() < SAME
    assert both[both["stage"] == "lm"]["alpha"].map(lambda a: a[0]).std() > 0  # they do differ between utterances


@pytest.mark.speech
@pytest.mark.skipif(not CORPORA.is_dir() or not RUN.is_dir(), reason=f"no corpora in {CORPORA}")
@pytest.mark.parametrize("name", ["ravdess-test", "speechocean762-test"])
def test_stored_alpha_of_the_published_run_is_that_of_infer(tmp_path, monkeypatch, name):
    """Fails too where the code decodes otherwise than when the routing was written: evaluate again, as make.sh does."""
    monkeypatch.chdir(ROOT)
    run = RunFolder(RUN)
    stored = read_routing(run.part("routing", f"{name}.parquet"))
    drawn = np.random.default_rng(0).choice(sorted(stored["utterance"].unique()), EACH, replace=False)
    stored = stored[stored["utterance"].isin(drawn)]
    audio = stored.drop_duplicates("utterance").set_index("utterance")["audio"]
    files = {utterance: CORPORA / path for utterance, path in audio.items()}
    again = inferred(RUN, list(files.values()), tmp_path / "again.parquet")
    both = compared(stored, again, {os.path.splitext(path.name)[0]: utterance for utterance, path in files.items()})
    assert len(both) == len(stored)
    off = both[both["difference"] >= SAME]
    shown = [
        f"{r.utterance} {r.task} {r.stage}: {r.prediction!r}, now {r.prediction_again!r}" for r in off.itertuples()
    ]
    assert not shown, f"{len(shown)} of {len(both)} weights differ: {shown}"


@pytest.mark.speech
@pytest.mark.skipif(not RUN.is_dir(), reason="no runs/default")
@pytest.mark.parametrize("analysis", ["divergence", "signatures"])
def test_alphas_of_analyses_are_those_of_the_routing(analysis):
    run = RunFolder(RUN)
    frame = pd.read_parquet(run.part("analysis", f"{analysis}.parquet"))
    shared = 0
    for name in run.names("routing", ".parquet"):
        stored = read_routing(run.part("routing", name))
        both = frame.merge(
            stored[[*KEYS, "alpha", "prompt", "prediction"]], on=[*KEYS, "prompt"], suffixes=("", "_stored")
        )
        shared += len(both)
        far = [np.abs(np.subtract(a, b)).max() for a, b in zip(both["alpha"], both["alpha_stored"], strict=True)]
        off = both[np.array(far, float) >= SAME]
        assert off.empty, f"{analysis}, {name}: {len(off)} of {len(both)}: {off['utterance'].tolist()[:5]}"
    assert shared > 100
