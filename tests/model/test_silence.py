"""The frames that stand for the silence behind Whisper's speech: what they replace exactly, and how near they come."""

import pytest
import torch
from factories import bare_whisper, tiny_model, tiny_whisper, tone
from torch.nn.functional import gelu
from transformers import WhisperFeatureExtractor
from transformers.modeling_outputs import BaseModelOutput

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.model.silence import Silence

WINDOW = 1500


@pytest.mark.parametrize("frames", [1, 7, 16])
def test_the_frames_spread_over_what_is_left_of_the_window(frames):
    silence, speech = Silence(frames, WINDOW), torch.tensor([1, 50, 700, WINDOW - frames])
    places = silence.positions(speech, 700 + frames)
    assert places[1, :50].tolist() == list(range(50))
    for row, start in zip(places[:3], speech[:3].tolist(), strict=True):
        spread = row[start : start + frames].diff()
        width = (WINDOW - start) / frames
        assert int(row[start]) == start + (WINDOW - start) // (2 * frames)
        assert bool((spread >= int(width)).all()) and bool((spread <= width + 1).all())
    full = silence.positions(torch.tensor([WINDOW - frames]), WINDOW)
    assert full[0].tolist() == list(range(WINDOW))  # as many frames as silence: none is left out


@pytest.mark.parametrize("frames", [1, 16])
def test_every_row_counts_for_the_whole_window(frames):
    mask = torch.arange(40) < torch.tensor([40, 25, frames + 1])[:, None]
    scores = Silence(frames, WINDOW).scores(mask)
    assert scores.shape == (3, 1, 1, 40)
    torch.testing.assert_close(scores.exp().sum(-1).flatten(), torch.full((3,), float(WINDOW)))
    assert bool((scores[1, 0, 0, 25:] == -torch.inf).all()) and bool((scores[1, 0, 0, : 25 - frames] == 0).all())
    assert len(scores[1, 0, 0, 25 - frames : 25].unique()) == 1


def whisper_pair(folder, silence: int, tail: float = 0.0):
    """A tiny Whisper of transformers, and ours with both fusions on the last state and that many frames of silence."""
    changes = {"model__encoder__silence_frames": silence, "model__encoder__tail_seconds": tail}
    return tiny_whisper(folder), bare_whisper(folder, **changes)


def endless_window(encoder, clips):
    """Last states (B, 1500, D) of transformers' encoder, had the convolution padded the window with silence."""
    mel = WhisperFeatureExtractor()(clips, sampling_rate=16_000, return_tensors="pt").input_features
    mel = torch.cat([mel, mel[..., -2:]], -1)  # silence goes on
    hidden = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)[:, :WINDOW] + encoder.embed_positions.weight
    for block in encoder.layers:
        hidden = block(hidden, None)
    return encoder.layer_norm(hidden)


@torch.no_grad()
def answers(reference, model, clips, padded: bool):
    """Logits (B, U, V) behind the prompt, of transformers on 30 s or of ours, and each one's last encoder state."""
    prompt, text = model.tokenizer.prompt_ids("Go."), model.tokenizer.encode("hello")
    if padded:
        states = endless_window(reference.model.encoder, clips)
        output, ids = BaseModelOutput(last_hidden_state=states), torch.tensor([prompt + text] * len(clips))
        return reference(encoder_outputs=output, decoder_input_ids=ids).logits[:, len(prompt) - 1 :], states
    states = model.encode(*pad_waveforms(clips))
    fused = model.fuse_encoder(states, "asr").states
    forced = model.lm.teacher_forced(fused, states.mask, [prompt] * len(clips), [text] * len(clips))
    return model.lm.logits(model.fuse_lm(forced, "asr").states), fused


@pytest.mark.parametrize("tail", [0.04, 0.2])  # the first frame behind the clip still holds a rest of its sound
def test_with_a_frame_for_every_one_of_silence_it_is_whisper_on_30_seconds(tmp_path, tail):
    clip = tone(1.0).repeat(26)
    frames = WINDOW - 26 * 50 - round(tail * 50)
    reference, model = whisper_pair(tmp_path, frames, tail)
    (theirs, far), (mine, near) = (answers(reference, model, [clip], padded) for padded in (True, False))
    assert near.shape == far.shape == (1, WINDOW, 16)
    torch.testing.assert_close(near, far, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


def test_a_few_frames_come_much_nearer_to_whisper_on_30_seconds_than_none(tmp_path):
    clips, far = [tone(1.3, 180), tone(0.6, 300, seed=1)], []
    for silence in (0, 4, 32):
        reference, model = whisper_pair(tmp_path, silence, 0.1)
        theirs, mine = (answers(reference, model, clips, padded)[0] for padded in (True, False))
        far.append(float((mine - theirs).abs().mean()))
    assert far[1] < 0.3 * far[0] and far[2] < far[1], far


@torch.no_grad()
def test_a_clip_hears_the_same_silence_alone_and_in_a_batch():
    model = tiny_model("whisper", model__encoder__silence_frames=6, model__encoder__tail_seconds=0.1)
    clips = [tone(0.8, 200), 0.01 * tone(0.31, 320, seed=1), tone(1.13, 140, seed=2)]
    together = model.encode(*pad_waveforms(clips))
    lengths = torch.tensor([len(clip) for clip in clips])
    assert together.frames.tolist() == model.encoder.count_frames(lengths).tolist() == [51, 27, 68]
    for row, clip in enumerate(clips):
        alone, frames = model.encode(*pad_waveforms([clip])), int(together.frames[row])
        for a, b in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(a[0], b[row, :frames], atol=1e-5, rtol=1e-4)
    options = PredictOptions(beams=3)
    batch, single = predict(model, clips, options), [predict(model, [clip], options)[0] for clip in clips]
    for a, b in zip(batch, single, strict=True):
        assert a["asr"].text == b["asr"].text
        torch.testing.assert_close(torch.tensor(a["ser"].lm.alpha), torch.tensor(b["ser"].lm.alpha))


def test_a_clip_of_nearly_30_seconds_leaves_no_silence_and_still_answers():
    model = tiny_model("whisper", model__encoder__silence_frames=16)
    states = model.encode(*pad_waveforms([tone(1.0).repeat(30)]))
    assert int(states.frames) == WINDOW + 16 and all(bool(s.isfinite().all()) for s in states.states)


def test_only_whisper_has_a_window_to_fill():
    with pytest.raises(ValueError, match=r"silence_frames is 16, but .* is a wavlm model, .*: use 0"):
        tiny_model("prefix", "wavlm", model__encoder__silence_frames=16)


def test_the_number_of_frames_is_bounded():
    with pytest.raises(ValueError, match=r"encoder\.silence_frames is -1; use 0 to 256"):
        EncoderConfig(silence_frames=-1)
