"""Pooling features costs little beside the encoder: at most 1.15 times the bare forward, cache and all.

Marked slow. Size by `PROBE_FEATURES="minutes=60,encoder=../whisper-base"`; without that folder, an encoder of Whisper
base's shape with fresh weights takes its place.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import encoder_folder, tone, write_manifest, write_wav

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.inference.parallel import length_batches
from harmonifuse_core.inference.selection import Selection
from harmonifuse_core.inference.sources import read_windows
from harmonifuse_core.model.encoder import build_encoder
from probes.features import BATCH_SECONDS, BATCH_SIZE, FeatureCache, extract
from probes.readers import EncoderReader, encoded

BASE = dict(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048)


@torch.inference_mode()
def bare(encoder, sources):
    """Decode and encode in the same batches, and keep nothing."""
    for window in read_windows(sources):
        clips = [clip.waveform for clip in window.clips]
        for rows in length_batches([len(c) / 16000 for c in clips], BATCH_SECONDS, BATCH_SIZE):
            encoded(encoder, [clips[row] for row in rows])


@pytest.mark.slow
def test_features_take_little_longer_than_the_bare_encoder(tmp_path):
    given = dict(item.split("=") for item in os.environ.get("PROBE_FEATURES", "").split(",") if item)
    folder, weights = Path(given.get("encoder", "../whisper-base")), "pretrained"
    if not folder.is_dir():
        folder, weights = encoder_folder("whisper", **BASE), "random"
    encoder = build_encoder(EncoderConfig(name=str(folder), weights=weights)).eval()
    count, rng = int(20 * float(given.get("minutes", 4))), np.random.default_rng(0)
    rows = []
    for i in range(count):  # three seconds each on average
        write_wav(tmp_path / f"{i}.wav", tone(float(rng.uniform(1.5, 4.5)), seed=i))
        rows.append({"audio_filepath": f"{i}.wav"})
    sources, reader = Selection(str(write_manifest(tmp_path, rows))).sources(), EncoderReader(encoder)
    bare(encoder, sources[:20])
    spent: dict[str, list[float]] = {"bare": [], "features": []}
    for attempt in range(3):
        start = time.perf_counter()
        bare(encoder, sources)
        middle = time.perf_counter()
        extract(sources, [reader], [FeatureCache(tmp_path / "cache", f"attempt-{attempt}")])
        spent["bare"].append(middle - start)
        spent["features"].append(time.perf_counter() - middle)
    ratio = min(spent["features"]) / min(spent["bare"])
    print(f"\nfeatures {min(spent['features']):.2f} s, bare {min(spent['bare']):.2f} s: {ratio:.3f}")
    assert ratio <= 1.15
