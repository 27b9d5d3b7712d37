"""Result files as analyses, probes and studies write them, with planted numbers: small, and easy to find on a page."""

from harmonifuse_core.runs import RunFolder, StudyFolder, write_json, write_text

HOSTILE = "<img src=x onerror=alert(1)> **bold** $x$"
LAYERS = 3
PLACES = [(task, stage) for task in ("asr", "ser") for stage in ("encoder", "lm")]


def result(name: str, tables: dict[str, list[dict]], verdicts: list[tuple[str, str, str]], **record) -> dict:
    stored = {
        "name": name,
        "question": f"Question of {name}?",
        "utterances": 8,
        "speakers": 2,
        "caution": "2 speakers only",
    }
    stored["tables"] = {key: {"definition": f"Definition of {key}.", "rows": rows} for key, rows in tables.items()}
    stored["verdicts"] = [{"about": a, "verdict": v, "evidence": e} for a, v, e in verdicts]
    return stored | {"command": f"python -m made.{name}", "date": "2026-01-02T03:04:05+00:00"} | record


def with_interval(column: str, value: float, half: float = 0.1) -> dict:
    return {column: value, f"{column}_low": value - half, f"{column}_high": value + half}


def faithfulness() -> dict:
    correlation, curves, areas, layers = [], [], [], []
    for place, (task, stage) in enumerate(PLACES):
        where, size = {"task": task, "stage": stage}, {"n": 8, "speakers": 2}
        for rank, ranking in enumerate(("alpha", "share", "norm", "raw_norm")):
            row = where | {"removal": "zero", "weights": "renormalised", "measure": "loss", "ranking": ranking}
            row |= with_interval("rho", 0.5 - 0.1 * rank - 0.01 * place) | with_interval("profile", 0.4)
            row |= {"order_p": 0.2} | with_interval("minus_norm", 0.3) | with_interval("minus_others", 0.2)
            row |= {"across": None, "across_low": None, "across_high": None, "constant": 0.0, "L1": LAYERS}
            correlation.append(row | {"verdict": "undecided" if rank < 2 else None} | size)
        for curve in ("deletion", "insertion"):
            for rank, ranking in enumerate(("alpha", "share", "norm", "raw_norm", "random")):
                for count in (1, 2):
                    row = where | {
                        "curve": curve,
                        "ranking": ranking,
                        "layers": count,
                        "share_of_layers": count / LAYERS,
                    }
                    curves.append(row | with_interval("loss_change", count - 0.1 * rank) | size)
                row = where | {"curve": curve, "ranking": ranking} | with_interval("area", 1.0)
                areas.append(row | with_interval("over_random", 0.25) | with_interval("over_norm", -0.125) | size)
        for layer in range(LAYERS):
            row = where | {"layer": layer, "removal": "zero", "weights": "renormalised"}
            for name in ("alpha", "share", "norm", "raw_norm"):
                row |= with_interval(name, 0.2 + 0.1 * layer, 0.05)
            row |= {"loss": 1.0, "loss_p": 0.5, "metric": "UA" if task == "ser" else "WER", "metric_intact": 0.5}
            row |= with_interval("loss_change", 0.3 * layer) | with_interval("metric_change", 0.01 * layer)
            layers.append(row | {"metric_p": 0.5} | size)
    verdicts = [("encoder / asr", "faithful", f"rho 0.50. {HOSTILE}"), ("lm / ser", "not faithful", "rho -0.10."),
                ("encoder / asr / alpha", "moves with the input", "it moves")]  # fmt: skip
    tables = {"layers": layers, "correlation": correlation, "curves": curves, "areas": areas}
    return result("faithfulness", tables, verdicts)


def input_dependence() -> dict:
    replacements, logits = [], []
    for task, stage in PLACES:
        where = {"task": task, "stage": stage}
        for name in ("task_mean", "uniform"):
            row = where | {"replacement": name, "against": "own", "loss": 1.0} | with_interval("loss_change", 0.375)
            row |= {"loss_p": 0.1, "metric": None, "metric_intact": None, "layers_chosen": {"1": 8}}
            row |= {"metric_change": None, "metric_change_low": None, "metric_change_high": None, "metric_p": None}
            replacements.append(row | {"n": 8, "speakers": 2})
        logits.append(where | {"bias": 0.5} | with_interval("moving", 0.25) | {"n": 8, "speakers": 2})
    verdicts = [("lm / ser", "the input matters", "With task_mean the loss changes.")]
    return result("input_dependence", {"replacements": replacements, "logits": logits}, verdicts)


