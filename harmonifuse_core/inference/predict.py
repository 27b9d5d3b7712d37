"""Waveforms to answers: batched by length, long audio in segments, every task on one encoder pass."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.data.segmentation import segment
from harmonifuse_core.inference.parallel import Workers, length_batches, shared_batches
from harmonifuse_core.model.beam_search import beam_search
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.fusion import Survey
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput, LayerWeights
from harmonifuse_core.model.heads import ctc_greedy
from harmonifuse_core.model.speech_encoder import EncoderStates

Answers = dict[str, HarmoniFuseOutput]  # by task


@dataclass(frozen=True)
class PredictOptions:
    """tasks: which to answer (all when empty); prompts: {task: text} instead of the default prompt.

    batch_seconds: padded speech answered together; batch_size: utterances in it at most; encode_seconds: padded speech
        in one encoder pass (the encoder is fastest on little at a time, which stays in the cache, the LM on much).
    beams: hypotheses while writing text; 0 takes the model's own setting.
    encoder_alpha, lm_alpha: {task: (L1,) weights} that replace the model's own (interventions).
    """

    tasks: tuple[str, ...] = ()
    prompts: dict[str, str] | None = None
    batch_seconds: float = 320.0
    encode_seconds: float = 10.0
    batch_size: int = 32
    beams: int = 0
    encoder_alpha: dict[str, torch.Tensor] | None = None
    lm_alpha: dict[str, torch.Tensor] | None = None

    def task_names(self, model: HarmoniFuse) -> list[str]:
        return [model.config.task(name).name for name in self.tasks] or [task.name for task in model.config.tasks]

    def prompt(self, model: HarmoniFuse, task: str) -> str:
        return (self.prompts or {}).get(task) or model.config.task(task).default_prompt


def predict(
    model: HarmoniFuse, waveforms: Sequence[np.ndarray], options: PredictOptions = PredictOptions()
) -> list[Answers]:
    """Answers for 16 kHz mono `waveforms` (S_i,) of any length, in their order. Raises ValueError for an empty one."""
    answers: list[Answers | None] = [None] * len(waveforms)
    for index, answer in predict_stream(model, waveforms, options):
        answers[index] = answer
    return answers


def predict_stream(
    model: HarmoniFuse, waveforms: Sequence[np.ndarray], options: PredictOptions = PredictOptions(),
    workers: Workers | None = None,
) -> Iterator[tuple[int, Answers]]:  # fmt: skip
    """Yield (index, answers) as batches finish; on a CPU as many at once as torch may use threads.

    `workers`: whose work goes on in the meantime (its own where None).
    """
    if empty := [index for index, waveform in enumerate(waveforms) if not len(waveform)]:
        raise ValueError(f"waveform {empty[0]} holds no sample: leave it out")
    pieces = [(i, w[a:b]) for i, w in enumerate(waveforms) for a, b in segment(w, max_seconds=model.config.max_seconds)]
    missing = np.bincount([i for i, _ in pieces], minlength=len(waveforms))
    done: dict[int, list[tuple[int, Answers, float]]] = {}
    seconds = [len(w) / SAMPLE_RATE for _, w in pieces]

    def work(batch: list[int]) -> list[Answers]:
        return predict_batch(model, [pieces[place][1] for place in batch], options)

    with nullcontext(workers) if workers else Workers(model.device) as workers:
        batches = shared_batches(seconds, options.batch_seconds, options.batch_size, workers.count)
        for batch, found in workers.side_by_side(work, batches):
            for place, answer in zip(batch, found, strict=True):
                index, piece = pieces[place]
                done.setdefault(index, []).append((place, answer, len(piece) / SAMPLE_RATE))
                if len(done[index]) == missing[index]:
                    parts = sorted(done.pop(index), key=lambda part: part[0])
                    yield index, stitch([p for _, p, _ in parts], [s for _, _, s in parts])


@torch.inference_mode()
def predict_batch(model: HarmoniFuse, waveforms: Sequence[np.ndarray], options: PredictOptions) -> list[Answers]:
    """Answers for clips that fit the encoder as they are. The model is put in eval mode."""
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        states = encode(model, waveforms, options.encode_seconds)
        survey = model.survey(states)
        columns = {task: answer_task(model, states, task, options, survey) for task in options.task_names(model)}
    return [{task: column[row] for task, column in columns.items()} for row in range(len(waveforms))]


def encode(model: HarmoniFuse, waveforms: Sequence[np.ndarray], seconds: float) -> EncoderStates:
    """States of all clips together, computed over about `seconds` of padded speech at a time, in the clips' order."""
    parts = []
    for rows in length_batches([len(w) / SAMPLE_RATE for w in waveforms], seconds, len(waveforms)):
        batch, lengths = pad_waveforms([waveforms[row] for row in rows])
        parts.append((rows, model.encode(batch.to(model.device), lengths.to(model.device))))
    if len(parts) == 1 and parts[0][0] == list(range(len(waveforms))):
        return parts[0][1]
    frames = max(states.mask.shape[1] for _, states in parts)
    mask = torch.zeros(len(waveforms), frames, dtype=torch.bool, device=model.device)
    first = parts[0][1].states[0]
    joined = [first.new_zeros(len(waveforms), frames, first.shape[-1]) for _ in parts[0][1].states]
    for rows, states in parts:
        width = states.mask.shape[1]
        mask[rows, :width] = states.mask
        for target, state in zip(joined, states.states, strict=True):
            target[rows, :width] = state
    return EncoderStates(tuple(joined), mask)


