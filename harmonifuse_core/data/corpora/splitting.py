"""Train, dev and test without a speaker in two of them, for corpora that come without official splits."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping

TRAIN, DEV, TEST, UNUSED, ALL = "train", "dev", "test", "unused", "all"


def divide(groups: Mapping[str, str], dev: float, test: float, seed: int) -> dict[str, str]:
    """Which split each group (a speaker, a sentence) belongs to.

    Args:
        groups: name -> stratum (gender, or ""); each split gets its share of every stratum as nearly as it can.
        dev, test: shares of the groups, rounded, at least one group where the share is above 0.
        seed: another seed gives another division; the order of `groups` does not matter.

    Fewer groups than splits: all of them are train.
    """
    wanted = {split: share for split, share in ((TEST, test), (DEV, dev)) if share > 0}
    if len(groups) <= len(wanted):
        return dict.fromkeys(groups, TRAIN)
    strata = defaultdict(list)
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode("utf-8", "replace")).digest()):
        strata[groups[name]].append(name)
    # every stratum is spread evenly over one line, from which test and dev are cut off at the front
    line = sorted(
        ((place + 0.5) / len(names), stratum, name)
        for stratum, names in strata.items()
        for place, name in enumerate(names)
    )
    order = [name for _, _, name in line]
    result, begin = dict.fromkeys(order, TRAIN), 0
    for split, share in wanted.items():
        room = (
            len(order) - begin - (len(wanted) - 1 if split == TEST else 0) - 1
        )  # one group stays for each other split
        count = max(1, min(round(share * len(order)), room))
        result.update(dict.fromkeys(order[begin : begin + count], split))
        begin += count
    return result


def combine(by_speaker: str, by_other: str) -> str:
    """Split of an utterance whose speaker and, say, sentence are both held out; `unused` where the two disagree."""
    return by_speaker if by_speaker == by_other else UNUSED
