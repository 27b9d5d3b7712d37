"""Each failure planted in a routing table is found, and a healthy table shows none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factories import tiny_config, tiny_run, tone

from harmonifuse_core.analysis.material import Spoken, encode_batch
from harmonifuse_core.analysis.registry import AnalysisOptions, Context, analyses
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, save_result
from harmonifuse_core.analysis.signature import AgainstBaseline
from harmonifuse_core.analysis.signatures import ANALYSIS, signatures_of
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.runs import load

LABELS = ("neutral", "happy", "sad", "angry")
N, L1 = 60, 5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def table(bias=(0.0, 0.4, 0.8, 0.2, -0.4), moves=0.5, task="ser", stage="lm", predictions=None, seed=0) -> pd.DataFrame:
    """N utterances whose logits are `bias` plus noise of the size `moves`, as routing logs them."""
    rng = np.random.default_rng(seed)
    bias = np.tile(np.asarray(bias, np.float64), (N, 1))
    score = moves * rng.normal(size=(N, L1))
    alpha = softmax(bias + score)
    reference = [LABELS[i % 4] for i in range(N)]
    return pd.DataFrame(
        {
            "utterance": [f"u{i}" for i in range(N)], "speaker": [f"s{i // 6}" for i in range(N)], "task": task,
            "stage": stage, "prompt": "p", "alpha": list(alpha.astype(np.float32)), "bias": list(bias),
            "score": list(score), "share": list(alpha), "reference": reference, "errors": None,
            "prediction": predictions or [LABELS[(i + i % 3) % 4] for i in range(N)],
        }
    )  # fmt: skip


def found(frame, config=None, **options) -> dict[str, str]:
    return {s.name: s.status for s in signatures_of(frame, config, **options)}


def named(frame, name, config=None, **options):
    return next(s for s in signatures_of(frame, config, **options) if s.name == name)


def test_a_healthy_table_shows_nothing():
    assert {k for k, v in found(table()).items() if v == "found"} == set()


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("uniform alpha", {"bias": [0.0] * 5, "moves": 0.02}),
        ("collapsed alpha", {"bias": [0, 0, 0, 9, 0], "moves": 0.5}),
        ("constant alpha", {"moves": 0.0}),
        ("constant alpha", {"moves": 1e-4}),
        ("drowned bias", {"bias": [0, 0.01, 0, 0.01, 0], "moves": 2.0}),
        ("drowned FFN", {"bias": [0, 3, 1, 0, 0], "moves": 0.02}),
        ("SER collapse", {"predictions": ["neutral"] * N}),
        ("SER collapse", {"predictions": ["neutral", "happy"] * (N // 2)}),
    ],
)
def test_a_planted_failure_is_found(name, planted):
    signature = named(table(**planted), name)
    assert signature.status == "found" and not signature.by_design
    assert signature.advice and any(c.isdigit() for c in signature.evidence) and signature.n == N
    assert found(table())[name] == "not found"


def test_uniform_is_not_collapsed_and_a_still_one_is_not_uniform():
    assert found(table(bias=[0.0] * 5, moves=0.02))["collapsed alpha"] == "not found"
    assert found(table(moves=0.0))["uniform alpha"] == "not found"


def test_what_the_config_asks_for_is_called_by_design():
    frame = pd.concat([table(moves=0.0, stage="encoder"), table(moves=0.0)])
    config = tiny_config(model__lm__fusion="bias").model
    by = {(s.name, s.about): s for s in signatures_of(frame, config)}
    assert by["constant alpha", "encoder / ser"].by_design and by["constant alpha", "lm / ser"].by_design
    assert "lm.fusion" in by["constant alpha", "lm / ser"].evidence
    adaptive = {(s.name, s.about): s for s in signatures_of(frame, tiny_config().model)}
    assert adaptive["constant alpha", "lm / ser"].status == "found"
    assert not adaptive["constant alpha", "lm / ser"].by_design
    assert adaptive["constant alpha", "encoder / ser"].by_design


def test_a_corpus_of_two_classes_is_no_collapse():
    frame = table()
    frame["reference"] = frame["prediction"] = ["neutral", "happy"] * (N // 2)
    assert found(frame)["SER collapse"] == "not found"


def test_collapse_without_references_or_with_few_answers():
    frame = table(predictions=["sad"] * N)
    assert found(frame.assign(reference=None))["SER collapse"] == "found"
    assert found(frame[:10])["SER collapse"] == "not available"


def test_text_is_no_class():
    frame = table(task="asr", predictions=[f"word {i}" for i in range(N)])
    assert not [n for n in found(frame) if "collapse" in n and "alpha" not in n]
    same = table(task="asr", predictions=["thank you"] * N)  # the config knows better than the table
    assert "class collapse" not in found(same, tiny_config().model)
    assert "class collapse" not in found(same.assign(errors=2))


def test_one_utterance_has_nothing_to_vary():
    assert found(table()[:1])["constant alpha"] == "not available"


def test_an_ignored_prompt_comes_from_the_crossing():
    assert named(table(), "ignored prompt").status == "not available"
    rows = ({"task": "ser", "kind": "empty", "same_text_jsd": 1e-5, "n": 7},)
    crossing = AnalysisResult(
        "prompts", "?", (Table("crossing", "d", rows),), (Verdict("lm / ser", "prompt ignored", "e"),)
    )
    signature = named(table(), "ignored prompt", prompts=crossing)
    assert (signature.status, signature.value, signature.n) == ("found", 1e-5, 7)


def test_imbalance_is_one_task_that_pays_for_another():
    def baselines(asr, ser):
        return (AgainstBaseline("asr", "WER", *asr), AgainstBaseline("ser", "UA", *ser))

    worse, same, better = (0.05, 0.02, 0.08), (0.0, -0.02, 0.02), (-0.05, -0.08, -0.02)
    assert named(table(), "imbalance").status == "not available"
    found_pairs, clear = ((worse, same), (better, worse)), ((same, same), (worse, worse))
    for pair, status in (*((p, "found") for p in found_pairs), *((p, "not found") for p in clear)):
        assert named(table(), "imbalance", baselines=baselines(*pair)).status == status, pair


def test_found_ones_stand_first():
    order = [s.status for s in signatures_of(table(moves=0.0))]
    assert order == sorted(order, key=("found", "not found", "not available").index)


def test_as_an_analysis_it_reads_the_crossing_of_its_run(tmp_path):
    run = tiny_run(tmp_path, model__lm__fusion="bias")
    model = load(run)
    rows = ({"task": "ser", "kind": "empty", "same_text_jsd": 0.0, "n": 7},)
    verdict = Verdict("lm / ser", "prompt ignored", "e")
    crossing = AnalysisResult("prompts", "?", (Table("crossing", "d", rows),), (verdict,), 7, 3)
    save_result(run, crossing, pd.DataFrame({"utterance": ["u"]}), {})
    items = [Spoken(Source(Utterance(f"u{i}", Path(f"u{i}.wav")), f"u{i}.wav"), {"ser": "sad"}, {}) for i in range(3)]
    with torch.inference_mode():
        batch = encode_batch(model, items, [tone(0.5 + 0.1 * i, 150 + 50 * i) for i in range(3)])
        collected = pd.DataFrame(ANALYSIS.collect(model, batch, AnalysisOptions()))
    result = ANALYSIS.summarise(collected, Context(model, run, resamples=20))
    words = {v.about: v.verdict for v in result.verdicts}
    assert words["ignored prompt / lm / ser"] == "found" and words["ignored prompt / lm / asr"] == "not available"
    assert words["constant alpha / lm / ser"] == "found, by design" and result.utterances == 3
    assert result.as_dict()["tables"]["signatures"]["rows"][0]["speakers"] == 3
    assert analyses(["signatures"]) == [ANALYSIS]
