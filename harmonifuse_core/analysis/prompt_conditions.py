"""Which prompts are tried under a task's id: its own, its paraphrases, other tasks', nonsense, none, the user's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.config import ModelConfig
from harmonifuse_core.model.tokenizer import TextTokenizer
from harmonifuse_core.randomness import generator

OWN, PARAPHRASE, OTHER, RANDOM, EMPTY, USER = KINDS = ("own", "paraphrase", "other task", "random", "empty", "user")
FOREIGN = (OTHER, RANDOM, EMPTY)  # do not ask for the task: a model that listens should mind them
NO_PROMPT = " "  # `prompt_ids` strips it and keeps the special tokens; the empty string would mean "the default"
RANDOM_PROMPTS = 3
_TRIES, _WORDS_ENOUGH = 2000, 200


@dataclass(frozen=True)
class PromptCondition:
    """One prompt under the id (b^tau, gate, head) of `task`. source: the task whose prompt it is, empty for none."""

    task: str
    kind: str
    text: str
    source: str = ""


def prompt_conditions(
    config: ModelConfig, tokenizer: TextTokenizer, task: str, user: Sequence[str] = (), seed: int = 0
) -> list[PromptCondition]:
    """All conditions of `task`, its own default prompt first; a text that stands twice counts once."""
    own, *paraphrases = config.task(task).prompts
    found = [PromptCondition(task, OWN, own, task)]
    found += [PromptCondition(task, PARAPHRASE, text, task) for text in paraphrases]
    found += [PromptCondition(task, OTHER, p, t.name) for t in config.tasks if t.name != task for p in t.prompts]
    length = len(tokenizer.encode(own))
    found += [PromptCondition(task, RANDOM, random_prompt(tokenizer, length, seed, i)) for i in range(RANDOM_PROMPTS)]
    found.append(PromptCondition(task, EMPTY, NO_PROMPT))
    found += [PromptCondition(task, USER, text) for text in user if text.strip()]
    first = {}
    for condition in found:
        first.setdefault(condition.text, condition)
    return list(first.values())


def word_tokens(tokenizer: TextTokenizer) -> list[int]:
    """Ids that are a whole word with its leading space; in a vocabulary of few words, every letter."""
    special = set(tokenizer.special_ids()) | {tokenizer.end}
    pieces = [(i, tokenizer.backend.decode([i])) for i in range(len(tokenizer)) if i not in special]
    words = [i for i, piece in pieces if piece[:1] == " " and piece[1:].isascii() and piece[1:].isalpha()]
    return words if len(words) >= _WORDS_ENOUGH else [i for i, piece in pieces if piece.isascii() and piece.isalpha()]


def random_prompt(tokenizer: TextTokenizer, length: int, seed: int, number: int = 0) -> str:
    """Text of random words that the tokenizer reads back as exactly `length` tokens, as text that anyone can type.

    Raises ValueError for a vocabulary without ASCII words or letters.
    """
    pool, rng = word_tokens(tokenizer), generator("random prompt", seed, number, length)
    if length < 1:
        return NO_PROMPT
    for attempt in range(_TRIES if pool else 0):
        count = max(1, length - attempt % 3)  # the leading space may be a token of its own
        text = tokenizer.decode(np.asarray(pool)[rng.integers(len(pool), size=count)].tolist())
        if len(tokenizer.encode(text)) == length:
            return text
    raise ValueError(f"the tokenizer gives no random text of {length} tokens; it needs ASCII words or letters")
