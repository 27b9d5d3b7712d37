"""The scalar that attribution explains: one answer of one task as a function of layer terms, fused frames or prompt.

The same number in three ways, so that scores of layers, frames and prompt tokens add up to the same thing:

    answer.of_terms(terms (N, L1, T, D))      terms: alpha_l * norm(h_l), the summands of the gated encoder fusion
    answer.of_speech(speech (N, T, D))        speech: their sum, what the LM hears
    answer.of_prompt(prompt (N, P, D))        prompt: input embeddings of its tokens

Where a speech token reads each layer apart (`lm.speech_token_layers`), a layer's term has two rows more than frames,
its weighed mean and deviation; and a frame is scored in all layers' terms, since their statistics change with it.

The encoder's alpha is held at its own value: the terms are what the sum adds up, and the question is which of them the
answer needs. `N` perturbed copies of one utterance, `T` frames, `L1` states, `P` prompt tokens, `U` text tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.analysis.prompt_embedding import forced_with_embeddings, input_embedding
from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.model.beam_search import beam_search
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.lm import LMStates
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.tasks import TaskConfig

NEVER = -1e9  # logit of a token that decoding forbids; finite, so that no gradient turns NaN


@dataclass(frozen=True)
class ExplainedAnswer:
    """terms (L1, T or T + 2, D), speech (T, D), prompt (P, D): the intact inputs, detached.

    text: ids of the model's own transcript, None for a class. focus: class index, text token, or None for all tokens.
    target: in words. label: transcript or class. bias (D,): what the fusion adds to the sum of its terms. alpha (L1,).
    """

    model: HarmoniFuse
    spec: TaskConfig
    terms: Tensor
    speech: Tensor
    bias: Tensor
    alpha: Tensor
    prompt: Tensor
    prompt_ids: tuple[int, ...]
    text: tuple[int, ...] | None
    focus: int | None
    target: str
    label: str

    @property
    def reads_layers(self) -> bool:
        """Whether the speech token reads each layer apart."""
        return self.terms.shape[1] > len(self.speech)

    @property
    def frames(self) -> Tensor:
        """What is taken away with a frame: of the fused speech (T, D), or of every layer's term (L1, T, D)."""
        return self.terms[:, : len(self.speech)] if self.reads_layers else self.speech

    def of_terms(self, terms: Tensor) -> Tensor:
        frames = terms[:, :, : len(self.speech)]
        return self._heard(frames.sum(1) + self.bias, self._summary(terms))

    def of_speech(self, speech: Tensor) -> Tensor:
        return self._heard(speech, self._summary(self.terms[None].expand(len(speech), -1, -1, -1)))

    def of_frames(self, frames: Tensor) -> Tensor:
        """(N, *the shape of `frames`) -> (N,)."""
        if not self.reads_layers:
            return self.of_speech(frames)
        summary, mask = self.model.summary, self.model.spoken(self._mask(frames[:, 0]))
        states = (frames / self.alpha.clamp(min=1e-9)[:, None, None]).unbind(1)
        weighed = summary.weigh(summary.statistics(states, mask), self.alpha.expand(len(frames), -1))
        return self._heard(frames.sum(1) + self.bias, summary(weighed))

    def of_prompt(self, prompt: Tensor) -> Tensor:
        speech = self.speech.expand(len(prompt), -1, -1)
        summary = self._summary(self.terms.expand(len(prompt), -1, -1, -1))
        states = forced_with_embeddings(self.model.lm, speech, self._mask(speech), prompt, self.text, summary)
        return self._answer(states)

    def _summary(self, terms: Tensor) -> Tensor | None:
        """(N, D) of the last two rows of terms (N, L1, T + 2, D)."""
        return self.model.summary(terms[:, :, len(self.speech) :].flatten(2)) if self.reads_layers else None

    def _heard(self, speech: Tensor, summary: Tensor | None) -> Tensor:
        texts = None if self.text is None else [list(self.text)] * len(speech)
        prompts = [list(self.prompt_ids)] * len(speech)
        return self._answer(self.model.lm.teacher_forced(speech, self._mask(speech), prompts, texts, summary))

    def _mask(self, speech: Tensor) -> Tensor:
        return torch.ones(speech.shape[:2], dtype=torch.bool, device=speech.device)

    def _answer(self, states: LMStates) -> Tensor:
        """(N,): the class's logit, the token's log probability, or the mean log probability of the text's tokens."""
        fused = self.model.fuse_lm(states, self.spec.name).states
        if self.text is None:
            return self.model.heads[self.spec.name](fused[:, 0])[:, self.focus]
        wanted = list(self.text) or [self.model.tokenizer.end]  # of an empty text: the decision to end
        logits = self.model.lm.logits(fused[:, : len(wanted)]).float()[..., : len(self.model.tokenizer)]  # (N, U, V)
        special = torch.tensor(self.model.tokenizer.special_ids(), dtype=torch.long, device=logits.device)
        logits = logits.index_fill(-1, special, NEVER)  # as decoding does: the number is that of `token_logprobs`
        tokens = torch.tensor(wanted, device=logits.device).expand(len(logits), -1)[..., None]
        logprobs = logits.gather(-1, tokens)[..., 0] - logits.logsumexp(-1)
        return logprobs.mean(1) if self.focus is None else logprobs[:, self.focus]


