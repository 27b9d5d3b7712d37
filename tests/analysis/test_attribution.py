"""Attribution: planted layers, frames and prompt tokens are found by every method; real models are explained."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factories import LAYERS, WIDTH, tiny_config, tiny_model, tone
from torch import nn

from harmonifuse_core.analysis.attribution import ABLATION, GRADIENTS, METHODS, ExplainedInput, attribute, explain
from harmonifuse_core.analysis.attribution_survey import ANALYSIS
from harmonifuse_core.analysis.deletion import deletion_check
from harmonifuse_core.analysis.explained_answer import explain_answer
from harmonifuse_core.analysis.material import Spoken, encode_batch
from harmonifuse_core.analysis.registry import AnalysisOptions, Context, analyses
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.model.lm import LanguageModel, LMStates
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.tasks import EMOTIONS

CLIP = tone(0.8, 200)
LONG = tone(2.0, 200)
SPAN = slice(10, 20)  # frames, 0.2 to 0.4 s
PLACE = 4  # prompt token
LAYERS_APART = {"model__lm__speech_token": True, "model__lm__speech_token_layers": 8}


class PlantedBody(nn.Module):
    def __init__(self, tokens: int):
        super().__init__()
        self.words, self.output = nn.Embedding(tokens, WIDTH), nn.Linear(WIDTH, tokens)

    def get_input_embeddings(self):
        return self.words


class PlantedLM(LanguageModel):
    """An answer at every position from the frames in SPAN and the prompt token at PLACE, nothing else."""

    def __init__(self, config, hears: str):
        super().__init__(config, None, byte_tokenizer())
        self.body, self.hears = PlantedBody(len(byte_tokenizer())), hears
        self.width, self.layers = WIDTH, LAYERS

    def logits(self, fused):
        return self.body.output(fused)

    def answer(self, speech, prompts):
        heard = speech[:, SPAN].mean(1)
        if self.hears == "token":
            heard = 0 * heard + self.body.words(torch.tensor(prompts)[:, PLACE])
        return tuple(torch.tanh(heard)[:, None] * (k + 1) for k in range(self.layers + 1))

    def teacher_forced(self, speech, mask, prompts, texts, summary=None):
        count = 1 if texts is None else max(map(len, texts)) + 1
        return LMStates(tuple(s.expand(-1, count, -1) for s in self.answer(speech, prompts)), None)

    def start(self, speech, mask, prompt):
        states = self.answer(speech, [prompt] * len(speech))
        cache = type("Cache", (), {"states": states, "select": lambda self, rows, utterances=None: None})()
        return LMStates(states, None), cache

    def step(self, tokens, cache):
        return LMStates(cache.states, None)


def planted_model(hears: str = "frames", gate: str = "uniform") -> HarmoniFuse:
    config = tiny_config(model__gate__mode=gate).model
    torch.manual_seed(1)
    encoder = build_model(config).encoder
    return HarmoniFuse(config, encoder, PlantedLM(config.lm, hears)).eval()


def supported(model, over: str) -> tuple[str, object]:
    """A task and target that the intact input raises: of a class that it lowers, the top score is 0."""
    for label in EMOTIONS:
        found = attribute(model, LONG, "ser", f"{over}_ablation", target=label)
        if found.value - found.baseline_value > 0.05:
            return label
    raise AssertionError("no class is raised by the input")


@pytest.mark.parametrize("how", [ABLATION, GRADIENTS])
@pytest.mark.parametrize("task", ["asr", "ser"])
@pytest.mark.parametrize("layer", range(LAYERS + 1))
def test_the_layer_that_reaches_the_output_is_found(layer, task, how):
    model = planted_model(gate=f"fixed:{layer}")
    found = attribute(model, CLIP, task, f"layer_{how}")
    others = np.delete(found.scores, layer)
    assert np.abs(others).max() < 1e-6 and abs(found.scores[layer]) > 1e-4
    assert found.names[layer] == f"layer {layer}" and len(found.scores) == LAYERS + 1


@pytest.mark.parametrize("kind", ["whisper", "prefix"])
@pytest.mark.parametrize("how", [ABLATION, GRADIENTS])
def test_the_layer_is_found_through_both_real_lms(kind, how):
    model = tiny_model(kind, model__gate__mode="fixed:1")
    for task in ("asr", "ser"):
        scores = np.abs(attribute(model, CLIP, task, f"layer_{how}").scores)
        assert scores.argmax() == 1 and scores[[0, 2]].max() < 1e-6 < scores[1]


@pytest.mark.parametrize("task", ["asr", "ser"])
@pytest.mark.parametrize("how", [ABLATION, GRADIENTS])
def test_the_frames_that_reach_the_output_are_found(how, task):
    found = attribute(planted_model(), CLIP, task, f"frame_{how}", window_seconds=0.1)
    inside = np.array([a >= 0.2 - 1e-9 and b <= 0.4 + 1e-9 for a, b in found.seconds])
    assert inside.sum() == (2 if how == ABLATION else 10)
    assert np.abs(found.scores[~inside]).max() < 1e-6 and np.abs(found.scores[inside]).max() > 1e-4


@pytest.mark.parametrize("task", ["asr", "ser"])
@pytest.mark.parametrize("how", [ABLATION, GRADIENTS])
def test_the_prompt_token_that_reaches_the_output_is_found(how, task):
    found = attribute(planted_model("token"), CLIP, task, f"token_{how}")
    others = np.delete(found.scores, PLACE)
    assert np.abs(others).max() < 1e-6 and abs(found.scores[PLACE]) > 1e-4
    assert len(found.names) == len(found.scores) == len(byte_tokenizer().prompt_ids(found.prompt))


def test_in_a_real_lm_whose_state_0_answers_only_the_last_token_counts():
    model = tiny_model("whisper", model__lm__fusion="fixed:0")
    scores = np.abs(attribute(model, CLIP, "ser", "token_ablation").scores)
    assert scores.argmax() == len(scores) - 1 and scores[:-1].max() < 1e-6


def linear() -> tuple[ExplainedInput, np.ndarray]:
    torch.manual_seed(0)
    weight, value, baseline = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    groups = torch.arange(4)[:, None, None]
    function = lambda x: (x * weight).sum((1, 2, 3))  # noqa: E731
    exact = ((value - baseline) * weight).sum((1, 2)).double().numpy()
    return ExplainedInput(function, value, baseline, groups), exact


@pytest.mark.parametrize("how", [ABLATION, GRADIENTS])
def test_of_a_linear_function_both_methods_give_the_exact_shares(how):
    inputs, exact = linear()
    scores, delta, _ = explain(inputs, how)
    assert np.allclose(scores, exact, atol=1e-5)
    assert delta is None if how == ABLATION else abs(delta) < 1e-5


def built(kind: str, **changes) -> HarmoniFuse:
    """`whisper-layers`: its speech token reads each layer apart."""
    if kind == "whisper-layers":
        kind, changes = "whisper", changes | LAYERS_APART
    return tiny_model(kind, **changes)


@pytest.mark.parametrize("kind", ["whisper", "whisper-layers", "prefix"])
@pytest.mark.parametrize("task", ["asr", "ser"])
def test_what_is_explained_is_the_answer_that_infer_gives(kind, task):
    model = built(kind, model__beams=2)
    answer = predict(model, [CLIP], PredictOptions(tasks=(task,)))[0][task]
    values = [attribute(model, CLIP, task, f"{over}_ablation").value for over in ("layer", "frame", "token")]
    assert np.ptp(values) < 1e-4
    found = attribute(model, CLIP, task)
    if task == "asr":
        assert found.label == answer.text and values[0] == pytest.approx(float(answer.token_logprobs.mean()), abs=1e-4)
    else:
        logits = [attribute(model, CLIP, task, target=label).value for label in EMOTIONS]
        wanted = [answer.probabilities[label] for label in EMOTIONS]
        assert found.label == answer.label
        assert np.allclose(torch.softmax(torch.tensor(logits), -1).numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["whisper", "whisper-layers"])
def test_removing_a_layer_is_setting_its_weight_to_zero(kind):
    model = built(kind, model__gate__input_score=True)
    with torch.no_grad():
        answer = explain_answer(model, CLIP, "ser")
        states = model.encode(torch.from_numpy(CLIP)[None], torch.tensor([len(CLIP)]))
        alpha = model.fuse_encoder(states, "ser").alpha[0]
        wanted = []
        for layer in range(LAYERS + 1):
            without = alpha.clone()
            without[layer] = 0
            prompts = [model.tokenizer.prompt_ids(model.config.task("ser").default_prompt)]
            heard = model.listen(model.fuse_encoder(states, "ser", without), states.mask, prompts, None)
            logits = model.heads["ser"](model.fuse_lm(heard, "ser").states[:, 0])
            wanted.append(float(logits[0, answer.focus]))
    found = attribute(model, CLIP, "ser")
    assert np.allclose(found.scores, found.value - np.array(wanted), atol=1e-5)


@pytest.mark.parametrize(("kind", "task"), [("whisper", "asr"), ("whisper-layers", "ser"), ("prefix", "asr")])
@pytest.mark.parametrize("over", ["layer", "frame", "token"])
def test_integrated_gradients_add_up(kind, task, over):
    found = attribute(built(kind), CLIP, task, f"{over}_integrated_gradients", steps=64)
    total = found.value - found.baseline_value
    assert found.scores.sum() - total == pytest.approx(found.convergence_delta, abs=1e-4)
    assert abs(found.convergence_delta) < 0.05 * max(1.0, abs(total))


@pytest.mark.parametrize(("kind", "width"), [("whisper", 0.1), ("whisper", 0.02), ("whisper-layers", 0.1)])
def test_the_silence_behind_whispers_speech_is_one_part(kind, width):
    model = built(kind, model__encoder__silence_frames=7, model__encoder__tail_seconds=0.1)
    own = -(-len(CLIP) // 320) + 5
    found = attribute(model, CLIP, "ser", "frame_ablation", window_seconds=width)
    assert found.names[-1] == "silence behind" and found.names.count("silence behind") == 1
    assert len(found.scores) == -(-own // round(50 * width)) + 1
    assert found.seconds[-1].tolist() == pytest.approx([own / 50, (own + 7) / 50])
    assert found.seconds[-2][1] == found.seconds[-1][0] and found.seconds[0].tolist() == pytest.approx([0, width])
    every = found.inputs.at(torch.zeros(1, len(found.scores), dtype=torch.bool))
    assert float(every) == pytest.approx(found.baseline_value, abs=1e-5)  # the parts together are all of the sound


def test_one_token_of_the_transcript_and_one_class_may_be_the_target():
    model = tiny_model("whisper")
    whole = explain_answer(model, CLIP, "asr")
    values = [attribute(model, CLIP, "asr", target=i).value for i in range(len(whole.text))]
    assert np.mean(values) == pytest.approx(attribute(model, CLIP, "asr").value, abs=1e-4)
    found = attribute(model, CLIP, "ser", target="sad")
    assert found.target == "logit of 'sad'" and found.as_dict()["scores"] == found.scores.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "layer_ablation"),
        ({"baseline": "noise"}, "zero, mean"),
        ({"target": "bored"}, "neutral"),
        ({"task": "asr", "target": 999}, "None for all"),
        ({"task": "asr", "target": "sad"}, "None for all"),
        ({"task": "speaker"}, "asr, ser"),
        ({"clip": CLIP[None]}, "one mono waveform"),
        ({"clip": np.zeros(11 * 16000, np.float32)}, "longer than 10 s"),
    ],
)
def test_what_cannot_be_explained_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        attribute(**({"model": tiny_model("whisper"), "clip": CLIP, "task": "ser"} | arguments))


def test_another_prompt_is_explained_with_its_own_tokens():
    model = tiny_model("whisper")
    found = attribute(model, CLIP, "ser", "token_ablation", prompt="Sad?")
    none = attribute(model, CLIP, "ser", "token_ablation", prompt="")
    assert found.prompt == "Sad?" and len(found.scores) - len(none.scores) == len(" Sad?")


def test_a_scratch_of_gradients_is_left_nowhere():
    model = tiny_model("whisper")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for method in METHODS:
        attribute(model, CLIP, "ser", method, steps=4)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# --- deletion ---


@pytest.mark.parametrize("method", ["frame_ablation", "frame_integrated_gradients"])
def test_deleting_the_planted_frames_hurts_more_than_random(method):
    model = planted_model()
    found = attribute(model, LONG, "ser", method, target=supported(model, "frame"))
    check = deletion_check(found, orders=30)
    assert check.verdict == "hurts more than random" and check.gap > 0 and check.low > 0
    assert check.own[0] == check.random[0, 0] and check.own[-1] == check.random[0, -1]
    assert check.removed[0] == 0 and check.removed[-1] == 1 and check.random.shape == (30, len(check.removed))


def test_a_random_attribution_is_no_better_than_random_and_its_reverse_is_worse():
    model = planted_model()
    found = attribute(model, LONG, "ser", "frame_ablation", target=supported(model, "frame"))
    reverse = type(found)(**{**vars(found), "scores": -found.scores})
    assert deletion_check(reverse, orders=30).gap < 0
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(20):
        shuffled = type(found)(**{**vars(found), "scores": rng.permutation(found.scores)})
        verdicts.append(deletion_check(shuffled, orders=30, seed=int(rng.integers(99))).verdict)
    assert verdicts.count("hurts more than random") <= 4


def test_two_parts_have_no_order():
    with pytest.raises(ValueError, match="at least 3"):
        deletion_check(attribute(tiny_model("whisper"), CLIP, "ser", "frame_ablation", window_seconds=5.0))


# --- over a corpus ---


def test_the_survey_runs_under_inference_mode_and_sums_up():
    clips = [tone(0.6 + 0.1 * i, 150 + 50 * i) for i in range(3)]
    items = []
    for i in range(3):
        source = Source(Utterance(f"u{i}", Path(f"u{i}.wav"), speaker=f"s{i}"), f"u{i}.wav")
        items.append(Spoken(source, {"asr": "go home", "ser": "sad"}, {"asr": "Go home."}))
    model = tiny_model("whisper", model__gate__mode="fixed:1")
    with torch.inference_mode():
        rows = ANALYSIS.collect(model, encode_batch(model, items, clips), AnalysisOptions())
    result = ANALYSIS.summarise(pd.DataFrame(rows), Context(model, resamples=50))
    layers = [r for r in result.table("layers").rows if r["task"] == "ser"]
    assert [abs(r["score"]) > 1e-6 for r in layers] == [False, True, False] and layers[0]["n"] == 3
    assert {r["task"] for r in result.table("deletion").rows} == {"asr", "ser"}
    alone = attribute(model, clips[0], "ser")
    batched = next(r for r in rows if r["utterance"] == "u0" and r["task"] == "ser" and r["method"] == "layer_ablation")
    assert np.allclose(batched["scores"], alone.scores, atol=1e-4)


def test_it_is_in_the_registry():
    assert analyses(["attribution"]) == [ANALYSIS]


def test_three_layers_are_too_few_to_call_a_tie():
    check = deletion_check(attribute(tiny_model("whisper"), CLIP, "ser"))
    assert check.parts == LAYERS + 1 and "no different" not in check.verdict
