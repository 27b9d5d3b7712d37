"""Prompt crossing: a model that ignores its prompt is flagged, one that listens is not; conditions hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factories import SENTENCES, tiny_config, tiny_model, tone

from harmonifuse_core.analysis.material import Spoken, encode_batch
from harmonifuse_core.analysis.prompt_conditions import (
    EMPTY,
    NO_PROMPT,
    OTHER,
    OWN,
    PARAPHRASE,
    RANDOM,
    RANDOM_PROMPTS,
    USER,
    prompt_conditions,
    random_prompt,
)
from harmonifuse_core.analysis.prompt_tables import decides, still_share
from harmonifuse_core.analysis.prompts import ANALYSIS, answers, text_alpha
from harmonifuse_core.analysis.registry import AnalysisOptions, Context, analyses
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.tokenizer import byte_tokenizer, load_tokenizer
from harmonifuse_core.tasks import ASR, EMOTIONS, SER

CLIPS = [tone(0.5 + 0.05 * i, 120 + 30 * i, seed=i) for i in range(8)]
BUNDLED = Path(__file__).resolve().parents[2] / "runs" / "default"


def batch_of(model, clips=CLIPS, labelled=True):
    items = []
    for i in range(len(clips)):
        source = Source(Utterance(f"u{i}", Path(f"u{i}.wav"), speaker=f"s{i // 2}"), f"u{i}.wav")
        text = SENTENCES[i % 8]
        targets = {"asr": text, "ser": EMOTIONS[i % 8]} if labelled else {}
        items.append(Spoken(source, targets, {"asr": text} if labelled else {}))
    return encode_batch(model, items, clips)


def crossing(model, **options) -> tuple[pd.DataFrame, object]:
    with torch.inference_mode():
        rows = pd.DataFrame(ANALYSIS.collect(model, batch_of(model), AnalysisOptions(**options)))
    return rows, ANALYSIS.summarise(rows, Context(model, resamples=200))


@torch.no_grad()
def deaf_to_its_prompt(model):
    """No position hears another one, nor knows where it stands: only the last special token and the speech are left."""
    for block in model.lm.body.layers:
        for parameter in block.self_attn.out_proj.parameters():
            parameter.zero_()
    model.lm.body.embed_positions.weight.zero_()
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["no speech token", "speech token"])
def deaf(request):
    model = tiny_model("whisper", model__lm__speech_token=request.param)
    return crossing(deaf_to_its_prompt(model), prompts=("Anything else.",))


@pytest.fixture(scope="module", params=["whisper", "prefix"])
def listening(request):
    model = tiny_model(request.param)
    with torch.no_grad():
        for parameter in model.fusion.ffn.parameters():
            parameter.mul_(3)  # an LM this small hardly moves
    return crossing(model)


def test_a_model_that_ignores_its_prompt_is_flagged(deaf):
    rows, result = deaf
    words = {v.about: v.verdict for v in result.verdicts}
    assert words["lm / asr"] == words["lm / ser"] == "prompt ignored"
    assert {r["decides"] for r in result.table("crossing").rows} == {"", "nothing"}
    assert not rows["changed"].any() and rows["same_text_jsd"].max() < 1e-6
    assert words["prompt embedding / ser"] in ("not available", "does not provably predict alpha")


def test_a_model_that_listens_is_not(listening):
    rows, result = listening
    words = {v.about: v.verdict for v in result.verdicts}
    assert "ignored" not in words["lm / asr"] and "ignored" not in words["lm / ser"]
    own = rows[rows["kind"] == OWN]
    assert (own["same_text_jsd"] == 0).all() and (own["lm_jsd"] < 1e-9).all() and not own["changed"].any()


def test_every_prompt_stands_under_every_task_id(deaf):
    _, result = deaf
    for task, other in ((ASR, SER), (SER, ASR)):
        rows = [r for r in result.table("crossing").rows if r["task"] == task.name]
        kinds = [r["kind"] for r in rows]
        wanted = {OWN: 1, PARAPHRASE: 3, OTHER: 4, RANDOM: RANDOM_PROMPTS, EMPTY: 1, USER: 1}
        assert {kind: kinds.count(kind) for kind in wanted} == wanted and kinds[0] == OWN
        assert {r["prompt"] for r in rows if r["kind"] == OTHER} == set(other.prompts)
        assert all(r["n"] == 8 and r["speakers"] == 4 for r in rows)


def test_the_table_says_score_change_and_corrected_p(listening):
    _, result = listening
    for row in result.table("crossing").rows:
        assert row["metric"] == ("WER" if row["task"] == "asr" else "UA") and row["scored_n"] == 8
        assert 0 <= row["invalid"] <= 1 and row["encoder_jsd"] == 0
        if row["kind"] != OWN:
            assert row["change_p_holm"] >= row["change_p"] and row["change_low"] <= row["change"] <= row["change_high"]
    own = [r for r in result.table("crossing").rows if r["kind"] == OWN]
    assert all(r["change"] == 0 and r["change_p"] is None for r in own)


def test_the_score_is_that_of_the_answers(listening):
    rows, result = listening
    row = next(r for r in result.table("crossing").rows if r["task"] == "ser" and r["kind"] == EMPTY)
    mine = rows[(rows["task"] == "ser") & (rows["kind"] == EMPTY)]
    assert row["score"] == pytest.approx((mine["answer"] == mine["reference"]).mean())  # one utterance a class
    row = next(r for r in result.table("crossing").rows if r["task"] == "asr" and r["kind"] == OTHER)
    mine = rows[(rows["task"] == "asr") & (rows["prompt"] == row["prompt"])]
    assert row["score"] == pytest.approx(mine["errors"].sum() / mine["reference_words"].sum())


@pytest.mark.parametrize("kind", ["whisper", "prefix"])
def test_answers_and_alpha_are_those_of_infer(kind):
    model, text = tiny_model(kind), "How does the speaker feel?"
    encoder = {}
    for prompt in (SER.default_prompt, text):
        wanted = predict(model, CLIPS[:3], PredictOptions(prompts={"asr": prompt, "ser": prompt}, beams=1))
        with torch.inference_mode():
            states = batch_of(model, CLIPS[:3]).states
            for spec in (ASR, SER):
                given = answers(model, states, model.fuse_encoder(states, spec.name), spec, prompt)
                for mine, theirs in zip(given, wanted, strict=True):
                    assert mine.text == (theirs[spec.name].text if spec is ASR else theirs[spec.name].label)
                    assert np.abs(mine.alpha - theirs[spec.name].lm.alpha).max() < 1e-6
        encoder[prompt] = [a["ser"].encoder.alpha for a in wanted]
    assert np.array_equal(encoder[text], encoder[SER.default_prompt])  # the gate cannot see the prompt


@pytest.mark.parametrize("kind", ["whisper", "prefix"])
def test_the_alpha_of_a_given_text_is_that_of_decoding_it(kind):
    model = tiny_model(kind)
    with torch.inference_mode():
        states = batch_of(model, CLIPS[:3]).states
        fused = model.fuse_encoder(states, "asr")
        given = answers(model, states, fused, ASR, ASR.default_prompt)
        forced = text_alpha(model, states, fused, "asr", ASR.default_prompt, [a.tokens for a in given])
        assert np.abs(forced - np.stack([a.alpha for a in given])).max() < 1e-5
        nothing = text_alpha(model, states, fused, "asr", ASR.default_prompt, [[], [], []])
    assert nothing.shape == forced.shape and np.allclose(nothing.sum(1), 1)


def test_without_words_alpha_is_before_the_reference():
    model = tiny_model("whisper")
    rows, result = crossing(model, words=False)
    asr = rows[rows["task"] == "asr"]
    assert asr["same_text_jsd"].notna().all() and asr["lm_jsd"].isna().all()
    row = next(r for r in result.table("crossing").rows if r["task"] == "asr" and r["kind"] == EMPTY)
    assert row["same_text_jsd"] >= 0 and "score" not in row
    assert next(r for r in result.table("crossing").rows if r["task"] == "ser")["metric"] == "UA"


def test_unlabelled_speech_has_alpha_but_no_score():
    model = tiny_model("whisper")
    with torch.inference_mode():
        rows = pd.DataFrame(ANALYSIS.collect(model, batch_of(model, CLIPS[:3], labelled=False), AnalysisOptions()))
    result = ANALYSIS.summarise(rows, Context(model, resamples=50))
    assert len(result.table("crossing").rows) == 2 * 12
    assert all("score" not in r and r["n"] == 3 for r in result.table("crossing").rows)


@pytest.mark.parametrize("source", ["bytes", "bundled"])
def test_a_random_prompt_has_exactly_as_many_tokens(source):
    if source == "bundled" and not (BUNDLED / "model").is_dir():
        pytest.skip("the bundled run is not here")
    tokenizer = byte_tokenizer() if source == "bytes" else load_tokenizer(str(BUNDLED / "model"))
    own = tokenizer.encode(ASR.default_prompt)
    texts = [random_prompt(tokenizer, len(own), seed=0, number=i) for i in range(4)]
    assert len(set(texts)) == 4 and all(len(tokenizer.encode(t)) == len(own) for t in texts)
    assert texts[0] == random_prompt(tokenizer, len(own), seed=0) != random_prompt(tokenizer, len(own), seed=1)


def test_no_prompt_leaves_the_special_tokens_alone():
    tokenizer = byte_tokenizer()
    assert tokenizer.prompt_ids(NO_PROMPT) == tokenizer.prompt_ids("")
    assert set(tokenizer.prompt_ids(NO_PROMPT)) <= set(tokenizer.special_ids())


def test_a_users_prompt_that_stands_already_counts_once():
    config, tokenizer = tiny_config().model, byte_tokenizer()
    plain = prompt_conditions(config, tokenizer, "asr")
    again = prompt_conditions(config, tokenizer, "asr", (ASR.prompts[1], "", "New."))
    assert [c.text for c in again] == [c.text for c in plain] + ["New."] and plain[0].kind == OWN


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"change_p_holm": 0.01, "change": 0.05}, "score"),
        ({"change_p_holm": 0.01, "change": 0.001}, "nothing"),
        ({"change_p_holm": 0.2, "change": 0.05, "changed": 0.1, "changed_low": 0.05}, "answers"),
        ({"change_p_holm": 0.2, "change": 0.05, "changed": 0.1, "changed_low": 0.0}, "undecided"),
        ({"changed": 0.01, "same_text_jsd": 0.01}, "alpha"),
        ({"kind": OWN, "same_text_jsd": 0.01}, ""),
    ],
)
def test_what_a_prompt_decides(row, wanted):
    assert decides({"kind": OTHER, "same_text_jsd": 1e-4} | row) == wanted


def test_it_is_in_the_registry():
    assert analyses(["prompts"]) == [ANALYSIS]


@pytest.mark.parametrize(("paraphrased", "wanted"), [(0.0, 0.02), (0.07, 0.07), (0.9, 0.1)])
def test_paraphrases_say_how_many_changed_answers_mean_nothing(paraphrased, wanted):
    rows = [{"kind": PARAPHRASE, "changed": paraphrased}, {"kind": OTHER, "changed": 1.0}, {"kind": OWN}]
    assert still_share(rows) == wanted
    assert decides({"kind": OTHER, "same_text_jsd": 0, "changed": 0.08, "changed_low": 0.075}, wanted) == (
        "nothing" if wanted > 0.075 else "answers"
    )
