"""Which tasks a training step holds, and how many utterances of each: a pure function of the step.

turns = Interleaving(config, {"asr": 24, "ser": 16}, {"asr": 2000, "ser": 500}, steps=1000)
turns.plan(0)    # {"asr": 24, "ser": 16}
"""

from collections.abc import Mapping

from harmonifuse_core.config import InterleavingConfig


class Interleaving:
    """Task ratios over training.

    Args:
        sizes: utterances of each task in a step, as `training.batch_size` gives them; only tasks that have corpora.
        corpus_sizes: utterances that each task has, for `proportional` and `temperature`.
        steps: of the whole training, for ratios that move from start to end.
    """

    def __init__(
        self, config: InterleavingConfig, sizes: Mapping[str, int], corpus_sizes: Mapping[str, int], steps: int
    ):
        self.config, self.sizes, self.corpus_sizes, self.steps = config, dict(sizes), dict(corpus_sizes), steps
        self._turns: list[str] = []  # of the steps so far (alternating): each depends on those before
        self._credit = dict.fromkeys(self.sizes, 0.0)

    def shares(self, step: int) -> dict[str, float]:
        """Each task's share at `step`, summing to 1: of the utterances (`within`) or of the steps (`alternating`)."""
        progress = min(step / max(1, self.steps - 1), 1.0)
        ratio, names = self.config.ratio, list(self.sizes)
        if ratio == "sizes":
            raw = dict.fromkeys(names, 1.0) if self.config.mode == "alternating" else self.sizes
        elif ratio == "fixed":
            first = self._normal({name: self.config.shares.get(name, 0.0) for name in names})
            last = self._normal({name: self.config.end_shares.get(name, 0.0) for name in names})
            last = last if self.config.end_shares else first
            raw = {name: first[name] + progress * (last[name] - first[name]) for name in names}
        else:
            start = 1.0 if ratio == "proportional" else self.config.temperature
            temperature = start + progress * ((self.config.end_temperature or start) - start)
            raw = {name: self.corpus_sizes[name] ** (1 / temperature) for name in names}
        return self._normal(raw)

    @staticmethod
    def _normal(raw: Mapping[str, float]) -> dict[str, float]:
        total = sum(raw.values())
        return {name: value / total for name, value in raw.items()} if total else dict(raw)

    def plan(self, step: int) -> dict[str, int]:
        """{task: utterances} of this step, at most: long ones make a batch smaller. Who has no turn is missing."""
        if self.config.mode == "alternating":
            name = self._turn(step)
            return {name: self.sizes[name]}
        if self.config.ratio == "sizes":
            return dict(self.sizes)
        return apportion(self.shares(step), sum(self.sizes.values()))

    def _turn(self, step: int) -> str:
        """The task that lags furthest behind its share; at every step each is within one turn of it."""
        while step >= len(self._turns):
            for name, share in self.shares(len(self._turns)).items():
                self._credit[name] += share
            chosen = max(self._credit, key=lambda name: round(self._credit[name], 9))
            self._credit[chosen] -= 1.0
            self._turns.append(chosen)
        return self._turns[step]


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers near `shares` * `total` that sum to `total`, none below 1: largest remainders first."""
    exact = {name: share * total for name, share in shares.items()}
    parts = {name: max(1, int(value)) for name, value in exact.items()}
    if total < len(shares):
        return dict.fromkeys(shares, 1)
    while (missing := total - sum(parts.values())) != 0:
        sign = 1 if missing > 0 else -1
        open_ = [name for name in parts if sign > 0 or parts[name] > 1]
        name = max(open_, key=lambda n: sign * (exact[n] - parts[n]))
        parts[name] += sign
    return parts
