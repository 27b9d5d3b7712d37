"""The loop: it learns, and a run that was killed ends with the weights of one that was not."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import LLAMA, WHISPER, tiny_config, tiny_corpus, tone, write_manifest, write_wav
from safetensors.torch import load_file

from harmonifuse_core import load, predict
from harmonifuse_core.config import CorpusConfig, load_yaml, save_yaml
from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.train import main, slow_precision
from harmonifuse_core.training.checkpoints import list_checkpoints
from harmonifuse_core.training.loop import Trainer, TrainingError, summary

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 30, 5  # steps of the run that is killed, and between its checkpoints


def config_for(folder: Path, lm_kind: str = "whisper", encoder: str = "whisper", n: int = 8, **changes):
    """A tiny config with both tasks on a tiny corpus below `folder`."""
    asr, ser = tiny_corpus(folder / "corpus", n)
    corpora = (CorpusConfig(str(asr), "asr"), CorpusConfig(str(ser), "ser"))
    return tiny_config(lm_kind, encoder, **{"data__train": corpora, **changes})


def trained(config, path: Path, resume: bool = False):
    torch.manual_seed(config.training.seed)
    trainer = Trainer(config, build_model(config.model), RunFolder(path), resume=resume)
    return trainer.run()


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("lm_kind", "encoder", "architecture"),
    [
        ("whisper", "whisper", {**WHISPER, "d_model": 48, "decoder_ffn_dim": 96, "init_std": 0.15}),
        ("prefix", "wavlm", {**LLAMA, "hidden_size": 32, "intermediate_size": 64}),
    ],
)
def test_both_tasks_are_learnt_by_heart(tmp_path, lm_kind, encoder, architecture):
    config = config_for(
        tmp_path, lm_kind, encoder, n=4, model__lm__architecture=architecture, model__encoder__finetune="all",
        model__lm__speech_token=lm_kind == "whisper", training__steps=140, training__warmup_steps=5,
        training__learning_rate=5e-3 if lm_kind == "whisper" else 8e-3, training__checkpoint_every=1000,
    )  # fmt: skip
    model = trained(config, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    for task in ("asr", "ser"):
        assert rows[-1]["tasks"][task]["loss"] < 0.1 * rows[0]["tasks"][task]["loss"]
    for corpus in config.data.train:
        utterances = read_manifest(corpus.manifest)
        answers = predict(model, [decode_waveform(u.audio) for u in utterances])
        for utterance, answer in zip(utterances, answers, strict=True):
            found = answer["asr"].text if corpus.task == "asr" else answer["ser"].label
            assert found == (utterance.text or utterance.labels["emotion"])


def test_gates_leave_their_initial_values_and_are_logged_for_each_task(tmp_path):
    config = config_for(tmp_path, training__steps=20, model__lm__last_logit=1.0, training__log_every=5)
    model = trained(config, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    for task in ("asr", "ser"):
        for row in rows:
            entry = row["tasks"][task]
            for name in ("encoder_alpha", "lm_alpha"):
                assert len(entry[name]) == 3 and sum(entry[name]) == pytest.approx(1, abs=1e-4)
            assert entry["items"] > 0 and entry["seconds"] > 0
        last = rows[-1]["tasks"][task]
        final = model.fusion.task_bias[("asr", "ser").index(task)].tolist()
        assert last["task_bias"] == pytest.approx(final, abs=1e-3)  # logged as they stood in the step's forward pass
        assert max(abs(a - b) for a, b in zip(last["task_bias"], [0, 0, 1], strict=True)) > 0.01
        assert max(map(abs, last["encoder_logits"])) > 0.01
    text = summary(rows[-1])
    assert text.startswith("step 20  |g| ") and "asr " in text and "ser " in text


def test_the_logged_lm_alpha_is_the_mean_over_real_tokens(tmp_path):
    texts = ["a", "a much longer sentence"]
    for index in range(2):
        write_wav(tmp_path / f"{index}.wav", tone(0.5, 200 + 50 * index))
    manifest = write_manifest(tmp_path, [{"audio_filepath": f"{i}.wav", "text": t} for i, t in enumerate(texts)])
    config = tiny_config("whisper", data__train=(CorpusConfig(str(manifest), "asr"),), training__steps=1)
    torch.manual_seed(0)
    model = build_model(config.model)
    torch.nn.init.normal_(model.fusion.ffn[-1].weight)
    trainer = Trainer(config, model, RunFolder(tmp_path / "run"))
    batch = trainer.batches.step(0)[0]
    with torch.no_grad():
        alpha = model.train()(batch)["asr"].lm.alpha
        counts = [len(ids) + 1 for ids in batch["asr"].token_ids]
        expected = torch.stack([alpha[row, :count].mean(0) for row, count in enumerate(counts)]).mean(0)
    assert (alpha.mean((0, 1)) - expected).abs().max() > 1e-4
    assert trainer._step(0)["tasks"]["asr"]["lm_alpha"] == pytest.approx(expected.tolist(), abs=2e-5)


def test_bfloat16_gives_nearly_the_loss_of_float32_and_keeps_the_weights_in_float32(tmp_path):
    rows = {}
    for precision in ("float32", "auto", "bfloat16"):
        config = config_for(tmp_path / precision, training__precision=precision)
        torch.manual_seed(0)
        trainer = Trainer(config, build_model(config.model), RunFolder(tmp_path / f"run-{precision}"))
        rows[precision] = [entry["loss"] for entry in trainer._step(0)["tasks"].values()]
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert rows["auto"] == rows["float32"]  # on a CPU
    assert rows["bfloat16"] == pytest.approx(rows["float32"], rel=0.02) and rows["bfloat16"] != rows["float32"]


def command(config: Path, run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "harmonifuse_core.train", "--config", str(config), "--run", str(run),
            "--device", "cpu", *more]  # fmt: skip


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """A config with everything that could go its own way: two tasks, augmentation, dropout, averaging, masks."""
    folder = tmp_path_factory.mktemp("resume")
    augment = {"speed": [0.9, 1.1], "noise_probability": 0.5, "gain_db": 6, "time_masks": 2, "frequency_masks": 1}
    config = config_for(
        folder, model__dropout=0.3, model__encoder__finetune="all", model__lm__speech_token=True,
        data__augment=augment, training__steps=STEPS, training__checkpoint_every=EVERY, training__average_decay=0.9,
        training__batch_size={"asr": 3, "ser": 2},
    )  # fmt: skip
    save_yaml(config, folder / "config.yaml")
    assert main(command(folder / "config.yaml", folder / "whole")[3:]) == 0
    return folder


def weights_of(run: Path) -> dict:
    exported = {p.name: load_file(p) for p in sorted((run / "model").glob("*.safetensors"))}
    step, newest = list_checkpoints(run / "checkpoints")[-1]
    assert step == STEPS
    return exported | {p.name: load_file(p) for p in sorted(newest.glob("*.safetensors"))}


def assert_same_run(a: Path, b: Path):
    one, two = weights_of(a), weights_of(b)
    assert one.keys() == two.keys()
    for file in one:
        assert one[file].keys() == two[file].keys()
        for name, tensor in one[file].items():
            assert torch.equal(tensor, two[file][name]), (file, name)
    logs = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(run)] for run in (a, b)]
    assert logs[0] == logs[1]


def test_a_run_killed_and_resumed_ends_like_one_that_was_not(resumable):
    """kill -9 once a checkpoint is there, in the middle of the work, with the debris of a checkpoint half written."""
    config = resumable / "config.yaml"
    for attempt in range(3):  # on a busy machine the run may end before this process looks again
        run = resumable / f"killed-{attempt}"
        process = subprocess.Popen(command(config, run), cwd=ROOT, stderr=subprocess.DEVNULL)
        while not list_checkpoints(run / "checkpoints") and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            break
    assert process.returncode == -signal.SIGKILL
    reached = list_checkpoints(run / "checkpoints")[-1][0]
    assert 0 < reached < STEPS and not (run / "model").exists()
    debris = run / "checkpoints" / f"part-{reached + EVERY:06d}"
    debris.mkdir(exist_ok=True)
    (debris / "model.safetensors").write_bytes(b"half")
    with (run / "metrics.jsonl").open("a") as log:  # a row of a step that will be done again, and one cut off
        log.write(json.dumps({"step": reached + 1, "tasks": {}}) + '\n{"step": 9')
    assert main(command(config, run, "--resume")[3:]) == 0
    assert [row["step"] for row in rows_of(run)] == list(range(1, STEPS + 1))
    assert_same_run(run, resumable / "whole")


def test_a_run_that_stopped_between_checkpoints_is_resumed_from_the_last_one(resumable):
    run, config = resumable / "stopped", resumable / "config.yaml"
    arguments = command(config, run)[3:]
    original, calls = Trainer._step, []

    def interrupted(self, step):
        calls.append(step)
        if step == 17:
            raise KeyboardInterrupt
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        assert main(arguments) == 130
    assert [row["step"] for row in rows_of(run)] == list(range(1, 18))
    assert [step for step, _ in list_checkpoints(run / "checkpoints")] == [10, 15]
    assert main([*arguments, "--resume"]) == 0
    assert_same_run(run, resumable / "whole")
    seconds = [row["seconds"] for row in rows_of(run)]
    assert all(a <= b for a, b in zip(seconds, seconds[1:], strict=False))


def test_resuming_a_finished_run_changes_nothing(resumable, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(resumable / "whole", run)
    assert main(command(resumable / "config.yaml", run, "--resume")[3:]) == 0
    assert_same_run(run, resumable / "whole")


def test_an_existing_run_is_never_overwritten_by_accident(resumable, tmp_path, capsys):
    config, run = resumable / "config.yaml", tmp_path / "run"
    shutil.copytree(resumable / "whole", run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "train.log"}
    assert main(command(config, run)[3:]) == 1
    assert f"holds checkpoints up to step {STEPS}: add --resume, or choose another --run" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")  # as a run comes out of git
    for more in ([], ["--resume"]):
        assert main(command(config, run, *more)[3:]) == 1
        assert "holds a trained model but no checkpoint to resume: choose another --run" in capsys.readouterr().err
    assert all(p.read_bytes() == data for p, data in before.items() if "checkpoints" not in p.parts)


def test_a_run_killed_before_its_first_checkpoint_starts_over_with_a_clean_log(resumable):
    run = resumable / "early"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "tasks": {}}\n{"step": 2, "tasks": {}}\n')
    assert main(command(resumable / "config.yaml", run, "--resume")[3:]) == 0
    assert_same_run(run, resumable / "whole")


def test_the_run_folder_carries_what_made_it(resumable):
    run = RunFolder(resumable / "whole")
    assert run.config() == load_yaml(resumable / "config.yaml")
    environment = json.loads(run.environment_file.read_text())
    assert environment["seed"] == 0 and environment["packages"]["torch"] and environment["threads"] >= 1
    assert f"step {STEPS}" in run.log_file.read_text() and "asr learns from" in run.log_file.read_text()
    average = load_file(list_checkpoints(run.checkpoints)[-1][1] / "average.safetensors")
    model = dict(load(run.path).named_parameters())
    for name, tensor in average.items():  # the averaged weights are the ones exported
        assert torch.equal(model[name], tensor.half().float()), name


def test_the_command_refuses_bad_input_in_one_line(tmp_path, capsys):
    config = config_for(tmp_path, training__steps=1)
    save_yaml(config, tmp_path / "config.yaml")
    for arguments, message in [
        (["training.stepz=3"], "train: training: unknown field 'stepz'"),
        (["training.steps"], "write key=value"),
        (["model.encoder.name=nowhere/at-all"], "neither a local folder"),
        (["data.train=[]"], "data.train names no corpus"),
    ]:
        assert main(command(tmp_path / "config.yaml", tmp_path / "run", *arguments)[3:]) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert main(command(tmp_path / "absent.yaml", tmp_path / "run")[3:]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run_and_says_when(tmp_path):
    config = config_for(tmp_path, training__steps=3)
    model = build_model(config.model)
    with torch.no_grad():
        model.heads["ser"].output.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1: lower the rates"):
        Trainer(config, model, RunFolder(tmp_path / "run")).run()


def test_dev_scores_are_taken_on_the_averaged_weights_and_do_not_disturb_training(tmp_path):
    plain = config_for(tmp_path, training__steps=6, training__average_decay=0.5, model__dropout=0.2)
    asr, ser = (corpus.manifest for corpus in plain.data.train)
    dev = (CorpusConfig(asr, "asr", split="test"), CorpusConfig(ser, "ser", split="test"))
    scored = config_for(
        tmp_path, training__steps=6, training__average_decay=0.5, model__dropout=0.2, data__dev=dev,
        training__eval_every=2, training__log_every=100,
    )  # fmt: skip
    a, b = trained(plain, tmp_path / "a"), trained(scored, tmp_path / "b")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    rows = rows_of(tmp_path / "b")
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        assert set(row["dev"]) == {"asr.wer", "asr.asr.wer", "ser.ua", "ser.ser.ua"}
        assert row["dev"]["asr.wer"] == row["dev"]["asr.asr.wer"] >= 0 and 0 <= row["dev"]["ser.ua"] <= 1
    answers = predict(b, [decode_waveform(u.audio) for u in read_manifest(ser, "test")], PredictOptions(tasks=("ser",)))
    right = [a["ser"].label == u.labels["emotion"] for a, u in zip(answers, read_manifest(ser, "test"), strict=True)]
    assert rows[-1]["dev"]["ser.ua"] == pytest.approx(np.mean(right))


def test_the_other_tasks_parameters_get_no_gradient_from_a_task(tmp_path):
    config = config_for(tmp_path, training__steps=1)
    model = build_model(config.model)
    trainer = Trainer(config, model, RunFolder(tmp_path / "run"))
    batches, _ = trainer.batches.step(0)
    model({"asr": batches["asr"]})["asr"].loss.backward()
    assert bool(model.gate.logits.grad[0].any()) and not model.gate.logits.grad[1].any()
    assert not model.fusion.task_bias.grad[1].any() and model.heads["ser"].output.weight.grad is None


def test_bfloat16_on_a_cpu_without_it_is_warned_of(monkeypatch):
    for capability, precision, device, warned in (
        ("AVX2", "bfloat16", "cpu", True),
        ("AVX512", "bfloat16", "cpu", False),
        ("AVX2", "auto", "cpu", False),
        ("AVX2", "bfloat16", "cuda", False),
    ):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda given=capability: given)
        assert bool(slow_precision(precision, torch.device(device))) == warned
        assert not warned or "training.precision=float32" in slow_precision(precision, torch.device(device))
