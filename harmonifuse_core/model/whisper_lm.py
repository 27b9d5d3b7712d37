"""The pre-trained Whisper decoder as the LM: it cross-attends to the fused speech, the task prompt at its start.

The prompt takes the place of Whisper's own "previous text": `<|startofprev|> prompt <|startoftranscript|> ...`.
With `speech_token`, a classification prompt is followed by one position that holds mean and standard deviation of the
fused speech, standardised and projected; the task is answered there. Text is written without it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperModel

from harmonifuse_core.config import LMConfig
from harmonifuse_core.model import few_positions
from harmonifuse_core.model.encoder import read_hf_config
from harmonifuse_core.model.few_rows import FewRows
from harmonifuse_core.model.lm import LanguageModel, LMStates, answer_positions, pad_ids, pooled_positions
from harmonifuse_core.model.silence import Silence
from harmonifuse_core.model.standardise import RunningStandardise
from harmonifuse_core.model.tokenizer import TextTokenizer, load_tokenizer
from harmonifuse_core.model.whisper_encoder import split_heads

KEEP_SPEECH = 0.7  # of the utterances held must be left, or the speech of the others is dropped
MULTILINGUAL_VOCABULARY = 51865  # OpenAI's English-only checkpoints have 51864


@dataclass
class WhisperCache:
    """Keys and values of one generation: cross-attention (fixed) and self-attention (grows), a pair a layer.

    The rows are hypotheses, those of one utterance side by side; the speech is held once an utterance. owners (R,): the
    place of each row's utterance among those held; slots (R,): its number among that utterance's rows. Both None while
    row and utterance are the same.
    queries: where a list is given, the cross-attention's (B, H, N, D / H) of every block are added to it.
    speech (B, T, D): asked without keys and values, where so few positions ask that these are not worth it.
    """

    cross: list[tuple[Tensor, Tensor]]
    speech_mask: Tensor | None
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    pooled: tuple[Tensor, ...] | None = None
    length: int = 0
    owners: Tensor | None = None
    slots: Tensor | None = None
    width: int = 1
    queries: list[Tensor] | None = None
    speech: Tensor | None = None

    def select(self, rows: Tensor):
        """Keep, repeat or reorder these rows (R,); those of one utterance must stay side by side and in order."""
        held = len(self.cross[0][0])
        owners = rows if self.owners is None else self.owners[rows]
        left = torch.unique(owners)
        if len(left) <= KEEP_SPEECH * held:  # copying the speech at every departure costs more than asking it in vain
            self.cross = [(k[left], v[left]) for k, v in self.cross]
            self.speech_mask = None if self.speech_mask is None else self.speech_mask[left]
            owners, held = torch.searchsorted(left, owners), len(left)
        slots = torch.arange(len(owners), device=owners.device) - torch.searchsorted(owners, owners)
        self.width = int(slots.max()) + 1
        plain = self.width == 1 and len(owners) == held
        self.owners, self.slots = (None, None) if plain else (owners, slots)
        self.own = [(k[rows], v[rows]) for k, v in self.own]
        self.pooled = None if self.pooled is None else tuple(p[rows] for p in self.pooled)

    def by_utterance(self, query: Tensor) -> Tensor:
        """(R, 1, D) -> (utterances held, width, D), zero where an utterance has fewer rows; (B, N, D) as it is else."""
        if self.owners is None:
            return query
        padded = query.new_zeros(len(self.cross[0][0]), self.width, query.shape[-1])
        padded[self.owners, self.slots] = query[:, 0]
        return padded

    def by_row(self, answer: Tensor) -> Tensor:
        """The reverse of `by_utterance`."""
        return answer if self.owners is None else answer[self.owners, self.slots][:, None]


class SpeechToken(nn.Module):
    """Mean and standard deviation over time of the fused speech, standardised, projected to one LM embedding.

    They are standardised, since over a corpus their constant part far outweighs what varies. `heads` add means weighted
    by attention over the frames (after Okabe et al. 2018), so that silence and neutral stretches need not count.
    """

    def __init__(self, width: int, embeddings: Tensor, heads: int = 0):
        super().__init__()
        self.attention = None
        if heads:
            self.attention = nn.Sequential(nn.Linear(width, width // 4), nn.Tanh(), nn.Linear(width // 4, heads))
            self.standardise_heads = RunningStandardise(heads * width)
            self.project_heads = nn.Linear(heads * width, width, bias=False)
            nn.init.zeros_(self.project_heads.weight)  # starts as the plain token
        self.standardise = RunningStandardise(2 * width)
        self.project = nn.Linear(2 * width, width)
        nn.init.normal_(self.project.weight, std=float(embeddings.detach().std()) / width**0.5)  # as long as a word's
        nn.init.zeros_(self.project.bias)

    def forward(self, speech: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, D)."""
        count = mask.sum(1, keepdim=True)
        mean = (speech * mask[..., None]).sum(1) / count
        variance = ((speech - mean[:, None]).square() * mask[..., None]).sum(1) / count
        token = self.project(self.standardise(torch.cat([mean, (variance + 1e-5).sqrt()], -1)))
        if self.attention is None:
            return token
        scores = self.attention(nn.functional.layer_norm(speech, speech.shape[-1:])).float()  # (B, T, heads)
        weights = torch.softmax(scores.masked_fill(~mask[..., None], -1e9), 1).to(speech)
        chosen = torch.einsum("bth,btd->bhd", weights, speech).flatten(1)
        return token + self.project_heads(self.standardise_heads(chosen))


