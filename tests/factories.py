"""Tiny encoders, models, runs, clips and corpora: the real code in milliseconds, no download.

Models are built as a user builds them, from a Hugging Face config in a folder and `weights: random`; they are 2 layers
deep and 16 wide, with the 50 frames a second of the full-size encoders.
"""

import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from transformers import HubertConfig, Wav2Vec2Config, WavLMConfig, WhisperConfig, WhisperForConditionalGeneration

from harmonifuse_core.config import Config, from_dict, to_dict
from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.runs import RunFolder, environment, save_model, write_json
from harmonifuse_core.tasks import EMOTIONS

WIDTH, LAYERS, HEADS = 16, 2, 2
SPREAD = 0.25  # of fresh weights: at this width the usual 0.02 lets hardly any input through
SENTENCES = ("one two", "go home", "hello there", "a red dog", "it rains", "open it", "we sing", "come back")
_WAVEFORM = dict(
    hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=2 * WIDTH,
    conv_dim=(8, 8, 8), conv_stride=(10, 8, 4), conv_kernel=(10, 8, 4), num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2, vocab_size=32, initializer_range=SPREAD,
)  # fmt: skip
LARGE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)  # as the Large models are built
WHISPER = dict(
    d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=HEADS,
    decoder_attention_heads=HEADS, encoder_ffn_dim=2 * WIDTH, decoder_ffn_dim=2 * WIDTH, max_target_positions=256,
    init_std=SPREAD,
)  # fmt: skip
LLAMA = dict(
    hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
    max_position_embeddings=2048, initializer_range=SPREAD,
)  # fmt: skip
_CLASSES = {"wavlm": WavLMConfig, "hubert": HubertConfig, "wav2vec2": Wav2Vec2Config}


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="harmonifuse-tests-")  # goes when the process ends


def encoder_hf_config(encoder: str = "whisper", **fields):
    """The tiny Hugging Face config of `whisper`, `wavlm`, `hubert` or `wav2vec2`; a `-large` suffix adds `LARGE`."""
    if encoder == "whisper":
        end = byte_tokenizer().end
        special = {f"{name}_token_id": end for name in ("pad", "bos", "eos", "decoder_start")}
        return WhisperConfig(**{**WHISPER, "vocab_size": len(byte_tokenizer()), **special, **fields})
    kind, _, size = encoder.partition("-")
    return _CLASSES[kind](**{**_WAVEFORM, **(LARGE if size == "large" else {}), **fields})


def encoder_folder(encoder: str = "whisper", **fields) -> Path:
    """A folder with the config.json of `encoder_hf_config`, as `encoder.name` wants it."""
    name = "-".join([encoder, *(f"{k}-{v}" for k, v in sorted(fields.items()))])
    folder = Path(_scratch().name) / name
    if not (folder / "config.json").is_file():
        encoder_hf_config(encoder, **fields).save_pretrained(folder)
    return folder


def tiny_config(lm_kind: str = "prefix", encoder: str = "whisper", **changes) -> Config:
    """A config of tiny parts for both built-in tasks, ready for `build_model` and `train`.

    `changes` replace fields by their path, `__` between the names: `model__gate__mode="shared"`, `training__steps=5`.
    """
    values = to_dict(Config())
    values["model"]["encoder"] |= {"name": str(encoder_folder(encoder)), "weights": "random"}
    values["model"]["lm"] |= {
        "kind": lm_kind,
        "ffn_width": 8,
        "architecture": dict(LLAMA if lm_kind == "prefix" else WHISPER),
    }
    values["model"] |= {"dropout": 0.0, "max_seconds": 10.0}
    values["data"] |= {"max_seconds": 8.0}
    values["training"] |= {"batch_size": {"default": 4}, "warmup_steps": 2, "log_every": 1}
    for path, value in changes.items():
        *parents, last = path.split("__")
        functools.reduce(lambda node, key: node[key], parents, values)[last] = to_dict(value)
    return from_dict(Config, values)


