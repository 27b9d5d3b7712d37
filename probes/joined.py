"""One table of four views: `python -m probes.joined --run RUN [--probes NAME] [--routing NAME | TASK=NAME,...]`.

For each layer, stage and task: what a probe finds there, what alpha and the effective share give it, and what its
removal does; with intervals, and Spearman's correlation over the layers of each pair. Reads probes/NAME.json,
routing/NAME.parquet and analysis/faithfulness.json of the run and writes probes/joined.json. What is missing is named,
with the command that makes it. Exit code: 0, 1 where fewer than two of the parts are there, 2 for wrong arguments.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import combinations

import numpy as np

from harmonifuse_core.analysis.agreement import layer_orders, spearman_rows
from harmonifuse_core.analysis.clustered import rate
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, plain, short
from harmonifuse_core.routing import RoutingError, read_routing
from harmonifuse_core.runs import RunError, RunFolder, write_json

NAME, FAITHFULNESS = "joined", "faithfulness"
REMOVAL, WEIGHTS = "zero", "renormalised"
QUESTION = "Do the layers that hold a task's information get its weight, and does their removal hurt it?"
MEASURES = ("probe", "selectivity", "alpha", "share", "damage")
SIGNIFICANT = 0.05
LAYERS = (
    "probe: score of the linear probe for the task's target (text: words; classes: the task's own field), "
    "selectivity: that minus its control task, see probes/NAME.json. alpha, share: mean over utterances of the "
    "fusion's weight of the layer, and of alpha * norm (sum 1). damage: mean rise of the task's teacher-forced loss "
    "(nats) when the layer's weight is set to 0 and the others are scaled up (analysis/faithfulness). A part's "
    "utterances are its own. Intervals: 95 % percentile bootstrap over speakers. Layer 0 is the state before the "
    "first block."
)
CORRELATIONS = (
    "rho: Spearman's correlation of the two measures over the layers, values closer than 1 % of the largest being "
    "ties. p: share of the orders of the layers whose rho is as far from 0 (all orders up to 6 layers, else 2000 "
    "drawn ones); smallest_p: the least that so many layers allow. Layers are few and neighbours alike: p is a rough "
    "guide."
)


@dataclass(frozen=True)
class Part:
    """One of the joined files. source: its name. command: what makes it; reason: why it is not available."""

    available: bool
    source: str | None = None
    command: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Profile:
    """A measure over the layers of one stage and task: {layer: (value, low, high)}."""

    stage: str
    task: str
    measure: str
    target: str | None
    unit: str
    n: int
    speakers: int
    values: Mapping[int, tuple[float, float | None, float | None]] = field(repr=False)


def pairs_of(run: RunFolder, given: Sequence[str] = ()) -> dict[str, str]:
    """{task: probe target}; `given`: TASK=TARGET. Raises ValueError."""
    tasks = run.config().model.tasks
    pairs = {t.name: "words" if t.is_transcription else t.field for t in tasks}
    for item in given:
        task, separator, target = item.partition("=")
        if not separator or task not in pairs:
            raise ValueError(f"--pair {item!r}: write TASK=TARGET with a task of {', '.join(pairs)}, e.g. ser=pitch")
        pairs[task] = target
    return pairs


def probe_profiles(run: RunFolder, name: str, pairs: Mapping[str, str]) -> tuple[Part, list[Profile]]:
    command = f"python -m probes.run --run {shlex.quote(str(run.path))} --manifest M.jsonl"
    known = [n.removesuffix(".json") for n in run.names("probes", ".json") if n != f"{NAME}.json"]
    if not name and len(known) == 1:
        name = known[0]
    if not known or (name and name not in known):
        what = f"the run has no probes/{name}.json" if name else "the run has no probes yet"
        return Part(False, None, command, what), []
    if not name:
        return Part(False, None, None, f"there are several: choose with --probes from {', '.join(known)}"), []
    rows = run.read_json("probes", f"{name}.json")["tables"].get("layers", {}).get("rows", [])
    found = []
    for task, target in pairs.items():
        for stage in ("encoder", "lm"):
            own = [
                r for r in rows
                if (r["target"], r["probe"], r["stage"]) == (target, "linear", stage) and r["task"] in (None, task)
            ]  # fmt: skip
            for measure, column in (("probe", "score"), ("selectivity", "selectivity")):
                values = {r["layer"]: _triple(r, column) for r in own if r[column] is not None}
                if values:
                    unit = own[0]["metric"]
                    found.append(Profile(stage, task, measure, target, unit, own[0]["n"], own[0]["speakers"], values))
    asked = ",".join(sorted(set(pairs.values())))
    reason = None if found else f"probes/{name}.json has no linear probe of {asked}"
    return Part(bool(found), f"{name}.json", None if found else f"{command} --targets {asked}", reason), found


def _triple(row: Mapping, column: str) -> tuple[float, float | None, float | None]:
    return row[column], row[f"{column}_low"], row[f"{column}_high"]


def routing_names(text: str, tasks: Sequence[str]) -> dict[str, str]:
    """{task: NAME} of `NAME` (for all) or `TASK=NAME,...`. Raises ValueError for a task that the run does not have."""
    if "=" not in text:
        return dict.fromkeys(tasks, text)
    parts = [part.strip() for part in text.split(",")]
    if odd := [part for part in parts if "=" not in part]:
        raise ValueError(f"--routing {text!r}: {odd[0]!r} has no task; write NAME for all, or TASK=NAME,TASK=NAME")
    named = dict(part.split("=", 1) for part in parts)
    if unknown := sorted(set(named) - set(tasks)):
        raise ValueError(f"--routing {text!r}: no task {unknown[0]!r} to join; there are {', '.join(tasks)}")
    return named


def weight_profiles(run: RunFolder, names: Mapping[str, str], resamples: int, seed: int) -> tuple[Part, list[Profile]]:
    """names: {task: routing/NAME.parquet}. Not available where one of them is not there or damaged."""
    found = []
    for name in dict.fromkeys(names.values()):
        path = run.part("routing", f"{name}.parquet") if name else None
        if path is None or not path.is_file():
            some = ", ".join(n.removesuffix(".parquet") for n in run.names("routing", ".parquet"))
            run_name = shlex.quote(str(run.path))
            command = f"python -m harmonifuse_core.evaluate --run {run_name} --manifest M.jsonl --save {name or 'NAME'}"
            reason = f"no routing/{name or 'NAME'}.parquet" + (f"; --routing chooses from {some}" if some else "")
            return Part(False, None, command, reason), []
        try:
            frame = read_routing(path, ["utterance", "speaker", "task", "stage", "alpha", "share"])
        except RoutingError as error:
            return Part(False, path.name, None, str(error)), []
        found += _weights(frame, [task for task, own in names.items() if own == name], resamples, seed)
    source = ", ".join(f"{name}.parquet" for name in dict.fromkeys(names.values()))
    return Part(bool(found), source, None, None if found else "it has no row of the model's tasks"), found


def _weights(frame, tasks: Sequence[str], resamples: int, seed: int) -> Iterator[Profile]:
    for (task, stage), rows in frame[frame["task"].isin(tasks)].groupby(["task", "stage"], sort=True):
        speakers = rows["speaker"].fillna(rows["utterance"]).tolist()
        for measure in ("alpha", "share"):
            weights = np.stack(rows[measure].to_list()).astype(float)
            values = {}
            for layer in range(weights.shape[1]):
                interval = rate(weights[:, layer], speakers, resamples=resamples, seed=seed)
                values[layer] = (interval.value, interval.low, interval.high)
            yield Profile(stage, task, measure, None, "weight", len(rows), len(set(speakers)), values)


def damage_profiles(run: RunFolder, tasks: Sequence[str]) -> tuple[Part, list[Profile]]:
    run_name = shlex.quote(str(run.path))
    command = f"python -m harmonifuse_core.analyse --run {run_name} --manifest M.jsonl --only {FAITHFULNESS}"
    file = f"{FAITHFULNESS}.json"
    if file not in run.names("analysis", ".json"):
        return Part(False, None, command, f"the run has no analysis/{file}"), []
    rows = run.read_json("analysis", file)["tables"].get("layers", {}).get("rows", [])
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if (row["removal"], row["weights"]) == (REMOVAL, WEIGHTS) and row["task"] in tasks:
            groups.setdefault((row["stage"], row["task"]), []).append(row)
    found = [
        Profile(stage, task, "damage", None, "nats", own[0]["n"], own[0]["speakers"],
                {r["layer"]: _triple(r, "loss_change") for r in own})
        for (stage, task), own in groups.items()
    ]  # fmt: skip
    return Part(bool(found), file, None if found else command, None if found else "it has no table of layers"), found


def correlate(a: Profile, b: Profile, seed: int = 0) -> dict | None:
    """A row of the table; None where fewer than 3 layers have both."""
    layers = sorted(set(a.values) & set(b.values))
    if len(layers) < 3:
        return None
    x, y = (np.array([p.values[layer][0] for layer in layers])[None] for p in (a, b))
    rho = float(spearman_rows(x, y)[0])
    orders, exact = layer_orders(len(layers), 2000, seed)
    drawn = spearman_rows(x[0][orders], np.repeat(y, len(orders), 0))
    as_far = int(np.count_nonzero(np.abs(drawn) >= abs(rho) - 1e-12))
    p = as_far / len(orders) if exact else (as_far + 1) / (len(orders) + 1)
    smallest = 2 / len(orders) if exact else 1 / (len(orders) + 1)
    return {
        "stage": a.stage, "task": a.task, "a": a.measure, "b": b.measure, "rho": rho, "layers": len(layers), "p": p,
        "smallest_p": smallest,
    }  # fmt: skip


def join(
    run: RunFolder, pairs: Mapping[str, str], probes: str = "", routing: str = "", resamples: int = 2000, seed: int = 0
) -> tuple[AnalysisResult, dict[str, Part]]:
    """Raises RunError where a file is damaged."""
    first, profiles = probe_profiles(run, probes, pairs)
    default = (first.source or "").removesuffix(".json")
    second, weights = weight_profiles(run, routing_names(routing or default, list(pairs)), resamples, seed)
    third, damage = damage_profiles(run, list(pairs))
    profiles = [*profiles, *weights, *damage]
    parts = {"probe": first, "alpha": second, "damage": third}
    rows = [row for profile in profiles for row in profile_rows(profile)]
    found, verdicts = [], []
    for stage in ("encoder", "lm"):
        for task in pairs:
            own = {p.measure: p for p in profiles if (p.stage, p.task) == (stage, task)}
            some = [m for m in MEASURES if m in own]
            related = [correlate(own[a], own[b], seed) for a, b in combinations(some, 2)]
            related = [row for row in related if row is not None]
            found += related
            verdicts.append(Verdict(f"{stage} / {task}", *judged(related, own, parts)))
    tables = tuple(t for t in (Table("layers", LAYERS, tuple(rows)),
                               Table("correlations", CORRELATIONS, tuple(found))) if t.rows)  # fmt: skip
    most = max(profiles, key=lambda p: p.n, default=None)
    count, speakers = (most.n, most.speakers) if most else (0, 0)
    return AnalysisResult(NAME, QUESTION, tables, tuple(verdicts), count, speakers), parts


def profile_rows(profile: Profile) -> Iterator[dict]:
    for layer, (value, low, high) in sorted(profile.values.items()):
        yield {
            "stage": profile.stage, "task": profile.task, "layer": layer, "target": profile.target,
            "measure": profile.measure, "value": value, "low": low, "high": high, "unit": profile.unit, "n": profile.n,
            "speakers": profile.speakers,
        }  # fmt: skip


def judged(rows: Sequence[Mapping], own: Mapping[str, Profile], parts: Mapping[str, Part]) -> tuple[str, str]:
    """Does alpha follow what probes find? Verdict and evidence."""
    needed = {"probe": "probe", "alpha": "alpha"}
    if absent := [name for measure, name in needed.items() if measure not in own]:
        why = "; ".join(f"{n}: {parts[n].reason or 'not of this stage and task'}" for n in absent)
        return "not available", f"{why}. {' '.join(f'Run `{parts[n].command}`.' for n in absent if parts[n].command)}"
    by_pair = {(row["a"], row["b"]): row for row in rows}
    main = by_pair.get(("probe", "alpha"))
    if main is None:
        return "undecided", "fewer than 3 layers have both: no rank correlation"
    evidence = " ".join(
        f"Spearman of {a} and {b} over {row['layers']} layers {row['rho']:+.2f} (p {row['p']:.3f}, at least "
        f"{row['smallest_p']:.3f})."
        for (a, b), row in by_pair.items()
        if "selectivity" not in (a, b) and {a, b} != {"alpha", "share"}
    )
    if main["p"] >= SIGNIFICANT:
        return "undecided", evidence
    return ("agrees" if main["rho"] > 0 else "disagrees"), evidence


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m probes.joined", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder, e.g. runs/default")
    parser.add_argument("--probes", default="", metavar="NAME", help="of probes/NAME.json (default: the only one)")
    parser.add_argument(
        "--routing", default="", metavar="NAME|TASK=NAME,...", help="of routing/NAME.parquet (default: the probes')"
    )
    parser.add_argument("--pair", action="append", default=[], metavar="TASK=TARGET", help="probe target for a task")
    parser.add_argument("--resamples", type=int, default=2000, metavar="R", help="of the bootstrap over speakers")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of drawn orders")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.resamples < 1:
            raise ValueError(f"--resamples {options.resamples}: give at least 1 (2000 is usual)")
        run = RunFolder(options.run)
        pairs = pairs_of(run, options.pair)
        result, parts = join(run, pairs, options.probes, options.routing, options.resamples, options.seed)
    except (RunError, ValueError, OSError) as error:
        print(f"joined: {error}", file=sys.stderr)
        return 2
    words = sys.argv[1:] if arguments is None else arguments
    stored = short(plain(result.as_dict())) | {
        "run": run.path.resolve().name, "probes": (parts["probe"].source or "").removesuffix(".json") or None,
        "parts": {name: asdict(part) for name, part in parts.items()}, "seed": options.seed,
        "command": shlex.join(["python", "-m", "probes.joined", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_json(run.part("probes", f"{NAME}.json"), stored)
    if options.json:
        print(json.dumps(stored, ensure_ascii=False, allow_nan=False))
    else:
        for name, part in parts.items():
            print(f"{name}: {part.source or 'not available'}" + (f" ({part.reason})" if part.reason else ""))
            print(f"  make it: {part.command}" if part.command else "", end="\n" if part.command else "")
        for verdict in result.verdicts:
            print(f"{verdict.about}: {verdict.verdict.upper()}. {verdict.evidence}")
    return int(sum(part.available for part in parts.values()) < 2)


if __name__ == "__main__":
    sys.exit(main())