def explain_answer(
    model: HarmoniFuse, clip: np.ndarray | EncoderStates, task: str, prompt: str | None = None,
    target: str | int | None = None,
) -> ExplainedAnswer:  # fmt: skip
    """Let the model answer, and set up the function of that answer.

    clip: (S,) waveform at 16 kHz, or its states (a batch of one). prompt: None for the default one; "" is no prompt.
    target: a class name (None: the class that the model chose); for text, the position of one token of the model's own
    transcript (None: the mean over all of them). Puts the model in eval mode. Raises ValueError.
    """
    model.eval()
    spec = model.config.task(task)
    prompt = spec.default_prompt if prompt is None else prompt
    with torch.inference_mode(False), torch.no_grad():
        states = clip if isinstance(clip, EncoderStates) else _encode(model, clip)
        states = _single(states)
        gated = model.fuse_encoder(states, task)
        alpha, normed = gated.alpha[0], [model.gate.norm(s) for s in states.states]
        terms = torch.stack([a * s[0] for a, s in zip(alpha, normed, strict=True)])
        ids = model.tokenizer.prompt_ids(prompt)
        text, focus, words, label = _chosen(model, states, gated, spec, prompt, target)
        embeddings = input_embedding(model.lm).weight[ids].clone()
        bias = model.gate.norm.bias.clone()
        speech = terms.sum(0) + bias
        if gated.summary is not None:
            statistics = model.summary.statistics(normed, model.spoken(states.mask))
            weighed = model.summary.weigh(statistics, gated.alpha)[0]
            terms = torch.cat([terms, weighed.unflatten(-1, (2, -1)).to(terms)], 1)
    return ExplainedAnswer(
        model, spec, terms, speech, bias, alpha.clone(), embeddings, tuple(ids), text, focus, words, label
    )  # fmt: skip


def _encode(model: HarmoniFuse, clip: np.ndarray) -> EncoderStates:
    clip = torch.as_tensor(np.asarray(clip, np.float32), device=model.device)
    if clip.ndim != 1 or not len(clip):
        raise ValueError(f"a clip of shape {tuple(clip.shape)}: give one mono waveform (S,) at 16 kHz")
    if (seconds := len(clip) / SAMPLE_RATE) > model.config.max_seconds:
        raise ValueError(
            f"a clip of {seconds:.1f} s is longer than {model.config.max_seconds:g} s: explain a part of it"
        )
    return model.encode(clip[None], torch.tensor([len(clip)], device=model.device))


def _single(states: EncoderStates) -> EncoderStates:
    """A batch of one without padding, in tensors that may take part in autograd."""
    if len(states.mask) != 1:
        raise ValueError(f"{len(states.mask)} utterances: attribution explains one at a time")
    frames = int(states.mask.sum())
    return EncoderStates(tuple(s[:, :frames].clone() for s in states.states), states.mask[:, :frames].clone())


def _chosen(model, states, gated, spec, prompt, target):
    """(text ids or None, focus, target in words, answer)."""
    if not spec.is_transcription:
        output = model.listen(gated, states.mask, [model.tokenizer.prompt_ids(prompt)], None)
        logits = model.heads[spec.name](model.fuse_lm(output, spec.name).states[:, 0])[0]
        label = spec.labels[int(logits.argmax())]
        wanted = label if target is None else target
        if wanted not in spec.labels:
            raise ValueError(f"target {wanted!r} is no class of {spec.name}; it has {', '.join(spec.labels)}")
        return None, spec.labels.index(wanted), f"logit of {wanted!r}", label
    beams = {} if model.config.beams == 1 else {"beams": model.config.beams}
    search = beam_search if beams else greedy
    ids = tuple(search(model, states, gated, spec.name, prompt, **beams)[0].tokens)
    label = model.tokenizer.decode(list(ids))
    if target is None:
        return ids, None, "mean log probability of the transcript's tokens", label
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(ids):
        raise ValueError(f"target {target!r}: give a token of the transcript, 0 to {len(ids) - 1}, or None for all")
    return ids, target, f"log probability of token {target} ({model.tokenizer.piece(ids[target]).strip()!r})", label