def tiny_model(
    lm_kind: str = "prefix", encoder: str = "whisper", seed: int = 0, stirred: bool = True, **changes
) -> HarmoniFuse:
    """The model of `tiny_config` in eval mode; `stirred` takes it off its initial values, see `stir`."""
    torch.manual_seed(seed)
    model = build_model(tiny_config(lm_kind, encoder, **changes).model)
    return (stir(model, seed) if stirred else model).eval()


@torch.no_grad()
def stir(model: torch.nn.Module, seed: int = 0, scale: float = 0.5) -> torch.nn.Module:
    """Add noise to every parameter that starts constant (FFN outputs, gates, norms), so that no error hides there."""
    noise = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise))
    return model


def tiny_whisper(folder: Path) -> WhisperForConditionalGeneration:
    """A tiny Whisper of transformers with random weights, saved in `folder` with its tokenizer as the hub holds it."""
    torch.manual_seed(5)
    model = stir(WhisperForConditionalGeneration(encoder_hf_config("whisper"))).eval()
    model.save_pretrained(folder)
    byte_tokenizer().save(folder)
    return model


def bare_whisper(folder: Path, layers: int = LAYERS, **changes) -> HarmoniFuse:
    """Our model with the weights of the Whisper in `folder` and both fusions on its last state: Whisper itself."""
    settings = {f"model__{part}__name": str(folder) for part in ("encoder", "lm")}
    settings |= {"model__encoder__weights": "pretrained", "model__gate__mode": f"fixed:{layers}"}
    settings |= {"model__lm__fusion": "last", "model__lm__tokenizer": str(folder), "model__lm__architecture": {}}
    return build_model(tiny_config("whisper", **settings, **changes).model).eval()


def tiny_run(
    folder: Path, name: str = "tiny", lm_kind: str = "whisper", encoder: str = "whisper", seed: int = 0, **changes
) -> RunFolder:
    """A run `folder`/`name` with config, environment and the (random, therefore meaningless) model of `tiny_model`."""
    run = RunFolder(Path(folder) / name)
    config = tiny_config(lm_kind, encoder, **changes)
    save_model(tiny_model(lm_kind, encoder, seed, **changes), run, config)
    write_json(run.environment_file, environment() | {"seed": seed})
    return run


def tone(seconds: float, frequency: float = 220.0, seed: int = 0) -> np.ndarray:
    """(S,) float32 at 16 kHz: five harmonics of `frequency`, swelling and fading, and slight noise."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 6))
    wave *= 0.15 * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))
    return (wave + 0.003 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def write_wav(path: Path, waveform: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, waveform, rate)
    return path


def write_manifest(folder: Path, rows: Sequence[Mapping], name: str = "manifest.jsonl") -> Path:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_corpus(folder: Path, n: int = 8) -> tuple[Path, Path]:
    """Two manifests of `n` clips of 0.5 to 1 s: `asr.jsonl` with texts, `ser.jsonl` with the emotions in turn.

    Pitch tells text and emotion. Every fourth clip is of split `test`, the others `train`; speakers are disjoint.
    """
    folder = Path(folder)
    manifests = []
    for task, base in (("asr", 110.0), ("ser", 180.0)):
        rows = []
        for i in range(n):
            seconds = 0.5 + 0.5 * (i % 5) / 4
            write_wav(folder / task / f"{task}-{i}.wav", tone(seconds, base * 1.15 ** (i % 8), seed=i))
            row = {"id": f"{task}-{i}", "audio_filepath": f"{task}/{task}-{i}.wav", "duration": seconds}
            row |= {"speaker": f"speaker-{i % 4}", "gender": "fm"[i % 2], "dataset": f"tones-{task}"}
            row |= {"split": "test" if i % 4 == 3 else "train"}
            row |= {"text": SENTENCES[i % 8]} if task == "asr" else {"emotion": EMOTIONS[i % 8]}
            rows.append(row)
        manifests.append(write_manifest(folder, rows, f"{task}.jsonl"))
    return manifests[0], manifests[1]
