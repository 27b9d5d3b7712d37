"""YAML to plain values to dataclasses, and back: unknown, missing and wrongly typed fields are refused by name."""

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path

import yaml

from harmonifuse_core.tasks import BUILTIN_TASKS, TaskConfig


def check_choice(owner: str, name: str, value: str, choices: tuple[str, ...]):
    """Raises ValueError, with the choices, where `value` is none of them."""
    if value not in choices:
        raise ValueError(f"{owner}.{name} is {value!r}; choose one of {', '.join(choices)}")


def to_dict(value):
    """Dataclasses and tuples to plain dicts and lists, for YAML and JSON."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_dict(v) for v in value]
    if isinstance(value, dict):
        return {k: to_dict(v) for k, v in value.items()}
    return value


def from_dict(kind, value, where: str = ""):
    """Build the dataclass `kind` from plain values; unknown fields and wrong types are refused by name."""
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'config'} is {value!r}; expected fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{where or 'config'}: unknown field {sorted(unknown)[0]!r}; known: {', '.join(hints)}")
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"{where or 'config'}: field {missing[0]!r} is missing; {kind.__name__} cannot do without")
    return kind(**{name: _convert(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in value.items()})


def _convert(hint, value, where):
    if hint is TaskConfig and isinstance(value, str):  # `tasks: [asr, ser]` names the built-in ones
        if value not in BUILTIN_TASKS:
            raise ValueError(f"{where} is {value!r}; built in are {', '.join(BUILTIN_TASKS)}, others need their fields")
        return BUILTIN_TASKS[value]
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}; expected a list")
        inner, *rest = typing.get_args(hint)
        if rest != [...] and len(value) != 1 + len(rest):
            raise ValueError(f"{where} is {value!r}; expected {1 + len(rest)} values")
        return tuple(_convert(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float:
        try:
            return float("" if isinstance(value, bool) else value)  # YAML reads 1e-3 as text
        except (TypeError, ValueError):
            raise ValueError(f"{where} is {value!r}; expected a number") from None
    if hint in (int, str, bool, dict) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ValueError(f"{where} is {value!r}; expected {hint.__name__}")
    return value


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict:
    """Plain values of a YAML file, with `a.b=value` assignments laid over them; their values are parsed as YAML too."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"config {str(path)!r} does not exist")
    values = _parse(path.read_text(encoding="utf-8"), f"config {str(path)!r}")
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"config {str(path)!r} holds {type(values).__name__}, not fields; write `name: value` lines")
    for assignment in overrides:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"override {assignment!r}: write key=value, e.g. training.steps=10")
        assign(values, key, _parse(text, f"override {assignment!r}") if text else "")  # `data.teacher=` empties a field
    return values


def assign(values: dict, key: str, value):
    """Set the dotted field `key` of plain values; lists by index, from 0: `data.train.1.weight`. Raises ValueError."""
    target, parents = values, key.split(".")
    last = parents.pop()
    for parent in parents:
        target = target.setdefault(parent, {}) if isinstance(target, dict) else target[_place(target, parent, key)]
        if not isinstance(target, (dict, list)):
            raise ValueError(f"override {key!r}: {parent!r} has no fields")
    target[last if isinstance(target, dict) else _place(target, last, key)] = value


def _place(values: list, index: str, key: str) -> int:
    if not index.isdigit() or int(index) >= len(values):
        raise ValueError(f"override {key!r}: {index!r} is no place in a list of {len(values)}; they count from 0")
    return int(index)


def _parse(text: str, where: str):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
