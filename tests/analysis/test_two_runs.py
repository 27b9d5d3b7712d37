"""Two runs side by side: exact differences by hand, pairs by utterance, and weights that moved by a known amount."""

import numpy as np
import pandas as pd
import pytest
from factories import tiny_run
from safetensors.numpy import load_file, save_file

from harmonifuse_core.analysis.two_runs import compare_runs, group_of, moved_weights
from harmonifuse_core.routing import RoutingError
from harmonifuse_core.runs import RunError, RunFolder


def routing(errors, answers, first_alpha=0.25, layers=2, skip=()) -> pd.DataFrame:
    """Text and class rows of utterances `u0`, `u1`, ... of two speakers; 10 reference words each."""
    rows = []
    for i, (count, answer) in enumerate(zip(errors, answers, strict=True)):
        if i in skip:
            continue
        for stage in ("encoder", "lm"):
            alpha = np.array([first_alpha, *[(1 - first_alpha) / (layers - 1)] * (layers - 1)], np.float32)
            common = {"utterance": f"u{i}", "speaker": f"s{i % 2}", "stage": stage, "alpha": alpha, "share": alpha}
            rows.append(common | {"task": "asr", "reference": "a b", "prediction": f"{count}", "errors": count,
                                  "reference_words": 10})  # fmt: skip
            rows.append(common | {"task": "ser", "reference": "sad" if i < 2 else "calm", "prediction": answer,
                                  "errors": None, "reference_words": None})  # fmt: skip
    return pd.DataFrame(rows)


A = routing([1, 2, 3, 4], ["sad", "calm", "calm", "calm"])


def row(result, table, **wanted):
    return next(r for r in result.table(table).rows if all(r[k] == v for k, v in wanted.items()))


def test_scores_are_b_minus_a_on_the_same_utterances():
    result = compare_runs(A, routing([0, 0, 1, 1], ["sad", "sad", "calm", "sad"]), "test")
    wer = row(result, "scores", metric="WER")
    assert (wer["a"], wer["b"]) == (0.25, 0.05) and wer["difference"] == pytest.approx(-0.2)
    assert (wer["n"], wer["speakers"], wer["left_out"]) == (4, 2, 0)
    assert wer["better"] == "B" and wer["p_holm"] < 0.05
    ua = row(result, "scores", metric="UA")  # A: recalls 1/2 and 1; B: 1 and 1/2
    assert (ua["a"], ua["b"], ua["difference"], ua["better"]) == (0.75, 0.75, 0.0, "neither")
    answers = row(result, "answers", task="ser")
    assert (answers["both_right"], answers["only_a"], answers["only_b"], answers["none_right"]) == (
        0.5,
        0.25,
        0.25,
        0.0,
    )
    assert {v.about: v.verdict for v in result.verdicts}["asr / WER"] == "B is better"


def test_only_shared_utterances_with_the_same_reference_count():
    b = routing([1, 2, 3, 9], ["sad"] * 4, skip=(0,))
    b.loc[b["utterance"] == "u3", "reference"] = "another question"
    wer = row(compare_runs(A, b, "test"), "scores", metric="WER")
    assert wer["n"] == 2 and wer["left_out"] == 2 and wer["difference"] == 0.0


def test_alpha_moves_by_what_was_planted():
    result = compare_runs(A, routing([1, 2, 3, 4], ["sad"] * 4, first_alpha=0.75), "test")
    first = row(result, "alpha", task="asr", stage="lm", layer=0)
    assert (first["a"], first["b"], first["difference"]) == (0.25, 0.75, 0.5)
    assert (first["difference_low"], first["difference_high"]) == (0.5, 0.5)
    assert row(result, "divergence", task="ser", stage="encoder")["jsd"] == pytest.approx(0.1887, abs=1e-4)


def test_runs_of_other_depth_keep_their_scores_and_say_why_layers_do_not_compare():
    result = compare_runs(A, routing([1, 2, 3, 4], ["sad"] * 4, layers=3), "test")
    assert "alpha" not in {t.name for t in result.tables} and row(result, "scores", metric="WER")["difference"] == 0
    assert {v.evidence for v in result.verdicts if v.verdict == "not available"} == {
        "2 states in A, 3 in B: layers do not compare."
    }


def test_nothing_in_common_is_an_error():
    b = routing([1], ["sad"])
    b["utterance"] = "other"
    with pytest.raises(RoutingError, match="no utterance and task in common"):
        compare_runs(A, b, "test")


def test_parameters_that_were_doubled_lie_one_length_apart(tmp_path):
    one, two = tiny_run(tmp_path, "one"), tiny_run(tmp_path, "two")
    file = two.model / "weights-1.safetensors"
    tensors = load_file(file)
    save_file({k: 2 * v if k.startswith("gate.logits") or ".layers.1." in k else v for k, v in tensors.items()}, file)
    moved = moved_weights(one, two).set_index("group")
    assert moved.loc["encoder layer 1", "relative"] == 0 and moved.loc["encoder layer 2", "relative"] == pytest.approx(
        1
    )
    assert moved.loc["lm layer 2", "relative"] == pytest.approx(1) and moved.loc["gate", "farthest"] == "gate.logits"
    assert moved["tensors"].sum() == len(tensors) and moved["unlike"].sum() == 0
    with pytest.raises(RunError, match="no weights"):
        moved_weights(one, RunFolder(tmp_path / "none"))


def test_groups_count_layers_as_states():
    assert group_of("encoder.body.layers.0.fc1.weight") == "encoder layer 1"
    assert group_of("lm.body.embed_tokens.weight") == "lm input" and group_of("heads.ser.output.bias") == "heads.ser"
    assert group_of("fusion.task_bias") == "fusion"
