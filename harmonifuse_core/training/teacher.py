"""A padded Whisper as teacher: its transcripts, token probabilities and encoder states for utterances without text.

Whisper hears 30 s windows only; the student hears speech at its own length. Where nobody wrote a transcript, the
teacher's transcript, its distribution over each next token and its last encoder state say what the student should do.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from harmonifuse_core.data.audio import SAMPLE_RATE, decode_waveform
from harmonifuse_core.data.manifest import read_manifest
from harmonifuse_core.model.tokenizer import START_OF_TEXT, load_tokenizer
from harmonifuse_core.model.whisper_lm import MULTILINGUAL_VOCABULARY

TOP = 16  # token probabilities kept at each position; what is left over is tiny


@dataclass(frozen=True)
class Target:
    """What the teacher says of one utterance. normalised_state (T, D) float16: the last encoder state, layer-normalised
    without gain; top_ids, top_logprobs (U + 1, TOP)."""

    normalised_state: Tensor
    top_ids: Tensor
    top_logprobs: Tensor


class TeacherFolder:
    """Read side: `transcripts` {id: text} and `target(id)`."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        listing = self.folder / "transcripts.jsonl"
        if not listing.is_file():
            raise ValueError(f"data.teacher {str(folder)!r} has no transcripts.jsonl; write it with `prepare teacher`")
        rows = [json.loads(line) for line in listing.read_text().splitlines()]
        self.transcripts = {row["id"]: row["text"] for row in rows}
        self.files = {row["id"]: self.folder / f"{number:06d}.safetensors" for number, row in enumerate(rows)}
        self.loaded: dict[str, Target] = {}

    def target(self, utterance: str) -> Target:
        if utterance not in self.loaded:
            tensors = load_file(self.files[utterance])
            if missing := {f.name for f in fields(Target)} - set(tensors):
                file = self.files[utterance]
                raise ValueError(f"{file} has no {min(missing)!r}: write the folder again with `prepare teacher`")
            self.loaded[utterance] = Target(**tensors)
        return self.loaded[utterance]


def state_loss(student: Tensor, mask: Tensor, targets: list[Target]) -> Tensor:
    """Mean squared difference of the layer-normalised last states (B, T, D) on the frames that both have."""
    width = student.shape[-1:]
    target, keep = torch.zeros_like(student), torch.zeros_like(mask)
    for row, item in enumerate(targets):
        frames = min(len(item.normalised_state), int(mask[row].sum()))
        target[row, :frames] = item.normalised_state[:frames].to(student)
        keep[row, :frames] = True
    difference = nn.functional.layer_norm(student, width) - nn.functional.layer_norm(target, width)
    return difference[keep].square().mean()


def token_loss(logits: Tensor, rows: Tensor, targets: list[Target]) -> Tensor:
    """Cross-entropy of the student's (N, V) against the teacher's top token probabilities, mean over N positions."""
    ids = torch.cat([t.top_ids for t in targets]).to(logits.device).long()
    probabilities = torch.softmax(torch.cat([t.top_logprobs.float() for t in targets]).to(logits.device), -1)
    if len(ids) != len(rows):
        raise ValueError(f"the teacher has {len(ids)} tokens, the batch {len(rows)}: write the teacher folder again")
    return -(torch.log_softmax(logits.float(), -1).gather(1, ids) * probabilities).sum(1).mean()


@torch.inference_mode()
def write_teacher(whisper: str, manifest: str, split: str, output: str, beams: int = 1, batch: int = 4) -> int:
    """Write the teacher folder for one manifest split; returns the number of utterances. The listing comes last."""
    model = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32).eval()
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(whisper), load_tokenizer(whisper)
    tokenizer.language = "en" if model.config.vocab_size >= MULTILINGUAL_VOCABULARY else ""
    start = tokenizer.prompt_ids("")
    start = start[start.index(tokenizer.special(START_OF_TEXT)) :]
    norm = model.model.encoder.layer_norm
    folder, listing = Path(output), []
    folder.mkdir(parents=True, exist_ok=True)
    utterances = sorted(read_manifest(manifest, split), key=lambda u: u.duration)
    for first in tqdm(range(0, len(utterances), batch), desc="teacher", unit="batch"):
        group = utterances[first : first + batch]
        clips = [decode_waveform(u.audio) for u in group]
        mel = extractor(clips, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        states = model.model.encoder(mel).last_hidden_state  # (B, 1500, D)
        generated = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), num_beams=beams, do_sample=False,
            decoder_input_ids=torch.tensor([start] * len(group)), max_new_tokens=200, max_length=None,
        )  # fmt: skip
        for u, clip, state, ids in zip(group, clips, states, generated, strict=True):
            text = tokenizer.decode(ids.tolist())
            tokens = tokenizer.encode(text)
            logits = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=state[None]),
                decoder_input_ids=torch.tensor([start + tokens]),
            ).logits[0, len(start) - 1 :]
            top = torch.log_softmax(logits, -1).topk(TOP)
            frames = -(-len(clip) // (SAMPLE_RATE // 50))
            plain = (state[:frames] - norm.bias) / norm.weight  # the student's state L comes before gain and bias
            target = {
                "normalised_state": plain.half().contiguous(),
                "top_ids": top.indices.int(),
                "top_logprobs": top.values.half(),
            }
            save_file(target, folder / f"{len(listing):06d}.safetensors")
            listing.append(json.dumps({"id": u.id, "text": text, "logprob": float(top.values[:, 0].mean())}))
    temporary = folder / "transcripts.jsonl.part"
    temporary.write_text("\n".join(listing) + "\n")
    temporary.replace(folder / "transcripts.jsonl")
    return len(listing)
