"""Training curves for TensorBoard, or any tracker that accelerate knows, beside metrics.jsonl."""

from collections.abc import Iterator
from importlib.util import find_spec

from harmonifuse_core.runs import RunFolder


def installed_trackers() -> str:
    """What is used where nobody chooses: TensorBoard, if it and accelerate are installed."""
    return "tensorboard" if find_spec("tensorboard") and find_spec("accelerate") else "none"


def scalars(row: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a log row under its path; layers of alpha are numbered from 0."""
    for key, value in row.items():
        name = f"{prefix}/{key}".lstrip("/")
        if isinstance(value, dict):
            yield from scalars(value, name)
        elif isinstance(value, list):
            yield from ((f"{name}/{index:02d}", float(v)) for index, v in enumerate(value))
        elif isinstance(value, (int, float)) and key != "step":
            yield name, float(value)


class Trackers:
    """Sends log rows to the trackers in `names` (`tensorboard,wandb`). Raises ValueError for one that is not there."""

    def __init__(self, names: str, run: RunFolder, cpu: bool):
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ValueError(f"--trackers {names} needs accelerate: pip install -r requirements.txt") from None
        chosen = [name.strip() for name in names.split(",") if name.strip()]
        try:
            self.accelerator = Accelerator(cpu=cpu, log_with=chosen, project_dir=str(run.trackers))
            self.accelerator.init_trackers(run.name)
        except (ValueError, ImportError, RuntimeError) as error:
            raise ValueError(f"--trackers {names}: {error}") from error
        if self.accelerator.is_main_process and len(self.accelerator.trackers) < len(chosen):
            raise ValueError(f"--trackers {names}: not all of them are installed; install it, or use --trackers none")

    def __call__(self, row: dict):
        self.accelerator.log(dict(scalars(row)), step=row["step"])

    def close(self):
        self.accelerator.end_training()
