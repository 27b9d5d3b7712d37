"""HarmoniFuse (arXiv 2509.18570): gated encoder fusion and prompt-adaptive LM fusion for multi-task speech models.

| paper | in code | shape |
|---|---|---|
| H_i, i = 0..L | `EncoderStates.states[i]` | (B, T, D) each, L + 1 of them |
| w | `GatedEncoderFusion.logits` | (K, L + 1), or (1, L + 1) when shared |
| softmax(w) | `encoder_alpha` | (L + 1,) |
| H_fused | `Fused.states` of the gate | (B, T, D) |
| h_l, l = 0..L | `LMStates.states[l]` | (B, N, D) each, L + 1 of them |
| b^tau_l | `PromptAdaptiveFusion.task_bias` | (K, L + 1) |
| FFN(h_l) | `Fused.score` of the LM fusion | (B, N, L + 1) |
| alpha^tau_l | `lm_alpha` | (B, N, L + 1) |
| h_fused | `Fused.states` of the LM fusion | (B, N, D) |

B batch, T speech frames, N answer positions, L layers, D width, K tasks. Index 0 is the state before the first block.
"""

from importlib import import_module

_PUBLIC = {
    "Config": "harmonifuse_core.config",
    "HarmoniFuse": "harmonifuse_core.model.harmonifuse",
    "HarmoniFuseOutput": "harmonifuse_core.model.harmonifuse",
    "PredictOptions": "harmonifuse_core.inference.predict",
    "RunFolder": "harmonifuse_core.runs",
    "build_model": "harmonifuse_core.model.harmonifuse",
    "load": "harmonifuse_core.runs",
    "load_audio": "harmonifuse_core.data.audio",
    "predict": "harmonifuse_core.inference.predict",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    """Import public names on first use, so that commands that need no torch start at once."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harmonifuse_core' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