def prompts() -> dict:
    crossing = []
    for task in ("asr", "ser"):
        for place, (kind, prompt) in enumerate((("own", "Do it."), ("random", HOSTILE), ("empty", ""))):
            row = {"task": task, "kind": kind, "prompt": prompt, "source": "", "encoder_jsd": 0.0}
            row |= with_interval("same_text_jsd", 0.0625 * place, 0.01) | with_interval("lm_jsd", 0.125 * place, 0.01)
            row |= (
                with_interval("changed", 0.25 * place) | with_interval("invalid", 0.0) | with_interval("change", 0.01)
            )
            crossing.append(row | {"decides": "", "n": 8, "speakers": 2})
    embeddings = [{"task": "asr", "prompts": 3, "largest_jsd": 0.125, "n": 8, "speakers": 2, "r2": None, "p": None}]
    verdicts = [("lm / asr", "prompt ignored", f"under {HOSTILE!r}"), ("lm / ser", "prompt matters", "it does")]
    return result("prompts", {"crossing": crossing, "prompt_embeddings": embeddings}, verdicts)


def divergence() -> dict:
    pairs = []
    for stage in ("encoder", "lm"):
        row = {"stage": stage, "task_a": "asr", "task_b": "ser"} | with_interval("jsd", 0.0625, 0.01)
        row |= with_interval("bias_jsd", 0.03125, 0.01) | with_interval("centre_difference", -0.75)
        pairs.append(row | {"between_utterances": 0.01, "p": 0.5, "p_holm": 1.0, "n": 8, "speakers": 2})
    return result("divergence", {"pairs": pairs, "seeds": []}, [("lm / asr - ser", "no provable difference", "JSD")])


def attribution() -> dict:
    layers, tokens, deletion = [], [], []
    for task in ("asr", "ser"):
        for layer in range(LAYERS):
            row = {"task": task, "layer": layer, "name": f"layer {layer}", "top": 0.5} | with_interval(
                "score", 0.125 * layer
            )
            layers.append(row | {"n": 8, "speakers": 2})
        for token, text in enumerate(("Do", HOSTILE)):
            row = {"task": task, "token": token, "name": text, "top": 0.5} | with_interval("score", 0.0625)
            tokens.append(row | {"n": 8, "speakers": 2})
        deletion.append({"task": task, "method": "frame"} | with_interval("gap", 0.5) | {"n": 8, "speakers": 2})
    tables = {"layers": layers, "tokens": tokens, "deletion": deletion}
    return result("attribution", tables, [("encoder / asr", "layers 1, 2 lead", "0: +0.000")])


def signatures() -> dict:
    rows = [{"name": "uniform alpha", "about": "lm / ser", "status": "found", "value": 0.01, "n": 8, "speakers": 2}]
    verdicts = [("uniform alpha / lm / ser", "found", "Entropy 1.58 bits. Train longer."),
                ("class collapse / answers / ser", "not available", "8 answers.")]  # fmt: skip
    return result("signatures", {"signatures": rows}, verdicts)


ANALYSES = (faithfulness, input_dependence, prompts, divergence, attribution, signatures)


def probes() -> dict:
    size = {"n": 8, "speakers": 2}
    targets = [
        {"target": "emotion", "kind": "classes", "metric": "ua", "classes": ["calm", "sad"], "chance": 0.5} | size
    ]
    layers, best, baselines, erasure = [], [], [], []
    for stage, task in (("encoder", None), ("lm", "ser")):
        where = {"stage": stage, "task": task, "target": "emotion", "metric": "ua"}
        for probe in ("linear", "mlp"):
            for layer in range(LAYERS):
                row = where | {"layer": layer, "probe": probe} | with_interval("score", 0.25 + 0.125 * layer)
                row |= {"accuracy": 0.5, "control": 0.25} | with_interval("selectivity", 0.125 * layer)
                row |= {
                    "in_best_set": layer > 0,
                    "behind_best": 0.25 - 0.125 * layer,
                    "behind_low": 0.0,
                    "behind_high": 0.3,
                }
                row |= {
                    "compression": 1.25 if probe == "linear" else None,
                    "control_compression": None,
                    "mdl_bits": None,
                }
                layers.append(row | size)
            row = where | {"probe": probe, "best_layer": 2, "layers": [1, 2]} | with_interval("score", 0.5)
            row |= with_interval("over_majority", 0.25) | with_interval("over_logmel", 0.125)
            best.append(row | {"over_random": None, "verdict": "held"} | size)
    for features, layer in (("majority", None), ("log-mel", None), *(("random encoder", k) for k in range(LAYERS))):
        row = {"features": features, "layer": layer, "target": "emotion", "probe": "linear", "metric": "ua"}
        baselines.append(row | with_interval("score", 0.25) | size)
    for method in ("intact", "leace", "random"):
        row = {"concept": "emotion", "layer": 1, "method": method, "rank": 1, "task": "ser", "metric": "ua"}
        row |= with_interval("value", 0.5) | with_interval("change", -0.125)
        row |= with_interval("beyond_random", -0.0625) if method == "leace" else {"beyond_random": None}
        erasure.append(row | size)
    tables = {"targets": targets, "layers": layers, "best": best, "baselines": baselines, "erasure": erasure}
    return result("tones-test", tables, [("encoder / emotion", "held", "best layer 2")])


