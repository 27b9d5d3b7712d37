"""What frames of silence buy: the untrained Whisper tiny.en padded to 30 s, with 16 frames for the rest, and without.

Marked slow and speech; needs ../whisper-tiny.en (shared/tools/fetch_whisper.py). Prints WER and seconds, greedy, on the
50 LibriSpeech clips of `../shared/data`; ours stand behind the default prompt, the padded one behind none.
"""

import time
from pathlib import Path

import pytest
import torch
from factories import bare_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.inference.predict import PredictOptions, predict
from harmonifuse_core.metrics import word_errors
from harmonifuse_core.model.tokenizer import START_OF_TEXT

DATA, WHISPER = Path("../shared/data/librispeech.jsonl"), Path("../whisper-tiny.en")
PROMPT = "Transcribe the speech."


def untrained(silence: int):
    changes = {"model__encoder__silence_frames": silence, "model__encoder__tail_seconds": 0.1}
    return bare_whisper(WHISPER, layers=4, model__max_seconds=28.0, **changes)


def padded(clips, tokenizer) -> list[str]:
    """transformers alone, 30 s a clip, with the tokens that its own configuration suppresses."""
    model = WhisperForConditionalGeneration.from_pretrained(WHISPER, dtype=torch.float32).eval()
    extractor, texts = WhisperFeatureExtractor.from_pretrained(WHISPER), []
    start = tokenizer.prompt_ids("")
    start = start[start.index(tokenizer.special(START_OF_TEXT)) :]
    for first in range(0, len(clips), 10):
        mel = extractor(clips[first : first + 10], sampling_rate=16_000, return_tensors="pt").input_features
        ids = model.generate(
            mel, do_sample=False, max_new_tokens=150, max_length=None,
            decoder_input_ids=torch.tensor([start] * len(mel)),
        )  # fmt: skip
        texts += [tokenizer.decode(row.tolist()) for row in ids]
    return texts


def wrong_share(references, texts) -> float:
    errors = [word_errors(reference, text) for reference, text in zip(references, texts, strict=True)]
    wrong = sum(e.substitutions + e.deletions + e.insertions for e in errors)
    return wrong / sum(e.reference_words for e in errors)


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.skipif(not (WHISPER.is_dir() and DATA.is_file()), reason="needs ../whisper-tiny.en and ../shared/data")
def test_16_frames_keep_whispers_words_at_a_fraction_of_the_time():
    utterances = read_manifest(DATA, "test")
    clips, references = [decode_waveform(u.audio) for u in utterances], [u.text for u in utterances]
    options, models, wer, seconds = PredictOptions(("asr",), {"asr": PROMPT}, beams=1), {}, {}, {}
    for silence in (0, 16):
        models[silence] = untrained(silence)
        predict(models[silence], clips[:2], options)
        begin = time.perf_counter()
        texts = [answer["asr"].text for answer in predict(models[silence], clips, options)]
        wer[silence], seconds[silence] = wrong_share(references, texts), time.perf_counter() - begin
    begin = time.perf_counter()
    full = padded(clips, models[0].tokenizer)
    wer["30 s"], seconds["30 s"] = wrong_share(references, full), time.perf_counter() - begin
    for name in wer:
        print(f"silence {name}: WER {100 * wer[name]:.1f} %, {seconds[name]:.1f} s for {len(clips)} clips")
    print(f"16 frames against 30 s: {100 * wrong_share(full, texts):.1f} % of words differ")
    assert wer[16] < wer["30 s"] + 0.03 and wer[0] > wer[16] + 0.02 and seconds[16] < 0.5 * seconds["30 s"]
