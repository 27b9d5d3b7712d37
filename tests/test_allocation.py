import sys

import pytest

from harmonifuse_core.allocation import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_thresholds_are_taken_and_may_be_set_again():
    assert keep_freed_memory() is keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_a_libc_without_mallopt_is_left_alone(monkeypatch):
    def missing(_):
        raise OSError("no such library")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", missing)
    assert keep_freed_memory() is False
