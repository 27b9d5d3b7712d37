"""An index of a run's logged routing: one DuckDB file in a temporary folder, made once for all sessions. Pure.

The Parquet files stay the truth. The index holds each answer once (the same utterance, task, prompt and stage may stand
in several files), beside what would be slow to compute for every view: entropy, centre of mass, right or wrong. Its
rows lie in an order that is random but fixed, so the first n that pass a filter are a fair sample of all that do.
Every value from outside is a query parameter; column names come from this file alone.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from app.routing_query import MOST_FACETS, RoutingFiles

SEED = "harmonifuse-1"
FIELDS = {
    "dataset": "Corpus", "label": "Label", "prediction_class": "Predicted class", "outcome": "Right or wrong",
    "speaker": "Speaker", "gender": "Gender", "age": "Age", "language": "Language", "intensity": "Intensity",
    "split": "Split", "prompt": "Prompt", "evaluation": "Evaluation",
}  # fmt: skip
EVALUATION = "evaluation"  # an answer may stand in several: a list in the index, and nothing to group by
TEXT = ("utterance", "reference", "prediction", "speaker", "audio", "label")
NUMBERS = ("error", "probability", "duration")
_PLAIN = ("utterance", "task", "prompt", "stage", "prediction", "reference", "speaker", "gender", "age", "language",
          "dataset", "split", "intensity", "audio")  # fmt: skip
_ENTROPY = "list_sum(list_transform(alpha, lambda x: CASE WHEN x > 0 THEN -x * log2(x) ELSE 0 END))"
_CENTRE = "list_sum(list_transform(alpha, lambda x, i: x * (i - 1)))"
_SOURCE = "read_parquet(?, union_by_name = true, filename = true, file_row_number = true)"
_GOOD = "sound AND layers = CASE stage WHEN 'encoder' THEN ? WHEN 'lm' THEN ? ELSE -1 END"
_CLASS_TASKS = (
    f"SELECT task FROM {_SOURCE} GROUP BY task HAVING bool_and(NOT contains(coalesce(prediction, ''), ' ')) "
    f"AND count(DISTINCT prediction) <= {MOST_FACETS}"
)
_OUTCOME = "CASE WHEN error IS NULL THEN 'no reference' WHEN error > 0 THEN 'wrong' ELSE 'right' END"


@dataclass(frozen=True, eq=False)
class RoutingIndex:
    """answers: rows, one an utterance, task, prompt and stage; repeated, odd: rows of the files that were left out
    since they stand in several files, or since their weights are damaged or of another number of layers.
    layers: {stage: states}. facets: {field: values that occur, at most 200}."""

    connection: duckdb.DuckDBPyConnection
    answers: int
    utterances: int
    repeated: int
    odd: int
    tasks: tuple[str, ...]
    layers: Mapping[str, int]
    facets: Mapping[str, tuple[str, ...]]
    has_share: bool
    folder: tempfile.TemporaryDirectory = field(repr=False)

    def ask(self, query: str, values: list | tuple = ()) -> duckdb.DuckDBPyConnection:
        """A cursor of its own, so that sessions ask side by side."""
        return self.connection.cursor().execute(query, list(values))


@dataclass(frozen=True)
class Filter:
    """What is kept. fields: (field, value) pairs of FIELDS, of which all must hold; text is looked for in id, texts,
    speaker and file; task and stage may be empty: all."""

    task: str = ""
    stage: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    text: str = ""

    def where(self) -> tuple[str, list]:
        """SQL condition and its values."""
        parts, values = ["true"], []
        asked = [(name, value) for name, value in (("task", self.task), ("stage", self.stage)) if value]
        for name, value in (*asked, *self.fields):  # an empty value of a field is one too: the prompt "" asks nothing
            if name in FIELDS or name in ("task", "stage"):
                parts.append("list_contains(evaluations, ?)" if name == EVALUATION else f"{name} = ?")
                values.append(value)
        if wanted := self.text.strip().lower():
            parts.append("(" + " OR ".join(f"contains(lower({name}), ?)" for name in TEXT) + ")")
            values += [wanted] * len(TEXT)
        return " AND ".join(parts), values


def build(files: RoutingFiles) -> RoutingIndex:
    """Read all files once. Raises ValueError where no row of them can be used, with the remedy."""
    folder = tempfile.TemporaryDirectory(prefix="harmonifuse-index-")
    connection = duckdb.connect(
        str(Path(folder.name) / "index.duckdb"), config={"threads": 1, "memory_limit": "384MB"}
    )  # fmt: skip
    paths = list(files.paths)
    connection.execute(
        f"CREATE TEMP TABLE rows AS SELECT utterance, task, {_or_null(files, 'prompt')} AS prompt, stage, "
        f"len(alpha) AS layers, isfinite(list_sum(alpha)) AS sound, filename, file_row_number FROM {_SOURCE}", [paths]
    )  # fmt: skip
    total = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    layers = dict(connection.execute(
        "SELECT stage, mode(layers) FROM rows WHERE sound AND layers > 0 AND stage IN ('encoder', 'lm') GROUP BY stage "
        "ORDER BY stage"
    ).fetchall())  # fmt: skip
    if not layers:
        raise ValueError("no row of the routing files has weights: make them again")
    sizes = [layers.get("encoder", -1), layers.get("lm", -1)]
    connection.execute(
        "CREATE TEMP TABLE kept AS SELECT k.filename, k.file_row_number, evaluations FROM (SELECT min(struct_pack("
        "filename := filename, file_row_number := file_row_number)) AS k, list(parse_filename(filename, true)) AS "
        f"evaluations FROM rows WHERE {_GOOD} GROUP BY utterance, task, prompt, stage)",
        sizes,
    )  # fmt: skip
    classes = []
    if "prediction" in files.columns:
        classes = [row[0] for row in connection.execute(_CLASS_TASKS, [paths]).fetchall()]
    connection.execute(_creation(files), [classes, classes, paths])
    usable = connection.execute(f"SELECT count(*) FROM rows WHERE {_GOOD}", sizes).fetchone()[0]
    connection.execute("DROP TABLE rows; DROP TABLE kept; CHECKPOINT")
    return _described(connection, folder, layers, total, usable, "share" in files.columns)


def _or_null(files: RoutingFiles, name: str, kind: str = "VARCHAR") -> str:
    return f"CAST({name} AS {kind})" if name in files.columns else f"CAST(NULL AS {kind})"


def _creation(files: RoutingFiles) -> str:
    """The statement that makes the table: every column by name, absent ones empty, text that is no class apart."""
    columns = [f"{_or_null(files, name)} AS {name}" for name in _PLAIN]
    columns += [f"{_or_null(files, name, 'DOUBLE')} AS {name}" for name in NUMBERS]
    reference, prediction = _or_null(files, "reference"), _or_null(files, "prediction")
    # the model's own name of the class first: corpora write `anger` and `angry` for one class
    label = f"coalesce(CASE WHEN list_contains(?::VARCHAR[], task) THEN {reference} END, {_or_null(files, 'label')})"
    share = "CAST(share AS FLOAT[])" if "share" in files.columns else "CAST(NULL AS FLOAT[])"
    return (
        f"CREATE TABLE answers AS SELECT {', '.join(columns)}, {label} AS label, "
        f"CASE WHEN list_contains(?::VARCHAR[], task) THEN {prediction} END AS prediction_class, "
        f"{_OUTCOME if 'error' in files.columns else repr('no reference')} AS outcome, "
        "evaluations, "
        f"{_ENTROPY} AS entropy, {_CENTRE} AS centre, list_position(alpha, list_max(alpha)) - 1 AS top, "
        f"CAST(alpha AS FLOAT[]) AS alpha, {share} AS share "
        f"FROM {_SOURCE} JOIN kept USING (filename, file_row_number) "
        f"ORDER BY md5(utterance || '{SEED}'), utterance, task, prompt, stage"
    )


def _described(connection, folder, layers: dict, total: int, usable: int, has_share: bool) -> RoutingIndex:
    ask = connection.execute
    answers, utterances = ask("SELECT count(*), count(DISTINCT utterance) FROM answers").fetchone()
    tasks = tuple(str(row[0]) for row in ask("SELECT DISTINCT task FROM answers ORDER BY 1").fetchall())
    facets = {}
    for name in FIELDS:
        column = "unnest(evaluations)" if name == EVALUATION else name
        query = f"SELECT v FROM (SELECT {column} AS v FROM answers) WHERE v IS NOT NULL GROUP BY 1"
        found = ask(f"{query} ORDER BY count(*) DESC, 1 LIMIT ?", [MOST_FACETS]).fetchall()
        facets[name] = tuple(sorted(str(row[0]) for row in found))
    return RoutingIndex(connection, answers, utterances, usable - answers, total - usable, tasks,
                        layers, facets, has_share, folder)  # fmt: skip
