"""Several recordings, one after the other, while the page goes on: progress is counted, and it can be cancelled. Pure.

    queue = ListeningQueue([("a.wav", data), ...], listen)      listen(data, name) -> anything; may raise ValueError
    queue.start(); queue.done, queue.total, queue.items; queue.cancel()

Each recording waits for the one model like every other visitor's. A queue that nobody looks at any more stops.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
MOST_FILES, MOST_BYTES = 50, 200 * 2**20
PATIENCE = 600.0  # seconds without a look: a browser asks seldom for a tab that is hidden


@dataclass(frozen=True)
class QueueItem:
    """result: what `listen` gave, when done. message: why not, when failed."""

    name: str
    state: str = WAITING
    result: object = None
    message: str = ""


class ListeningQueue:
    """files: (name, bytes) each. Raises ValueError for none, too many or too much."""

    def __init__(
        self, files: Sequence[tuple[str, bytes]], listen: Callable[[bytes, str], object], patience: float = PATIENCE
    ):
        size = sum(len(data) for _, data in files)
        if not 0 < len(files) <= MOST_FILES:
            raise ValueError(f"{len(files)} files: give 1 to {MOST_FILES} at a time")
        if size > MOST_BYTES:
            raise ValueError(f"the files hold {size / 2**20:.0f} MB, at most {MOST_BYTES / 2**20:.0f}: give fewer")
        self.files, self._listen, self._patience = tuple(files), listen, patience
        self._items = [QueueItem(name) for name, _ in files]
        self._lock, self._stop, self._seen = threading.Lock(), threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="listening-queue", daemon=True)

    def start(self) -> "ListeningQueue":
        self._thread.start()
        return self

    def cancel(self) -> None:
        """The recording that is being heard is finished, the others are not begun."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    @property
    def items(self) -> tuple[QueueItem, ...]:
        """How it stands. Looking keeps the queue going."""
        with self._lock:
            self._seen = time.monotonic()
            return tuple(self._items)

    @property
    def total(self) -> int:
        return len(self.files)

    @property
    def done(self) -> int:
        """Recordings that need no more work, whatever became of them."""
        return sum(item.state not in (WAITING, RUNNING) for item in self.items)

    @property
    def running(self) -> bool:
        return self.done < self.total

    def _set(self, place: int, **changes) -> None:
        with self._lock:
            self._items[place] = replace(self._items[place], **changes)

    def _abandoned(self) -> bool:
        with self._lock:
            return time.monotonic() - self._seen > self._patience

    def _run(self) -> None:
        for place, (name, data) in enumerate(self.files):
            if self._stop.is_set() or self._abandoned():
                self._set(place, state=CANCELLED)
                continue
            self._set(place, state=RUNNING)
            try:
                self._set(place, state=DONE, result=self._listen(data, name))
            except Exception as error:  # one recording must not end the queue, whatever is wrong with it
                self._set(place, state=FAILED, message=" ".join(str(error).split())[:300] or type(error).__name__)