def answer_task(
    model: HarmoniFuse, states, task: str, options: PredictOptions, survey: Survey | None = None
) -> list[HarmoniFuseOutput]:
    """One task's answers for encoded speech, in batch order."""
    spec, prompt = model.config.task(task), options.prompt(model, task)
    fused = model.fuse_encoder(states, task, (options.encoder_alpha or {}).get(task), survey)
    lm_alpha = (options.lm_alpha or {}).get(task)
    parts = [p.detach().float().cpu().numpy() for p in (fused.alpha, fused.bias, fused.score, fused.share)]
    encoder = [LayerWeights(*(p[row] for p in parts)) for row in range(len(states.mask))]
    if spec.is_transcription:
        beams = options.beams or model.config.beams
        search = greedy if beams == 1 else partial(beam_search, beams=beams)
        generated = search(model, states, fused, task, prompt, lm_alpha=lm_alpha)
        return [_transcript(model, task, prompt, e, g) for e, g in zip(encoder, generated, strict=True)]
    prompts = [model.tokenizer.prompt_ids(prompt)] * len(encoder)
    output = model.listen(fused, states.mask, prompts, None)
    answer = model.fuse_lm(output, task, lm_alpha)
    if spec.writes_text:
        return _unit_sequences(model, spec, prompt, encoder, states, fused, answer)
    probabilities = model.heads[task].probabilities(model.heads[task](answer.states[:, 0])).cpu().numpy()
    parts = [p[:, 0].float().cpu().numpy() for p in (answer.alpha, answer.bias, answer.score, answer.share)]
    rows = []
    for row, (weights, p) in enumerate(zip(encoder, probabilities, strict=True)):
        named = dict(zip(spec.labels, map(float, p), strict=True))
        lm = LayerWeights(*(part[row] for part in parts))
        rows.append(
            HarmoniFuseOutput(task, prompt, weights, lm, label=spec.labels[int(p.argmax())], probabilities=named)
        )
    return rows


def _transcript(model, task, prompt, encoder, generated) -> HarmoniFuseOutput:
    weights = LayerWeights(generated.alpha, generated.bias, generated.score, generated.share)
    mean = LayerWeights(*(getattr(weights, name).mean(0) for name in ("alpha", "bias", "score", "share")))
    return HarmoniFuseOutput(
        task, prompt, encoder, mean, text=model.tokenizer.decode(generated.tokens),
        tokens=tuple(model.tokenizer.piece(t) for t in generated.tokens), token_logprobs=generated.logprobs,
        token_weights=weights, truncated=generated.truncated,
    )  # fmt: skip


def _unit_sequences(model, spec, prompt, encoder, states, fused, answer) -> list[HarmoniFuseOutput]:
    """Of a CTC task: the LM answers once, so every unit has the same LM weights."""
    found = ctc_greedy(model.heads[spec.name](fused.states, answer.states[:, 0]), states.frames)
    parts = [p[:, 0].float().cpu().numpy() for p in (answer.alpha, answer.bias, answer.score, answer.share)]
    rows = []
    for row, (weights, pairs) in enumerate(zip(encoder, found, strict=True)):
        lm, units = LayerWeights(*(part[row] for part in parts)), tuple(spec.labels[unit] for unit, _ in pairs)
        each = LayerWeights(*(np.repeat(part[row][None], max(len(units), 1), 0) for part in parts))
        rows.append(
            HarmoniFuseOutput(
                spec.name, prompt, weights, lm, text=spec.join_units(units), tokens=units,
                token_logprobs=np.array([p for _, p in pairs], np.float32), token_weights=each,
            )
        )  # fmt: skip
    return rows


def stitch(parts: list[Answers], seconds: list[float]) -> Answers:
    """Join the answers of consecutive segments: text one after the other, probabilities and weights by duration."""
    if len(parts) == 1:
        return parts[0]
    share = np.array(seconds) / sum(seconds)
    return {task: _stitch_task([p[task] for p in parts], share) for task in parts[0]}


def _mean_weights(items: list[LayerWeights], share: np.ndarray) -> LayerWeights:
    names = ("alpha", "bias", "score", "share")
    return LayerWeights(
        *(np.average([getattr(w, n) for w in items], axis=0, weights=share).astype(np.float32) for n in names)
    )


def _stitch_task(parts: list[HarmoniFuseOutput], share: np.ndarray) -> HarmoniFuseOutput:
    joined = replace(parts[0], encoder=_mean_weights([p.encoder for p in parts], share))
    if parts[0].probabilities is not None:
        mean = {k: float(np.dot(share, [p.probabilities[k] for p in parts])) for k in parts[0].probabilities}
        lm = _mean_weights([p.lm for p in parts], share)
        return replace(joined, lm=lm, probabilities=mean, label=max(mean, key=mean.get))
    tokens = LayerWeights(
        *(np.concatenate([getattr(p.token_weights, n) for p in parts]) for n in ("alpha", "bias", "score", "share"))
    )
    return replace(
        joined,
        lm=LayerWeights(*(getattr(tokens, n).mean(0) for n in ("alpha", "bias", "score", "share"))),
        text=" ".join(p.text for p in parts if p.text),
        tokens=tuple(t for p in parts for t in p.tokens),
        token_logprobs=np.concatenate([p.token_logprobs for p in parts]),
        token_weights=tokens,
        truncated=any(p.truncated for p in parts),
    )
