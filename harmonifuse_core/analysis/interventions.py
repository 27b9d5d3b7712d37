"""Change what a fusion weighs and measure the answer: teacher-forced loss, class, and words.

    forced = ForcedTask(model, batch.labelled("ser"), "ser")
    forced.score.loss, forced.with_encoder(alpha=kept(forced.encoder.alpha, keep)).loss

The encoder has run once for the batch; an encoder intervention runs the LM again, one of the LM only its fusion.
Shapes: `B` batch, `T` frames, `N` answer positions, `L1` states, `D` width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.metrics import WordErrors, word_errors
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.fusion import Fused, Survey
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.lm import LMStates
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.randomness import generator

STAGES = ("encoder", "lm")
Change = Callable[[Tensor], Tensor]
NOTHING = 1e-12  # weights below it cannot be scaled up to 1


@dataclass(frozen=True)
class Score:
    """loss (B,): nats; of text the mean over the reference's tokens and its end, of a class -log p(reference class)
    with the head's temperature. predicted (B,): class index, None for text."""

    loss: Tensor
    predicted: Tensor | None = None


class ForcedTask:
    """One task on a batch whose utterances all have its label, under the model's own weights and under others.

    encoder, lm: the intact fusions (`Fused`); lm_states: what the LM's fusion weighs; score: the intact answer.
    prompt: instead of the task's own.
    """

    def __init__(self, model: HarmoniFuse, batch: SpeechBatch, task: str, prompt: str | None = None):
        self.model, self.batch, self.task = model, batch, task
        self.spec, device = model.config.task(task), model.device
        self.prompt = self.spec.default_prompt if prompt is None else prompt
        self.prompt_ids = [model.tokenizer.prompt_ids(self.prompt)] * len(batch.items)
        self.texts = None
        if self.spec.is_transcription:
            self.texts = [list(model.tokenizer.encode(item.text_targets[task])) for item in batch.items]
            targets = [ids + [model.tokenizer.end] for ids in self.texts]
            self.rows = torch.tensor([b for b, t in enumerate(targets) for _ in t], device=device)
            self.columns = torch.tensor([u for t in targets for u in range(len(t))], device=device)
            self.tokens = torch.tensor([i for t in targets for i in t], device=device)
        else:
            labels = [self.spec.labels.index(item.targets[task]) for item in batch.items]
            self.labels = torch.tensor(labels, device=device)
        self.encoder = model.fuse_encoder(batch.states, task)
        self.lm_states = self.listen(self.encoder)
        self.lm = model.fuse_lm(self.lm_states, task)
        self.score = self._scored(self.lm)

    def listen(self, fused: Fused) -> LMStates:
        """The LM's states at the answer positions for fused speech (B, T, D)."""
        return self.model.listen(fused, self.batch.states.mask, self.prompt_ids, self.texts)

    def _scored(self, answer: Fused) -> Score:
        if not self.spec.is_transcription:
            head = self.model.heads[self.task]
            logits = head(answer.states[:, 0]).float()
            loss = -torch.log_softmax(logits / head.temperature, -1).gather(1, self.labels[:, None])[:, 0]
            return Score(loss, logits.argmax(-1))
        logits = self.model.lm.logits(answer.states[self.rows, self.columns]).float()  # (tokens of all, V)
        each = torch.nn.functional.cross_entropy(logits, self.tokens, reduction="none")
        return Score(self._over_tokens(each))

    def _over_tokens(self, values: Tensor) -> Tensor:
        """Mean over each utterance's own positions: (tokens of all, ...) -> (B, ...)."""
        sums = values.new_zeros(len(self.batch.items), *values.shape[1:]).index_add_(0, self.rows, values)
        counts = torch.bincount(self.rows, minlength=len(sums)).to(values)
        return sums / counts.reshape(-1, *[1] * (values.ndim - 1))

    def per_utterance(self, stage: str, weights: Tensor) -> Tensor:
        """(B, L1) of a fusion's weights: for the LM those of the answer position, or the mean over the text's."""
        if stage == "encoder":
            return weights
        return self._over_tokens(weights[self.rows, self.columns]) if self.texts is not None else weights[:, 0]

    def fused(self, stage: str) -> Fused:
        return self.encoder if stage == "encoder" else self.lm

    def states(self, stage: str) -> tuple[Tensor, ...]:
        """L1 states (B, T or N, D) that the stage weighs."""
        return self.batch.states.states if stage == "encoder" else self.lm_states.states

    def under(self, stage: str, alpha: Tensor | None = None, states: tuple[Tensor, ...] | None = None) -> Score:
        """The answer with these weights (None: what the model's own gate gives) on these states (None: its own).

        alpha: (L1,) or (B, L1); for the LM also (B, N, L1). It need not sum to 1.
        """
        if stage == "encoder":
            speech = replace(self.batch.states, states=states or self.batch.states.states)
            fused = self.model.fuse_encoder(speech, self.task, alpha)
            return self._scored(self.model.fuse_lm(self.listen(fused), self.task))
        alpha = alpha[:, None] if alpha is not None and alpha.ndim == 2 else alpha
        changed = replace(self.lm_states, states=states or self.lm_states.states)
        return self._scored(self.model.fuse_lm(changed, self.task, alpha))

    def words(self, stage: str = "encoder", alpha: Tensor | Change | None = None) -> list[WordErrors]:
        """Word errors of greedy decoding. alpha: (B, L1) weights for every token, or a function that maps the stage's
        own weights (..., L1), of whichever utterances still write, to the ones to use."""
        fused, model, fixed = self.encoder, self.model, None
        if alpha is not None and stage == "encoder":
            own = alpha(fused.alpha) if callable(alpha) else alpha
            fused = model.fuse_encoder(self.batch.states, self.task, own)
        elif alpha is not None and callable(alpha):
            model = ChangedFusions(model, lm=alpha)
        elif alpha is not None:
            fixed = alpha[:, None]
        written = greedy(model, self.batch.states, fused, self.task, self.prompt, lm_alpha=fixed)
        texts = [self.model.tokenizer.decode(w.tokens) for w in written]
        return [word_errors(i.targets[self.task], t) for i, t in zip(self.batch.items, texts, strict=True)]


