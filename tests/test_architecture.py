"""The house rules, read from the source: imports never run back up, and everything is where its name says."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("harmonifuse_core", "probes", "app")
WINGS = {"data": 1, "model": 2, "inference": 3, "training": 4, "analysis": 4, "studies": 4, "reporting": 4}
GROUND, RUNS, COMMANDS, PROBES, APP = 0, 3, 5, 6, 7
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 350
LAYOUT = {
    "config.yaml", "environment.json", "metrics.jsonl", "train.log", "weights.json", "model", "checkpoints",
    "evaluation", "routing", "analysis", "probes", "study.yaml", "table.json", "cells", "scratch", "models",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources()}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Everything that a file imports, at its top or inside of a function; own modules by their full name."""
    found = set()
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in MODULES else module)
    return found


def is_command(path: Path) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in tree(path).body)


def floor(name: str) -> int:
    """From the ground: config and its like, data, model, inference and runs, training and analysis, commands, ..."""
    package, *rest = name.split(".")
    if package != "harmonifuse_core":
        return APP if package == "app" else PROBES
    if not rest:
        return GROUND
    if rest[0] in WINGS:
        return WINGS[rest[0]]
    if rest[0] == "runs":
        return RUNS
    return COMMANDS if is_command(MODULES[name]) else GROUND


GRAPH = {name: {target for target in imported(path) if target in MODULES} for name, path in MODULES.items()}


def top_level(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_there_is_something_to_read():
    assert len(MODULES) > 30 and GRAPH["harmonifuse_core.train"] >= {"harmonifuse_core.runs", "harmonifuse_core.config"}
    assert floor("harmonifuse_core.train") == COMMANDS and floor("harmonifuse_core.config") == GROUND


def test_an_import_never_runs_back_up():
    upward = [
        f"{name} (floor {floor(name)}) imports {target} (floor {floor(target)})"
        for name, targets in GRAPH.items()
        for target in sorted(targets)
        if floor(target) > floor(name)
    ]
    assert upward == []


def test_commands_import_no_other_command():
    names = {name for name in MODULES if name.startswith("harmonifuse_core.") and floor(name) == COMMANDS}
    assert {(name, target) for name in names for target in GRAPH[name] & names} == set()


def test_no_two_files_import_each_other_in_a_circle():
    done, path = set(), []

    def walk(name: str):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for target in sorted(GRAPH[name] - {name}):
            walk(target)
        path.pop()
        done.add(name)

    for name in GRAPH:
        walk(name)
    assert done == set(MODULES)


def offenders(folder: str, forbidden: set[str]) -> list[tuple[str, str]]:
    names = [name for name in MODULES if name.split(".")[0] == folder]
    return [(name, bad) for name in names for bad in sorted(top_level(MODULES[name]) & forbidden)]


def test_the_core_knows_neither_probes_nor_app_nor_what_draws():
    assert offenders("harmonifuse_core", {"probes", "app", "streamlit", "plotly"}) == []


def test_probes_know_neither_app_nor_streamlit():
    assert offenders("probes", {"app", "streamlit"}) == []


def test_figures_and_palette_are_free_of_streamlit():
    pure = [name for name in MODULES if re.fullmatch(r"app\.(figures|palette)(\..*)?", name)]
    if any(name.startswith("app") for name in MODULES):
        assert len(pure) >= 2
    assert [name for name in pure if "streamlit" in top_level(MODULES[name])] == []


def test_nothing_is_pickled_and_nothing_banned_is_imported():
    banned = {
        "pickle",
        "cPickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "torchaudio",
        "lightning",
        "pytorch_lightning",
    }
    assert [found for package in PACKAGES for found in offenders(package, banned)] == []
    calls = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in {"torch.save", "torch.load", "np.save", "np.load", "numpy.load", "pd.read_pickle"}
    ]
    assert calls == []
    requirements = ROOT / "requirements.txt"
    if requirements.is_file():
        named = {re.split(r"[^\w-]", line)[0].lower() for line in requirements.read_text().splitlines()}
        assert named & {"torchaudio", "lightning", "pytorch-lightning", "joblib", "dill"} == set()


def test_no_class_builds_on_pretrained_model():
    bases = [
        f"{name}: class {node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and any("PreTrainedModel" in ast.unparse(base) for base in node.bases)
    ]
    assert bases == []


def test_the_model_wing_neither_reads_audio_nor_writes_tables():
    outside = {"soundfile", "av", "soxr", "librosa", "pandas", "pyarrow", "requests", "urllib", "tqdm", "argparse"}
    wing = [name for name in MODULES if name.startswith("harmonifuse_core.model.")]
    assert [(name, bad) for name in wing for bad in sorted(top_level(MODULES[name]) & outside)] == []


def test_libraries_do_not_print():
    printing = [
        f"{name}:{node.lineno}"
        for name, path in MODULES.items()
        if name.split(".")[0] != "app" and not is_command(path)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_only_services_caches():
    caching = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("cache_data", "cache_resource")
    }
    assert {name for name in caching if not name.startswith("app.services.")} == set()


def path_pieces(node: ast.AST) -> list[str]:
    """Text constants that a node joins to a path: `x / "piece"`, `Path("piece", ...)`, `x.joinpath("piece")`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        parts = (node.left, node.right)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Path", "joinpath", "join"):
        parts = node.args
    else:
        return []
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def test_only_runs_builds_paths_below_a_run():
    """The names of a run's parts are joined to paths in `runs.py` alone."""
    allowed = {"harmonifuse_core.runs"}
    found = [
        f"{name}:{node.lineno}: {piece!r}"
        for name, path in MODULES.items()
        if name not in allowed
        for node in ast.walk(tree(path))
        for piece in path_pieces(node)
        if piece in LAYOUT or piece.startswith("runs/")
    ]
    assert found == []


def test_names_say_what_is_inside():
    everything = [*sources(), *(ROOT / "tests").rglob("*.py")]
    assert [str(p) for p in everything if p.stem.lower() in VAGUE or p.parent.name.lower() in VAGUE] == []


def test_files_stay_short():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
    assert lengths.get("app/main.py", 0) < 90
    assert {name: n for name, n in lengths.items() if name.startswith("app/views/") and n >= 80} == {}


def test_every_file_says_in_a_sentence_what_it_is_for():
    silent = [name for name, path in MODULES.items() if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


def test_the_tests_mirror_the_tree():
    """A test file of a wing tests a module of that wing, or a topic named in its docstring."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.parts and folder.parts[0] not in ("app", "probes", "benchmarks"):
            assert (ROOT / "harmonifuse_core" / folder).is_dir(), path
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "pt", "pth", "bin"])
def test_no_pickled_file_lies_in_the_tree(suffix):
    folders = [ROOT / package for package in (*PACKAGES, "tests", "runs")]
    assert [str(p) for folder in folders if folder.is_dir() for p in folder.rglob(f"*.{suffix}")] == []