def joined() -> dict:
    layers, correlations = [], []
    for task, stage in PLACES:
        for measure in ("probe", "alpha", "share"):
            for layer in range(LAYERS):
                row = {
                    "stage": stage,
                    "task": task,
                    "layer": layer,
                    "target": "emotion",
                    "measure": measure,
                    "unit": "",
                }
                layers.append(row | {"value": 0.25 * layer, "low": 0.0, "high": 0.75, "n": 8, "speakers": 2})
        correlations.append({"stage": stage, "task": task, "a": "probe", "b": "alpha", "rho": 1.0, "layers": LAYERS,
                             "p": 0.333, "smallest_p": 0.333, "low": None, "high": None})  # fmt: skip
    parts = {"probe": {"available": True}, "alpha": {"available": True},
             "damage": {"available": False, "reason": "no faithfulness", "command": "python -m damage"}}  # fmt: skip
    verdicts = [("encoder / ser", "undecided", "rho 1.00")]
    return result("joined", {"layers": layers, "correlations": correlations}, verdicts, parts=parts)


def study(done: int = 4) -> dict:
    size = {"n": 8, "speakers": 2, "seeds": 2}
    scores, alphas = [], []
    for place, system in enumerate(("joint", "single")):
        row = {"system": system, "note": "", "evaluation": "test", "task": "ser", "metric": "ua"}
        row |= with_interval("value", 0.75 - 0.125 * place) | {"seeds_low": 0.5, "seeds_high": 0.8, "seed_sd": 0.01}
        scores.append(row | {"per_seed": [0.7, 0.8]} | size)
        for layer in range(LAYERS):
            row = {
                "system": system,
                "evaluation": "test",
                "task": "ser",
                "stage": "lm",
                "layer": layer,
                "seeds": 2,
                "n": 8,
            }
            alphas.append(row | {"alpha": 0.25 + 0.0625 * layer, "alpha_sd": 0.01, "share": 0.3})
    comparison = {"claim": "c1", "system": "joint", "baseline": "single", "evaluation": "test", "task": "ser",
                  "metric": "ua", "expect": "better", "margin": 0.0, "value": 0.75}  # fmt: skip
    comparison |= (
        {"baseline_value": 0.625}
        | with_interval("benefit", 0.125)
        | {"speakers_low": 0.05, "speakers_high": 0.2, "seeds_low": None}
    )
    comparison |= {"seeds_high": None, "p": 0.04, "p_holm": 0.04, "verdict": "supported here"} | size
    text = f"Joint training helps. {HOSTILE}"
    claims = [{"claim": "c1", "text": text, "source": "E2", "verdict": "supported here", "evidence": "benefit"}]
    costs = [{"system": "joint", "seeds": 2, "steps": 10, "trainable": 100, "train_seconds": 1.5}]
    tables = {"scores": scores, "comparisons": [comparison], "claims": claims, "alphas": alphas, "costs": costs}
    tables["missing"] = [{"system": "single", "seed": 1, "reason": "not run"}] if done < 4 else []
    record = {"title": "A planted study", "complete": done == 4, "cells_done": done, "cells_expected": 4}
    return result("e2", tables, [(text, "supported here", "benefit")], **record)


def plant(run: RunFolder) -> None:
    """All analyses, one probe result and the joined file."""
    for make in ANALYSES:
        write_json(run.part("analysis", f"{make.__name__}.json"), make())
    write_json(run.part("probes", "tones-test.json"), probes())
    write_json(run.part("probes", "joined.json"), joined())


def plant_study(root, done: int = 4) -> StudyFolder:
    folder = StudyFolder(root / "study-e2")
    write_text(folder.study_file, "name: e2\n")
    write_json(folder.table_file, study(done))
    return folder
