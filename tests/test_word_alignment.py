"""Word alignment: every kind of error in its place, and as many as `word_errors` counts."""

import pytest

from harmonifuse_core.metrics import word_errors
from harmonifuse_core.word_alignment import DELETED, EQUAL, INSERTED, SUBSTITUTED, WordStep, align_words


def test_each_kind_stands_where_it_happened():
    assert align_words("the cat sat on my mat", "the bat sat my mat now") == (
        WordStep(EQUAL, "the", "the"), WordStep(SUBSTITUTED, "cat", "bat"), WordStep(EQUAL, "sat", "sat"),
        WordStep(DELETED, "on", ""), WordStep(EQUAL, "my", "my"), WordStep(EQUAL, "mat", "mat"),
        WordStep(INSERTED, "", "now"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [("one two three", "won too three four"), ("", "hello there"), ("hello there", ""), ("", ""),
     ("It's Mr. X", "it is x"), ("a a b a", "b b a a a"), ("kids are talking", "Kids, are talking!")],
)  # fmt: skip
def test_the_steps_are_the_errors_that_are_counted(reference, hypothesis):
    steps, counts = align_words(reference, hypothesis), word_errors(reference, hypothesis)
    kinds = [step.kind for step in steps]
    assert kinds.count(SUBSTITUTED) == counts.substitutions and kinds.count(DELETED) == counts.deletions
    assert kinds.count(INSERTED) == counts.insertions and kinds.count(EQUAL) == counts.hits


def test_without_normalisation_case_counts():
    assert [s.kind for s in align_words("Kids", "kids", "none")] == [SUBSTITUTED]
    with pytest.raises(ValueError, match="unknown"):
        align_words("a", "a", "my own")
