"""A padded Whisper as teacher: what it writes, and losses that are least where the student equals it."""

import json
import math

import pytest
import torch
from factories import encoder_hf_config, stir, tiny_config, tiny_corpus
from safetensors.torch import load_file, save_file
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from harmonifuse_core.data.audio import decode_waveform
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.training.teacher import TOP, Target, TeacherFolder, state_loss, token_loss, write_teacher


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A tiny random Whisper as the hub holds one."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(2)
    model = stir(WhisperForConditionalGeneration(encoder_hf_config("whisper", max_target_positions=448)))
    model.generation_config.begin_suppress_tokens = model.generation_config.suppress_tokens = None
    model.save_pretrained(folder)
    byte_tokenizer().save(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taught(whisper, tmp_path_factory):
    """Manifest and teacher folder."""
    folder = tmp_path_factory.mktemp("teacher")
    manifest, _ = tiny_corpus(folder / "corpus", n=3)
    assert write_teacher(str(whisper), str(manifest), "", str(folder / "out"), batch=2) == 3
    return manifest, folder / "out"


def target(state=None, ids=((0, 1), (1, 2)), probabilities=((0.75, 0.25), (0.5, 0.5))) -> Target:
    state = torch.zeros(1, 4) if state is None else state
    return Target(state, torch.tensor(ids), torch.tensor(probabilities).log())


def test_the_folder_holds_a_target_for_each_utterance(taught):
    manifest, folder = taught
    teacher, utterances = TeacherFolder(folder), {u.id: u for u in read_manifest(manifest)}
    assert set(teacher.transcripts) == set(utterances)
    for name, utterance in utterances.items():
        item = teacher.target(name)
        assert item.normalised_state.shape == (math.ceil(utterance.duration * 50), 16)
        tokens = byte_tokenizer().encode(teacher.transcripts[name])
        assert item.top_ids.shape == item.top_logprobs.shape == (len(tokens) + 1, TOP)
        assert bool((item.top_logprobs[:, :-1] >= item.top_logprobs[:, 1:]).all())
        assert teacher.target(name) is item  # read once
    rows = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    assert all(row["logprob"] <= 0 for row in rows)


def test_a_student_that_is_the_teacher_has_no_state_loss(whisper, taught):
    """The same weights on the same 30 s: state L comes before the final norm's gain, and so must the target."""
    manifest, folder = taught
    fields = {f"model__{part}__name": str(whisper) for part in ("encoder", "lm")} | {"model__lm__architecture": {}}
    config = tiny_config("whisper", **fields, model__lm__tokenizer=str(whisper), model__encoder__weights="pretrained")
    student, teacher = build_model(config.model).eval(), TeacherFolder(folder)
    utterances = read_manifest(manifest)
    clips = [decode_waveform(u.audio) for u in utterances]
    waveforms, _ = pad_waveforms([*clips, torch.zeros(480_000).numpy()])
    with torch.no_grad():
        states = student.encode(waveforms[:-1], torch.full((len(clips),), 480_000))
    targets = [teacher.target(u.id) for u in utterances]
    own = state_loss(states.states[-1], states.mask, targets)
    assert float(own) < 1e-4
    assert float(state_loss(states.states[0], states.mask, targets)) > 0.1
    norm = student.gate.norm
    gained = state_loss((states.states[-1] * norm.gain + norm.bias).detach(), states.mask, targets)
    assert float(gained) > 100 * float(own)


def test_state_loss_reads_the_frames_that_both_have():
    state = torch.tensor([[[1.0, -1.0, 1.0, -1.0]] * 3, [[1.0, 1.0, -1.0, -1.0]] * 3])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    shorter = [target(state[0, :2]), target(state[1])]
    assert float(state_loss(state, mask, shorter)) == pytest.approx(0, abs=1e-9)
    assert float(state_loss(3 * state + 1, mask, shorter)) == pytest.approx(0, abs=1e-9)  # scale is no matter
    dirty = state.clone()
    dirty[0, 2], dirty[1, 1:] = 7.0, torch.randn(2, 4)
    assert float(state_loss(dirty, mask, shorter)) == pytest.approx(0, abs=1e-9)
    # one of three frames turned round: (2 sqrt(v) / sqrt(v + eps))^2 = 4 there, 0 elsewhere
    turned = state.clone()
    turned[1] *= -1
    assert float(state_loss(turned, mask, shorter)) == pytest.approx(4 / 3, abs=1e-3)


def test_token_loss_is_least_at_the_teachers_distribution():
    rows = torch.tensor([0, 0])
    best = torch.full((2, 3), -1e4)
    best[0, 0], best[0, 1], best[1, 1], best[1, 2] = math.log(0.75), math.log(0.25), math.log(0.5), math.log(0.5)
    best.requires_grad_(True)
    least = token_loss(best, rows, [target()])
    entropy = (-0.75 * math.log(0.75) - 0.25 * math.log(0.25) + math.log(2)) / 2
    (gradient,) = torch.autograd.grad(least, best)
    least = float(least.detach())
    assert least == pytest.approx(entropy, abs=1e-5)
    assert float(gradient.abs().max()) < 1e-6
    noise = torch.Generator().manual_seed(0)
    for _ in range(10):
        assert float(token_loss(best.detach() + torch.randn(2, 3, generator=noise), rows, [target()])) > least


def test_targets_of_other_tokens_are_refused():
    with pytest.raises(ValueError, match="the teacher has 2 tokens, the batch 3: write the teacher folder again"):
        token_loss(torch.zeros(3, 4), torch.zeros(3), [target()])


def test_a_folder_that_is_none_or_of_an_older_kind_says_so(taught, tmp_path):
    with pytest.raises(ValueError, match=r"has no transcripts\.jsonl; write it with `prepare teacher`"):
        TeacherFolder(tmp_path)
    _, folder = taught
    (tmp_path / "transcripts.jsonl").write_bytes((folder / "transcripts.jsonl").read_bytes())
    tensors = load_file(folder / "000000.safetensors")
    save_file({"state": tensors.pop("normalised_state"), **tensors}, tmp_path / "000000.safetensors")
    teacher = TeacherFolder(tmp_path)
    with pytest.raises(ValueError, match="has no 'normalised_state': write the folder again"):
        teacher.target(next(iter(teacher.transcripts)))


def test_under_autocast_the_token_loss_is_the_same():
    logits = torch.tensor([[0.5, 0.1, -1.0], [0.3, 0.2, 0.1]])
    item = Target(
        torch.zeros(1, 4), torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log().half()
    )
    plain = token_loss(logits, torch.tensor([0, 0]), [item])
    with torch.autocast("cpu", torch.bfloat16):
        assert token_loss(logits, torch.tensor([0, 0]), [item]) == plain
