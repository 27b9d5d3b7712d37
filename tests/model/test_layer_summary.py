"""The speech token's reading of each encoder layer: exact statistics, weighed by alpha, without silence or padding."""

import pytest
import torch
from factories import LAYERS, WIDTH, tiny_model, tone
from torch.testing import assert_close as close

from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.model.layer_summary import LayerSummary

CLIPS = [tone(1.1, 200), tone(0.5, 330)]
SER = PredictOptions(tasks=("ser",))


def reader(seed: int = 0, stirred: bool = True, **changes):
    return tiny_model(
        "whisper", seed=seed, stirred=stirred, model__lm__speech_token=True, model__lm__speech_token_layers=8, **changes
    )


def encoded(model, clips=CLIPS):
    return model.encode(*pad_waveforms(clips))


@torch.no_grad()
def test_statistics_are_mean_and_deviation_of_the_valid_frames():
    states = [torch.randn(2, 30, 4) for _ in range(3)]
    mask = torch.arange(30) < torch.tensor([30, 11])[:, None]
    found = LayerSummary(3, 4, 5, 6).statistics(states, mask)
    assert found.shape == (2, 3, 8)
    for layer, state in enumerate(states):
        own = state[1, :11]
        close(found[1, layer], torch.cat([own.mean(0), (own.var(0, correction=0) + 1e-5).sqrt()]))


@torch.no_grad()
def test_a_layer_counts_by_its_alpha_and_one_without_any_as_the_average_utterance():
    summary = LayerSummary(3, 4, 5, 6)
    summary.standardise.mean.fill_(2.0)
    statistics = torch.randn(1, 3, 8)
    weighed = summary.weigh(statistics, torch.tensor([[0.0, 0.25, 0.75]]))
    average = summary.weigh(torch.full_like(statistics, 2.0), torch.full((1, 3), 1 / 3))
    close(weighed[0, 0], average[0, 0])
    close(weighed[0, 2], 3 * 0.75 * summary.standardise(statistics)[0, 2])


@torch.no_grad()
def test_it_starts_without_effect():
    fresh, plain = reader(stirred=False), tiny_model("whisper", stirred=False, model__lm__speech_token=True)
    assert plain.load_state_dict(fresh.state_dict(), strict=False).unexpected_keys
    ours, theirs = (predict(m, CLIPS, SER) for m in (fresh, plain))
    for a, b in zip(ours, theirs, strict=True):
        assert a["ser"].probabilities == pytest.approx(b["ser"].probabilities, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("silence", [0, 7])
def test_neither_padding_nor_silence_nor_the_shared_survey_reaches_it(silence):
    model = reader(model__encoder__silence_frames=silence, model__encoder__tail_seconds=0.1)
    together, alone = encoded(model), encoded(model, CLIPS[1:])
    close(
        model.fuse_encoder(together, "ser").summary[1], model.fuse_encoder(alone, "ser").summary[0], atol=1e-4, rtol=0
    )
    assert int(model.spoken(alone.mask).sum()) == 25 + 5
    with torch.enable_grad():  # there is no survey then
        slow = model.fuse_encoder(together, "ser").summary
    close(model.fuse_encoder(together, "ser", survey=model.survey(together)).summary, slow, atol=1e-4, rtol=0)
    if silence:
        own = int(alone.mask.sum()) - silence
        alone.states[1][:, own:] += 9.0
        close(model.fuse_encoder(alone, "ser").summary[0], slow[1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_it_moves_the_class_and_no_text():
    model = reader()
    before = predict(model, CLIPS[:1])[0]
    model.summary.output.weight.mul_(-3.0)
    after = predict(model, CLIPS[:1])[0]
    assert before["asr"].text == after["asr"].text
    assert abs(before["ser"].probabilities["sad"] - after["ser"].probabilities["sad"]) > 1e-4
    assert model.fuse_encoder(encoded(model), "asr").summary is None


def test_gradients_reach_every_layer_and_the_gate():
    model = reader().train()
    states = encoded(model)
    model.fuse_encoder(states, "ser").summary.square().sum().backward()
    assert float(model.gate.logits.grad[1].abs().min()) > 0 and not bool(model.gate.logits.grad[0].any())
    by_layer = model.summary.inner.weight.grad.reshape(8, LAYERS + 1, 2 * WIDTH)
    assert bool((by_layer.abs().amax((0, 2)) > 0).all())
    assert int(model.summary.standardise.started) == 1
