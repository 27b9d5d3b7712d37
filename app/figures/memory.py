"""Figures that were drawn lately, by what they show: plotly takes long to build one, and a page has many."""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

MOST = 256
LARGEST = 200_000  # characters or bytes of what a figure shows; larger ones are drawn anew, so that memory stays small
_kept: OrderedDict[bytes, go.Figure] = OrderedDict()
_lock = threading.Lock()


def remembered(draw: Callable[..., go.Figure]) -> Callable[..., go.Figure]:
    """A figure function that gives the same figure again for equal arguments; callers change a copy, or none."""

    @functools.wraps(draw)
    def found(*args, **kwargs) -> go.Figure:
        try:
            key = _key(f"{draw.__module__}.{draw.__qualname__}", args, kwargs)
        except _Unknown:
            return draw(*args, **kwargs)
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
        figure = draw(*args, **kwargs)
        with _lock:
            _kept[key] = figure
            while len(_kept) > MOST:
                _kept.popitem(last=False)
        return figure

    return found


class _Unknown(Exception):
    """Something that has no content key."""


def _key(*values) -> bytes:
    digest, size = hashlib.sha256(), 0
    for part in _parts(values):
        size += len(part)
        if size > LARGEST:
            raise _Unknown
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _parts(value):
    """Bytes that tell a value from every other, piece by piece."""
    yield type(value).__name__.encode()
    if value is None or isinstance(value, (str, bool, int, float, np.generic)):
        yield repr(value).encode("utf-8", "surrogatepass")
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, pd.DataFrame):
        yield from _parts((list(value.columns), [value[name].tolist() for name in value.columns]))
    elif is_dataclass(value):
        yield from _parts([getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, Mapping):
        yield from _parts(list(value.items()))
    elif isinstance(value, (list, tuple, range, np.ndarray)):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    else:
        raise _Unknown
