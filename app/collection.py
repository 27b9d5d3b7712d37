"""Python's garbage collector and Streamlit: every script run ends with a full collection, while all sessions wait.

With torch, transformers and plotly imported that is a long walk over modules that will never be garbage. What is
alive once new modules were imported is therefore set apart (`gc.freeze`); what sessions make later is collected.
"""

import gc
import sys
import threading

_lock = threading.Lock()
_modules = 0


def settle() -> bool:
    """Set everything alive apart if modules were imported since the last time; says whether it did."""
    global _modules
    with _lock:
        if len(sys.modules) == _modules:
            return False
        _modules = len(sys.modules)
        gc.collect()  # garbage must not be kept with it
        gc.freeze()
        return True
