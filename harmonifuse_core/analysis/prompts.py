"""Does the prompt decide anything? Every prompt under every task's id: alpha, answers, errors against the own prompt's.

The task's id (its b^tau, gate row and head) stays; only the prompt's words change. The encoder's gate stands before the
prompt and cannot see it. Text is decoded greedily, so that all conditions are affordable; `infer` may use beams.
Shapes: `B` batch, `L1` states.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmonifuse_core.analysis.material import SpeechBatch, Spoken
from harmonifuse_core.analysis.prompt_conditions import PromptCondition, prompt_conditions
from harmonifuse_core.analysis.prompt_tables import NAME, QUESTION, summarise
from harmonifuse_core.analysis.registry import Analysis, AnalysisOptions
from harmonifuse_core.metrics import normalize_text, word_errors
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.fusion import Fused
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.routing import jensen_shannon
from harmonifuse_core.tasks import TaskConfig


@dataclass(frozen=True)
class Answer:
    """text: transcript or class. tokens: ids of a transcript, None for a class. alpha: (L1,) of the LM."""

    text: str
    alpha: np.ndarray
    tokens: list[int] | None = None
    truncated: bool = False


def task_batch(batch: SpeechBatch, task: str) -> SpeechBatch | None:
    """The utterances that count for `task`: those with its label, and those without any label at all."""
    positions = [i for i, item in enumerate(batch.items) if task in item.targets or not item.targets]
    return batch.rows(positions) if positions else None


def answers(model: HarmoniFuse, states: EncoderStates, fused: Fused, spec: TaskConfig, prompt: str) -> list[Answer]:
    """B answers of one task under `prompt`; `fused` from `model.fuse_encoder`."""
    if spec.is_transcription:
        generated = greedy(model, states, fused, spec.name, prompt)
        return [Answer(model.tokenizer.decode(g.tokens), g.alpha.mean(0), g.tokens, g.truncated) for g in generated]
    prompts = [model.tokenizer.prompt_ids(prompt)] * len(states.mask)
    answer = model.fuse_lm(model.listen(fused, states.mask, prompts, None), spec.name)
    chosen = model.heads[spec.name](answer.states[:, 0]).argmax(-1).tolist()
    return [Answer(spec.labels[c], a) for c, a in zip(chosen, answer.alpha[:, 0].cpu().numpy(), strict=True)]


def text_alpha(
    model: HarmoniFuse, states: EncoderStates, fused: Fused, task: str, prompt: str, texts: Sequence[list[int]]
) -> np.ndarray:
    """LM alpha (B, L1) where each utterance's text (B lists of ids) is given: mean over its tokens, as `infer` does.

    An empty text has the weights of the position that chose to end.
    """
    prompts = [model.tokenizer.prompt_ids(prompt)] * len(texts)
    output = model.listen(fused, states.mask, prompts, [list(t) for t in texts])
    alpha = model.fuse_lm(output, task).alpha  # (B, N, L1)
    counts = torch.tensor([max(1, len(t)) for t in texts], device=alpha.device)
    used = torch.arange(alpha.shape[1], device=alpha.device) < counts[:, None]
    return ((alpha * used[..., None]).sum(1) / counts[:, None]).cpu().numpy()


def collect(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """One row an utterance, task and prompt.

    `lm_alpha`, `lm_jsd`: of the answer under this prompt, and its divergence from the own prompt's. `same_text_alpha`,
    `same_text_jsd`: this prompt before the transcript that the own prompt gave, so that only the prompt differs; for
    classes the same as the first two. Without `options.words` nothing is decoded, and the given text is the reference.
    """
    rows = []
    for spec in model.config.tasks:
        decode = options.words or not spec.is_transcription
        mine = task_batch(batch, spec.name) if decode else batch.labelled(spec.name)
        if mine is None:
            continue
        fused = model.fuse_encoder(mine.states, spec.name)
        conditions = prompt_conditions(model.config, model.tokenizer, spec.name, options.prompts, options.seed)
        own = answers(model, mine.states, fused, spec, conditions[0].text) if decode else None
        texts = None
        if spec.is_transcription:
            references = [item.text_targets.get(spec.name, "") for item in mine.items]
            texts = [a.tokens for a in own] if own else [model.tokenizer.encode(text) for text in references]
        own_same = None
        for condition in conditions:
            given = own if condition is conditions[0] else None
            if given is None and decode:
                given = answers(model, mine.states, fused, spec, condition.text)
            same = np.stack([a.alpha for a in given]) if texts is None else None
            if same is None:
                same = text_alpha(model, mine.states, fused, spec.name, condition.text, texts)
            own_same = same if own_same is None else own_same
            for i, item in enumerate(mine.items):
                row = _head(item, spec, condition) | _weights("same_text", same[i], own_same[i])
                if given:
                    row |= _weights("lm", given[i].alpha, own[i].alpha) | _outcome(item, spec, given[i], own[i])
                rows.append(row)
    return rows


def _head(item: Spoken, spec: TaskConfig, condition: PromptCondition) -> dict:
    return {
        "utterance": item.id, "speaker": item.speaker, "task": spec.name, "kind": condition.kind,
        "prompt": condition.text.strip(), "source": condition.source,
    }  # fmt: skip


def _weights(name: str, alpha: np.ndarray, own: np.ndarray) -> dict:
    divergence = jensen_shannon(alpha.astype(np.float64), own.astype(np.float64))
    return {f"{name}_alpha": alpha.tolist(), f"{name}_jsd": float(divergence)}


def _outcome(item: Spoken, spec: TaskConfig, answer: Answer, own: Answer) -> dict:
    """answer, reference, changed, invalid, and the counts behind the score; None where a label is missing."""
    reference = item.targets.get(spec.name)
    if not spec.is_transcription:
        return {
            "answer": answer.text, "reference": reference, "changed": answer.text != own.text, "invalid": False,
            "errors": None if reference is None else float(answer.text != reference),
            "reference_words": None,
        }  # fmt: skip
    counts = None if reference is None else word_errors(reference, answer.text)
    expected = bool(own.text) if counts is None else counts.reference_words > 0
    return {
        "answer": answer.text, "reference": reference,
        "changed": normalize_text(answer.text) != normalize_text(own.text),
        "invalid": answer.truncated or (expected and not answer.text.strip()),
        "errors": None if counts is None else float(counts.word_errors),
        "reference_words": None if counts is None else counts.reference_words,
    }  # fmt: skip


ANALYSIS = Analysis(name=NAME, question=QUESTION, collect=collect, summarise=summarise)
