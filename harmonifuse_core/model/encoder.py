"""Build any Hugging Face speech encoder by hub name, local folder or stored config."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel
from transformers.utils import cached_file

from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.model.speech_encoder import SpeechEncoder
from harmonifuse_core.model.waveform_encoder import WaveformSpeechEncoder
from harmonifuse_core.model.whisper_encoder import WhisperSpeechEncoder

WAVEFORM_TYPES = ("wavlm", "hubert", "wav2vec2")


def build_encoder(config: EncoderConfig, hf_config=None) -> SpeechEncoder:
    """Build the encoder that `config.name` names; with `hf_config` given (a saved run) no weights are fetched."""
    stored = hf_config is not None
    if not stored:
        hf_config = read_hf_config(config.name, "encoder.name")
        for key, value in config.overrides.items():
            if not hasattr(hf_config, key):
                raise ValueError(f"encoder.overrides names {key!r}, which {config.name} does not have")
            setattr(hf_config, key, value)
    if hf_config.model_type not in (*WAVEFORM_TYPES, "whisper"):
        known = ", ".join((*WAVEFORM_TYPES, "whisper"))
        raise ValueError(f"encoder.name {config.name!r} is a {hf_config.model_type} model; supported: {known}")
    if hasattr(hf_config, "layerdrop"):
        hf_config.layerdrop = 0.0  # in train mode dropped layers vanish from hidden_states and shift the indices
    if stored or config.weights == "random":
        model = AutoModel.from_config(hf_config, dtype=torch.float32)
    else:
        model = AutoModel.from_pretrained(config.name, config=hf_config, dtype=torch.float32)
    if hf_config.model_type == "whisper":
        return WhisperSpeechEncoder(config, hf_config, model.encoder)
    if config.silence_frames:
        raise ValueError(
            f"encoder.silence_frames is {config.silence_frames}, but {config.name} is a {hf_config.model_type} model, "
            "which hears no window of fixed length: use 0"
        )
    hf_config.do_normalize = wants_normalised_input(config.name, hf_config)  # travels with a saved run
    return WaveformSpeechEncoder(config, hf_config, model, hf_config.do_normalize)


def read_hf_config(name: str, field: str):
    """`AutoConfig` of a hub name or folder, with an error that names the config field and the remedy."""
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{field} {name!r} is neither a local folder with a config.json nor reachable on the model hub: {error}"
        ) from error


def wants_normalised_input(name: str, hf_config) -> bool:
    """What a saved run or the checkpoint's feature extractor says; without either, layer-norm front ends (Large) do."""
    if (known := getattr(hf_config, "do_normalize", None)) is not None:
        return bool(known)
    try:
        stored = cached_file(name, "preprocessor_config.json")
    except (OSError, ValueError):
        return hf_config.feat_extract_norm == "layer"
    return bool(json.loads(Path(stored).read_text()).get("do_normalize", True))
