"""What is alive is set apart from the collector once new modules came, and never otherwise."""

import gc
import sys
import types

from app import collection


def test_settling_follows_imports_and_garbage_is_still_collected(monkeypatch):
    try:
        collection.settle()
        assert not collection.settle() and gc.get_freeze_count() > 1000
        monkeypatch.setitem(sys.modules, "a_module_that_came_later", types.ModuleType("later"))
        before = gc.get_freeze_count()
        assert collection.settle() and gc.get_freeze_count() >= before
        loop = []
        loop.append(loop)
        del loop
        assert gc.collect() > 0, "cycles made later are found"
    finally:
        gc.unfreeze()
