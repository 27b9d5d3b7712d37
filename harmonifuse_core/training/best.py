"""Which dev scores are the best so far: of each task, and of all tasks together."""

from collections.abc import Mapping, Sequence

from harmonifuse_core.tasks import TaskConfig

JOINT = "joint"
MEASURES = {"wer": 1, "cer": 1, "ua": -1}  # of a task's dev scores: +1 an error, -1 its complement


def task_errors(scores: Mapping[str, float], tasks: Sequence[TaskConfig]) -> dict[str, float]:
    """{task: error, "joint": mean} of dev scores: WER or CER of text, 1 - UA of classes; only tasks that have dev."""
    errors = {}
    for task in tasks:
        for measure, sign in MEASURES.items():
            if (value := scores.get(f"{task.name}.{measure}")) is not None:
                errors[task.name] = value if sign > 0 else 1 - value
    return errors | ({JOINT: sum(errors.values()) / len(errors)} if errors else {})


class Best:
    """scores: lowest error of each task and of `joint`; stale: dev scores since the joint one was last the best."""

    def __init__(self, tasks: Sequence[TaskConfig], earlier: Sequence[Mapping[str, float]] = ()):
        self.tasks, self.scores, self.stale = tasks, {}, 0
        for scores in earlier:
            self.update(scores)

    def update(self, scores: Mapping[str, float]) -> list[str]:
        """Take in dev scores; returns what is better than ever before."""
        errors = task_errors(scores, self.tasks)
        better = [name for name, error in errors.items() if error < self.scores.get(name, float("inf"))]
        self.scores |= {name: errors[name] for name in better}
        self.stale = 0 if JOINT in better else self.stale + 1
        return better
