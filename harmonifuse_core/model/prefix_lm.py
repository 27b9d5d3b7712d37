"""The decoder-only LM of the paper's shape: speech frames, then prompt tokens, then text, through `inputs_embeds`.

Any Hugging Face causal LM, or a small Llama-style one from scratch. Its final norm is lifted out, so that state L is
the output of block L, and its gain becomes the start of the fusion's shared gain.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from harmonifuse_core.config import LMConfig
from harmonifuse_core.model.encoder import read_hf_config
from harmonifuse_core.model.lm import LanguageModel, LMStates, answer_positions, pooled_positions
from harmonifuse_core.model.tokenizer import TextTokenizer, load_tokenizer

FINAL_NORMS = (
    "model.norm",
    "transformer.ln_f",
    "model.decoder.final_layer_norm",
    "gpt_neox.final_layer_norm",
    "model.final_layernorm",
)


@dataclass
class PrefixCache:
    """Key-value cache and the attention mask (B, N) of all positions so far (speech padding lies in its middle)."""

    values: DynamicCache
    mask: Tensor
    pooled: tuple[Tensor, ...] | None = None

    def select(self, rows: Tensor):
        """Keep, repeat or reorder these rows; the speech lies in the rows themselves."""
        self.values.batch_select_indices(rows)
        self.mask = self.mask[rows]
        self.pooled = None if self.pooled is None else tuple(p[rows] for p in self.pooled)


def lift_final_norm(model: nn.Module) -> nn.Module:
    """Replace the model's final norm by the identity and return it."""
    for path in FINAL_NORMS:
        parent, _, name = path.rpartition(".")
        try:
            owner = model.get_submodule(parent)
        except AttributeError:
            continue
        if isinstance(norm := getattr(owner, name, None), nn.Module):
            setattr(owner, name, nn.Identity())
            return norm
    raise ValueError(
        f"{type(model).__name__}: its final norm is at none of {', '.join(FINAL_NORMS)}; use another causal LM"
    )


class PrefixLM(LanguageModel):
    """See `LanguageModel` for shapes. `subsample` frames are stacked and projected into one position."""

    def __init__(self, config: LMConfig, hf_config, tokenizer: TextTokenizer, model: nn.Module, speech_width: int):
        super().__init__(config, hf_config, tokenizer)
        self.final_norm = [lift_final_norm(model)]  # in a list: read once by the fusion, not a module of its own
        self.body = model
        self.width, self.layers = hf_config.hidden_size, hf_config.num_hidden_layers
        self.max_positions = hf_config.max_position_embeddings
        self.bridge = nn.Linear(speech_width * config.subsample, self.width)
        if not config.train_embeddings:
            model.get_input_embeddings().requires_grad_(False)
            model.get_output_embeddings().requires_grad_(False)

    def logits(self, fused: Tensor) -> Tensor:
        return self.body.get_output_embeddings()(fused)

    def _speech(self, speech: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> positions (B, ceil(T / subsample), width) and their mask."""
        k = self.config.subsample
        room = -speech.shape[1] % k
        stacked = nn.functional.pad(speech, (0, 0, 0, room)).unflatten(1, (-1, k)).flatten(2)
        return self.bridge(stacked), nn.functional.pad(mask, (0, room)).unflatten(1, (-1, k)).any(-1)

    def _run(self, embeddings, mask, cache=None, new: int | None = None):
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        if (last := int(positions.max())) >= self.max_positions:
            raise ValueError(
                f"speech, prompt and text take {last + 1} positions, the LM has {self.max_positions}: "
                "shorten the prompt, segment the audio or raise lm.subsample"
            )
        if new is not None:
            positions = positions[:, -new:]
        output = self.body(
            inputs_embeds=embeddings, attention_mask=mask.long(), position_ids=positions, past_key_values=cache,
            use_cache=cache is not None, output_hidden_states=True, logits_to_keep=1,
        )  # fmt: skip
        return tuple(output.hidden_states)

    def teacher_forced(self, speech, mask, prompts, texts, summary=None) -> LMStates:
        speech, mask = self._speech(speech, mask)
        embed, lengths = self.body.get_input_embeddings(), mask.sum(1).tolist()
        rows = []
        texts = texts or [[] for _ in prompts]
        for row, length, prompt, text in zip(speech, lengths, prompts, texts, strict=True):
            rows.append(torch.cat([row[:length], embed(torch.tensor(prompt + text, device=speech.device)).to(row)]))
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, N, D): right padding, which causality hides
        totals = torch.tensor([len(r) for r in rows], device=inputs.device)
        keep = torch.arange(inputs.shape[1], device=inputs.device) < totals[:, None]
        states = self._run(inputs, keep)
        prefix = [n + len(p) for n, p in zip(lengths, prompts, strict=True)]
        pooled = pooled_positions(states, prefix) if self.wants_pooled else None
        count = max(len(t) for t in texts) + 1
        return LMStates(answer_positions(states, [n - 1 for n in prefix], count), pooled)

    def start(self, speech, mask, prompt: list[int]) -> tuple[LMStates, PrefixCache]:
        speech, mask = self._speech(speech, mask)
        words = self.body.get_input_embeddings()(torch.tensor(prompt, device=speech.device)).expand(len(speech), -1, -1)
        inputs = torch.cat([speech, words.to(speech)], 1)
        keep = torch.cat([mask, mask.new_ones(len(mask), len(prompt))], 1)
        cache = PrefixCache(DynamicCache(), keep)
        states = self._run(inputs, keep, cache.values)
        if self.wants_pooled:
            weight = keep[..., None] / keep.sum(1)[:, None, None]
            cache.pooled = tuple((s * weight).sum(1) for s in states)
        return LMStates(tuple(s[:, -1:] for s in states), cache.pooled), cache

    def step(self, tokens: Tensor, cache: PrefixCache) -> LMStates:
        cache.mask = torch.cat([cache.mask, cache.mask.new_ones(len(tokens), 1)], 1)
        inputs = self.body.get_input_embeddings()(tokens)[:, None]
        return LMStates(self._run(inputs, cache.mask, cache.values, new=1), cache.pooled)


def build_prefix_lm(config: LMConfig, speech_width: int, tokenizer: TextTokenizer | None, hf_config) -> PrefixLM:
    """A Hugging Face causal LM by name, or a Llama-style one from `config.architecture` with random weights."""
    stored = hf_config is not None
    tokenizer = tokenizer or load_tokenizer(
        config.tokenizer if config.tokenizer != "bytes" or not config.name else config.name
    )
    if hf_config is None and config.name:
        hf_config = read_hf_config(config.name, "lm.name")
    if hf_config is None:
        small = dict(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            max_position_embeddings=4096,
        )
        special = {f"{name}_token_id": tokenizer.end for name in ("pad", "bos", "eos")}
        hf_config = LlamaConfig(
            **{**small, "vocab_size": len(tokenizer), "tie_word_embeddings": True, **special, **config.architecture}
        )
    if stored or not config.name:
        model = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(config.name, dtype=torch.float32)
    if len(tokenizer) > hf_config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the LM {hf_config.vocab_size}: they do not belong together"
        )
    return PrefixLM(config, hf_config, tokenizer, model, speech_width)