class ChangedFusions:
    """A model whose weights are changed on the way, the LM's token by token; everything else is the model's.

    encoder, lm: functions that map the fusion's own weights (..., L1) to the ones to use; None leaves them.
    """

    def __init__(self, model: HarmoniFuse, encoder: Change | None = None, lm: Change | None = None):
        self._model, self._encoder, self._lm = model, encoder, lm

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def fuse_encoder(
        self, states: EncoderStates, task: str, alpha: Tensor | None = None, survey: Survey | None = None
    ) -> Fused:
        own = self._model.fuse_encoder(states, task, alpha, survey)
        if self._encoder is None:
            return own
        return self._model.fuse_encoder(states, task, self._encoder(own.alpha), survey)

    def fuse_lm(self, states: LMStates, task: str, alpha: Tensor | None = None) -> Fused:
        own = self._model.fuse_lm(states, task, alpha)
        return own if self._lm is None else self._model.fuse_lm(states, task, self._lm(own.alpha))


def kept(alpha: Tensor, keep: Tensor, renormalise: bool = True) -> Tensor:
    """Weights (..., L1) of the layers in `keep` (bool, broadcast), the others 0; scaled back to their former sum.

    Where the kept layers have no weight at all nothing can be scaled: all stay 0.
    """
    left = alpha * keep
    if not renormalise:
        return left
    total = left.sum(-1, keepdim=True)
    return torch.where(total > NOTHING, left / total.clamp(min=NOTHING) * alpha.sum(-1, keepdim=True), 0.0)


def partners(batch: SpeechBatch, seed: int) -> list[int] | None:
    """For each utterance another one of the batch, of another speaker where there is one; None for a batch of one.

    Depends on the seed and the utterance's id, not on what was drawn before.
    """
    items = batch.items
    if len(items) < 2:
        return None
    chosen = []
    for position, item in enumerate(items):
        others = [i for i in range(len(items)) if i != position]
        strangers = [i for i in others if items[i].speaker != item.speaker]
        pool = strangers or others
        chosen.append(pool[int(generator(seed, "partner", item.id).integers(len(pool)))])
    return chosen


def others_state(state: Tensor, frames: Tensor, partner: Sequence[int]) -> Tensor:
    """Each utterance gets its partner's (B, N, D) state, stretched to its own number of valid positions `frames` (B,)
    by repeating or dropping positions evenly."""
    index = torch.tensor(list(partner), device=state.device)
    place = torch.arange(state.shape[1], device=state.device)
    source = (place * frames[index][:, None] // frames[:, None]).clamp(max=state.shape[1] - 1)  # (B, N)
    return torch.gather(state[index], 1, source[..., None].expand(-1, -1, state.shape[-1]))


def mean_state(state: Tensor, frames: Tensor) -> Tensor:
    """Every position gets the mean over all valid positions of the batch's other utterances (B >= 2)."""
    valid = torch.arange(state.shape[1], device=state.device) < frames[:, None]
    sums = (state * valid[..., None]).sum(1)  # (B, D)
    mean = (sums.sum(0) - sums) / (frames.sum() - frames)[:, None]
    return mean[:, None].expand_as(state)


def positions(forced: ForcedTask, stage: str) -> Tensor:
    """Valid positions (B,) of the stage's states: frames of speech, or answer positions of the LM."""
    if stage == "encoder":
        return forced.batch.states.frames
    if forced.texts is None:
        return torch.ones(len(forced.batch.items), dtype=torch.long, device=forced.model.device)
    return torch.tensor([len(t) + 1 for t in forced.texts], device=forced.model.device)


def norms(forced: ForcedTask, stage: str) -> tuple[Tensor, Tensor]:
    """Mean length of each layer's state as the fusion weighs it, and as it leaves the layer: (B, L1) each, sum 1."""
    layers = len(forced.states(stage))
    uniform = torch.full((layers,), 1 / layers, device=forced.model.device)
    if stage == "encoder":
        weighed = forced.model.fuse_encoder(forced.batch.states, forced.task, uniform).share
        mask = forced.batch.states.mask
        lengths = [(s.norm(dim=-1) * mask).sum(1) / mask.sum(1) for s in forced.batch.states.states]
        raw = torch.stack(lengths, -1)
    else:
        fused = forced.model.fuse_lm(forced.lm_states, forced.task, uniform)
        weighed = forced.per_utterance(stage, fused.share)
        raw = forced.per_utterance(stage, torch.stack([s.norm(dim=-1) for s in forced.lm_states.states], -1))
    return weighed / weighed.sum(-1, keepdim=True), raw / raw.sum(-1, keepdim=True)


def forced_tasks(model: HarmoniFuse, batch: SpeechBatch) -> Iterator[ForcedTask]:
    """Every task of the model, on those of the batch's utterances that have its label."""
    for task in model.config.tasks:
        if (labelled := batch.labelled(task.name)) is not None:
            yield ForcedTask(model, labelled, task.name)