class WhisperLM(LanguageModel):
    """See `LanguageModel` for shapes. States are taken before the decoder's final layer norm."""

    def __init__(self, config: LMConfig, hf_config, tokenizer: TextTokenizer, body: nn.Module, speech_width: int):
        super().__init__(config, hf_config, tokenizer)
        self.body = body
        self.silence: Silence | None = None  # the encoder's, where it has one
        self.few_rows = FewRows()
        self.width, self.layers = hf_config.d_model, hf_config.decoder_layers
        self.max_positions = hf_config.max_target_positions
        self.bridge = nn.Identity() if speech_width == self.width else nn.Linear(speech_width, self.width)
        if config.speech_token:
            self.speech_token = SpeechToken(self.width, body.embed_tokens.weight, config.speech_token_heads)
        if not config.train_embeddings:
            body.embed_tokens.requires_grad_(False)

    def logits(self, fused: Tensor) -> Tensor:
        words = self.body.embed_tokens.weight
        if fused.ndim == 2 and fused.device.type == "cpu" and not torch.is_grad_enabled():
            return self.few_rows.product(fused, words)
        return nn.functional.linear(fused, words)

    def _speech(self, speech: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """The speech (B, T, D) as the LM hears it, and its (B, 1, 1, T) mask or None.

        With the encoder's silence, the mask holds what is added to the scores."""
        speech = self.bridge(speech)
        if self.silence is not None:
            return speech, self.silence.scores(mask).to(speech.dtype)
        return speech, None if bool(mask.all()) else mask[:, None, None, :]

    def _memory(self, speech: Tensor, speech_mask: Tensor | None, **more) -> WhisperCache:
        """A cache with the cross-attention keys and values of `_speech`, a pair a layer."""
        cross = []
        for block in self.body.layers:
            attention = block.encoder_attn
            pair = (split_heads(p(speech), attention.num_heads) for p in (attention.k_proj, attention.v_proj))
            if not torch.is_grad_enabled():  # every decoding step reads them again: a head's lie together in memory
                pair = (part.contiguous() for part in pair)
            cross.append(tuple(pair))
        if speech_mask is not None and speech_mask.dtype != torch.bool:
            speech_mask = speech_mask.to(cross[0][0].dtype)  # autocast may have made the keys narrower
        return WhisperCache(cross, speech_mask, **more)

    def _embed(self, ids: Tensor, offset: int) -> Tensor:
        """Token and position embeddings (B, N, D) of `ids` (B, N), whose first stands at position `offset`."""
        if offset + ids.shape[1] > self.max_positions:
            raise ValueError(
                f"prompt and text take {offset + ids.shape[1]} positions, the LM has {self.max_positions}: "
                "shorten the prompt or segment the audio"
            )
        return self.body.embed_tokens(ids) + self.body.embed_positions.weight[offset : offset + ids.shape[1]]

    def _with_token(self, prompts: list[list[int]], speech: Tensor, mask: Tensor, summary: Tensor | None) -> Tensor:
        """Prompts (B, N, D), each followed by the speech token, and `summary` (B, D) added to it, at its own end."""
        hidden = self._embed(pad_ids([p + [self.tokenizer.end] for p in prompts], self.tokenizer.end, speech.device), 0)
        place = torch.tensor([len(p) for p in prompts], device=speech.device)
        token = self.speech_token(speech, mask) + self.body.embed_positions.weight[place]
        token = token if summary is None else token + summary
        here = (torch.arange(hidden.shape[1], device=speech.device) == place[:, None])[..., None]
        return torch.where(here, token[:, None].to(hidden), hidden)

    def _blocks(self, hidden: Tensor, cache: WhisperCache) -> tuple[Tensor, ...]:
        """Run all blocks on N new positions (B, N, D); causal among themselves; extends `cache`."""
        attend, states, new = nn.functional.scaled_dot_product_attention, [hidden], []
        for index, block in enumerate(self.body.layers):
            own, heads = block.self_attn, block.self_attn.num_heads
            normed = block.self_attn_layer_norm(hidden)
            query, key, value = (split_heads(p(normed), heads) for p in (own.q_proj, own.k_proj, own.v_proj))
            if cache.own:
                key, value = (torch.cat(pair, 2) for pair in zip(cache.own[index], (key, value), strict=True))
            new.append((key, value))
            mixed = attend(query, key, value, is_causal=hidden.shape[1] > 1)
            hidden = hidden + own.out_proj(mixed.transpose(1, 2).flatten(2))
            cross = block.encoder_attn
            query = cross.q_proj(block.encoder_attn_layer_norm(hidden))
            query = split_heads(cache.by_utterance(query), heads)  # hypotheses of one utterance ask its speech together
            if cache.queries is not None:
                cache.queries.append(query)
            if cache.speech is None:
                mixed = attend(query, *cache.cross[index], attn_mask=cache.speech_mask)
            else:
                mixed = few_positions.attend(query, cache.speech, cross, cache.speech_mask)
            hidden = hidden + cross.out_proj(cache.by_row(mixed.transpose(1, 2).flatten(2)))
            hidden = hidden + block.fc2(nn.functional.gelu(block.fc1(block.final_layer_norm(hidden))))
            states.append(hidden)
        cache.own, cache.length = new, cache.length + states[0].shape[1]
        return tuple(states)

    def teacher_forced(self, speech, mask, prompts, texts, summary=None) -> LMStates:
        speech, speech_mask = self._speech(speech, mask)
        lengths = [len(p) for p in prompts]
        if texts is None and self.config.speech_token:
            hidden, lengths = self._with_token(prompts, speech, mask, summary), [n + 1 for n in lengths]
        else:
            rows = prompts if texts is None else [p + t for p, t in zip(prompts, texts, strict=True)]
            hidden = self._embed(pad_ids(rows, self.tokenizer.end, speech.device), 0)
        if few_positions.few(hidden.shape[1], self.body.layers[0].encoder_attn.num_heads, self.width):
            cache = WhisperCache([], speech_mask, speech=speech)
        else:
            cache = self._memory(speech, speech_mask)
        states = self._blocks(hidden, cache)
        pooled = pooled_positions(states, lengths) if self.wants_pooled else None
        count = max(map(len, texts or [[]])) + 1
        return LMStates(answer_positions(states, [n - 1 for n in lengths], count), pooled)

    def cross_attention(self, speech, ids: list[int], frames: int) -> Tensor:
        mask = torch.ones(speech.shape[:2], dtype=torch.bool, device=speech.device)
        cache = self._memory(*self._speech(speech, mask), queries=[])
        self._blocks(self._embed(torch.tensor([ids], device=speech.device), 0), cache)
        scores = [
            q @ k[:, :, :frames].mT / q.shape[-1] ** 0.5 for q, (k, _) in zip(cache.queries, cache.cross, strict=True)
        ]
        return torch.softmax(torch.cat(scores).float(), -1)

    def start(self, speech, mask, prompt: list[int]) -> tuple[LMStates, WhisperCache]:
        speech, speech_mask = self._speech(speech, mask)
        cache = self._memory(speech, speech_mask)
        states = self._blocks(self._embed(torch.tensor(prompt, device=speech.device).expand(len(speech), -1), 0), cache)
        if self.wants_pooled:
            cache.pooled = tuple(s.mean(1) for s in states)
        return LMStates(tuple(s[:, -1:] for s in states), cache.pooled), cache

    def step(self, tokens: Tensor, cache: WhisperCache) -> LMStates:
        return LMStates(self._blocks(self._embed(tokens[:, None], cache.length), cache), cache.pooled)


def build_whisper_lm(config: LMConfig, speech_width: int, tokenizer: TextTokenizer | None, hf_config) -> WhisperLM:
    """Pre-trained decoder of `config.name`, or random weights for a stored or `architecture` config."""
    stored = hf_config is not None
    if not stored and config.name:
        hf_config = read_hf_config(config.name, "lm.name")
        if hf_config.model_type != "whisper":
            raise ValueError(
                f"lm.name {config.name!r} is a {hf_config.model_type} model; lm.kind whisper needs a Whisper one"
            )
    language = "en" if hf_config is not None and hf_config.vocab_size >= MULTILINGUAL_VOCABULARY else ""
    tokenizer = tokenizer or load_tokenizer(config.tokenizer, language)
    tokenizer.language = language
    if hf_config is None:
        special = {f"{name}_token_id": tokenizer.end for name in ("pad", "bos", "eos", "decoder_start")}
        hf_config = WhisperConfig(**{"vocab_size": len(tokenizer), **special, **config.architecture})
    if stored or not config.name:
        body = WhisperModel(hf_config).decoder
    else:
        body = WhisperModel.from_pretrained(config.name, dtype=torch.float32).decoder
    if len(tokenizer) > hf_config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the LM {hf_config.vocab_size}: they do not belong together"
        )
    return WhisperLM(config, hf_config, tokenizer, body, speech_width)
