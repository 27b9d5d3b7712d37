"""The queue: every file once and in order, a broken one does not end it, cancel and neglect stop it."""

import threading
import time

import pytest

from app.listening_queue import CANCELLED, DONE, FAILED, MOST_FILES, WAITING, ListeningQueue

FILES = [(f"{name}.wav", name.encode()) for name in "abcd"]


def states(queue: ListeningQueue) -> list[str]:
    return [item.state for item in queue.items]


def test_every_file_is_heard_once_and_in_order():
    heard = []
    queue = ListeningQueue(FILES, lambda data, name: heard.append(name) or data.decode().upper())
    assert states(queue) == [WAITING] * 4 and queue.running
    queue.start().wait(10)
    assert heard == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert [item.result for item in queue.items] == list("ABCD") and queue.done == queue.total == 4


def test_a_broken_file_is_named_and_the_rest_goes_on():
    def listen(data, name):
        if name == "b.wav":
            raise ValueError("b.wav: no\nsound")
        return 1

    queue = ListeningQueue(FILES, listen).start()
    queue.wait(10)
    assert states(queue) == [DONE, FAILED, DONE, DONE] and queue.items[1].message == "b.wav: no sound"
    assert not queue.running


def test_cancel_finishes_the_one_that_is_heard_and_begins_no_other():
    begun, go_on = threading.Event(), threading.Event()

    def listen(data, name):
        begun.set()
        assert go_on.wait(10)
        return name

    queue = ListeningQueue(FILES, listen).start()
    assert begun.wait(10) and queue.done == 0
    queue.cancel()
    go_on.set()
    queue.wait(10)
    assert states(queue) == [DONE, CANCELLED, CANCELLED, CANCELLED] and queue.done == 4


def test_a_queue_that_nobody_looks_at_stops():
    queue = ListeningQueue(FILES, lambda data, name: time.sleep(0.6), patience=0.5).start()
    queue.wait(10)
    assert states(queue)[0] == DONE and states(queue)[-1] == CANCELLED


def test_none_or_too_many_files_are_refused():
    with pytest.raises(ValueError, match="0 files"):
        ListeningQueue([], len)
    with pytest.raises(ValueError, match=f"give 1 to {MOST_FILES}"):
        ListeningQueue([("a", b"")] * (MOST_FILES + 1), len)
