"""Two processes train as one: the same losses, gradients, running statistics and weights, to float precision."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import tiny_config, tiny_corpus
from safetensors.torch import load_file

from harmonifuse_core.config import CorpusConfig, save_yaml
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.standardise import RunningStandardise
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.train import main
from harmonifuse_core.training.loop import Trainer
from harmonifuse_core.training.processes import Processes
from harmonifuse_core.training.shares import Counts, shares_of

ROOT = Path(__file__).resolve().parents[2]


def config_for(folder: Path, **changes):
    asr, ser = tiny_corpus(folder / "corpus")
    corpora = tuple(CorpusConfig(str(m), m.stem) for m in (asr, ser))
    dev = tuple(replace(c, split="test") for c in corpora)
    return tiny_config(
        "whisper", data__train=corpora, data__dev=dev, model__encoder__finetune="all", model__lm__speech_token=True,
        model__gate__input_score=True, training__batch_size={"asr": 5, "ser": 3}, training__entropy_weight=0.1,
        data__augment={"mixup_probability": 0.5, "gain_db": 3}, training__warmup_steps=1, **changes,
    )  # fmt: skip


def together(work, count: int = 2):
    """Run `work(index, total)` in threads whose `total` sums tensors over all of them."""
    barrier, slots, failures = threading.Barrier(count, timeout=20), [None] * count, []

    def run(index: int):
        def total(values):
            slots[index] = values
            barrier.wait()
            summed = sum(slots[1:], start=slots[0])
            barrier.wait()
            return summed

        try:
            work(index, total)
        except Exception as error:  # told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_running_statistics_are_those_of_all_utterances(cut):
    alone, shared = RunningStandardise(3), [RunningStandardise(3), RunningStandardise(3)]
    for seed in range(3):
        values = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 1
        expected, parts = alone(values), (values[:cut], values[cut:])
        found = [None, None]

        def work(index, total, parts=parts, found=found):
            shared[index].total = total
            found[index] = shared[index](parts[index])

        together(work)
        torch.testing.assert_close(torch.cat(found), expected)
    for module in shared:
        torch.testing.assert_close(module.mean, alone.mean)
        torch.testing.assert_close(module.variance, alone.variance)


def test_weights_of_parts_are_their_shares_and_sum_to_one(tmp_path):
    config = config_for(tmp_path)
    model = build_model(config.model)
    batches = Trainer(config, model, RunFolder(tmp_path / "run")).batches
    parts = shares_of(0, batches, model, None, Processes(), accumulation=4)
    whole, _ = batches.step(0)
    assert [len(part) for part in parts] == [2, 2, 2, 1]  # three of ser, five of asr
    for task, batch in whole.items():
        shares = [s for part in parts for s in part if s.task == task]
        assert sum(s.weights.items for s in shares) == pytest.approx(1)
        assert sum(s.weights.utterances for s in shares) == pytest.approx(1)
        for share in shares:
            assert share.weights.utterances == pytest.approx(len(share.batch) / len(batch))
    tokens = [len(ids) + 1 for ids in whole["asr"].token_ids]
    first = next(s for s in parts[0] if s.task == "asr")
    assert first.weights.items == pytest.approx((tokens[0] + tokens[4]) / sum(tokens))
    assert Counts(2, 1, 0, 0, 3).of(Counts(4, 4, 0, 0, 4)) == Counts(0.5, 0.25, 0.0, 0.0, 0.75)


def test_one_process_alone_has_one_whole_part(tmp_path):
    config = config_for(tmp_path)
    model = build_model(config.model)
    batches = Trainer(config, model, RunFolder(tmp_path / "run")).batches
    (part,) = shares_of(0, batches, model, None, Processes(), accumulation=1)
    assert [(s.task, s.weights, s.muted) for s in part] == [("asr", None, False), ("ser", None, False)]


def launch(config: Path, run: Path, *more: str, count: int = 2):
    """What `accelerate launch` or `torchrun` does on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "harmonifuse_core.train",
        "--config",
        config,
        "--run",
        run,
        "--device",
        "cpu",
        *more,
    ]
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env=os.environ | world | {"RANK": str(i), "LOCAL_RANK": str(i), "LOCAL_WORLD_SIZE": str(count)},
        )
        for i in range(count)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [p.returncode for p in started] == [0] * count, said


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(run: Path) -> dict:
    return load_file(run / "checkpoints" / "step-000006" / "model.safetensors")


@pytest.mark.distributed
def test_two_processes_train_as_one_and_resume_exactly(tmp_path):
    config = config_for(
        tmp_path, training__steps=6, training__checkpoint_every=3, training__eval_every=3, training__gradients_every=2,
        training__keep_best=True, training__interleaving={"ratio": "fixed", "shares": {"asr": 7, "ser": 1}},
    )  # fmt: skip  # one utterance of ser a step: one process has none
    save_yaml(config, tmp_path / "config.yaml")
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["--config", tmp_path / "config.yaml", "--run", one, "--device", "cpu", "--trackers", "none"]
    assert main(list(map(str, arguments))) == 0
    launch(tmp_path / "config.yaml", two)
    for a, b in zip(rows_of(one), rows_of(two), strict=True):
        assert a["step"] == b["step"] and a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
        for task, entry in a["tasks"].items():
            assert b["tasks"][task]["loss"] == pytest.approx(entry["loss"], rel=1e-4)
            assert b["tasks"][task]["items"] == entry["items"]
            assert b["tasks"][task]["lm_alpha"] == pytest.approx(entry["lm_alpha"], abs=1e-4)
        assert ("dev" in a) == ("dev" in b) and a.get("dev", {}) == pytest.approx(b.get("dev", {}), abs=0.05)
        assert ("gradients" in a) == ("gradients" in b)
        if "gradients" in a:
            mine, theirs = (r["gradients"]["cosine"]["asr,ser"]["all"] for r in (a, b))
            assert mine == pytest.approx(theirs, abs=1e-3)
    first, second = weights_of(one), weights_of(two)
    for name, tensor in first.items():  # AdamW turns a gradient's rounding into a part of a step where it is near 0
        torch.testing.assert_close(second[name], tensor, atol=3e-3, rtol=1e-2, msg=lambda m, n=name: f"{n}: {m}")
    assert (two / "checkpoints" / "best-joint" / "model" / "weights.json").is_file()
    shutil.rmtree(two / "checkpoints" / "step-000006")
    shutil.rmtree(two / "model")
    launch(tmp_path / "config.yaml", two, "--trackers", "none", "--resume")
    again = weights_of(two)
    assert all(torch.equal(again[name], tensor) for name, tensor in second.items())
    assert [row["step"] for row in rows_of(two)] == list(range(1, 7))
