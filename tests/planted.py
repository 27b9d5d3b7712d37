"""A model in which only encoder state K and LM state J carry the label, its weights set by hand; and speech for it.

The states are planted: no encoder runs. The head is fitted to what the fusions, as they stand, let through.
"""

import torch
from factories import tiny_config
from torch import nn

from harmonifuse_core.analysis.material import SpeechBatch, Spoken
from harmonifuse_core.config import GateConfig, LMConfig, ModelConfig
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.lm import LanguageModel, LMStates
from harmonifuse_core.model.speech_encoder import EncoderStates
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.tasks import TaskConfig

STATES, WIDTH, CLASSES, FRAMES, BATCH = 5, 16, 4, 8, 16
K, J, MARK = 2, 3, WIDTH - 1  # encoder and LM states that carry the label
SER = TaskConfig("ser", labels=("neutral", "happy", "sad", "angry"), prompts=("Recognize the emotion.",))
PEAKED = (0.05, 0.15, 0.5, 0.2, 0.1)


class PlantedLM(LanguageModel):
    """State J is the mean over time of the fused speech; the other states are noise that knows no label."""

    def __init__(self, config):
        super().__init__(config, None, byte_tokenizer())
        self.width, self.layers = WIDTH, STATES - 1
        self.noise = nn.Parameter(torch.randn(STATES, WIDTH, WIDTH), requires_grad=False)

    def teacher_forced(self, speech, mask, prompts, texts, summary=None):
        mean = (speech * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        noise = torch.sin(300 * mean)  # changes wildly with the input, and not with the label
        states = [(mean if layer == J else noise @ self.noise[layer])[:, None] for layer in range(STATES)]
        return LMStates(tuple(states), None)


class NoEncoder(nn.Module):
    """Its states are planted in the batches."""

    layers, width = STATES - 1, WIDTH


def planted_model(encoder_alpha=PEAKED, lm_alpha=None, listening: bool = False, tasks=(SER,)) -> HarmoniFuse:
    """`listening`: the gate moves to the state that is marked, see `planted_batches`."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=tiny_config().model.encoder,
        gate=GateConfig(input_score=listening),
        lm=LMConfig(kind="prefix", fusion="bias"),
        tasks=tasks,
        dropout=0.0,
    )
    model = HarmoniFuse(config, NoEncoder(), PlantedLM(config.lm)).eval()
    lone = torch.full((STATES,), 0.02).index_fill(0, torch.tensor(J), 0.92)
    with torch.no_grad():
        model.gate.logits[:] = torch.tensor(encoder_alpha).log()
        if listening:  # one hidden unit reads the mark and lifts the score
            for parameter in model.gate.ffn.parameters():
                parameter.zero_()
            model.gate.ffn[0].weight[0, MARK] = 6
            model.gate.ffn[-1].weight[:, 0] = 1
        model.fusion.task_bias[:] = (lone if lm_alpha is None else torch.tensor(lm_alpha)).log()
    return fitted(model, listening)


def planted_batches(seed: int, count: int = 3, moving: bool = False) -> list[SpeechBatch]:
    """State K carries the label; with `moving` it is K or K + 1 in turn, and the one that does is marked."""
    rng = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(count):
        labels = torch.randint(CLASSES, (BATCH,), generator=rng).tolist()
        states = [torch.randn(BATCH, FRAMES, WIDTH, generator=rng) for _ in range(STATES)]
        for row, label in enumerate(labels):
            layer = K + row % 2 if moving else K
            states[layer][row, :, label] += 4
            states[layer][row, :, MARK] += 4 * moving
        mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
        mask[::2, -2:] = False
        names = [f"{number}-{i}" for i in range(BATCH)]
        heard = [Utterance(name, f"{name}.wav", speaker=f"s{i % 8}") for i, name in enumerate(names)]
        items = [
            Spoken(Source(u, u.id), {"ser": SER.labels[label]}, {}) for u, label in zip(heard, labels, strict=True)
        ]
        batches.append(SpeechBatch(tuple(items), EncoderStates(tuple(states), mask)))
    return batches


def fitted(model: HarmoniFuse, moving: bool = False) -> HarmoniFuse:
    optimizer = torch.optim.Adam(model.heads.parameters(), lr=0.05)
    batches = planted_batches(seed=1, count=8, moving=moving)
    heard = []
    with torch.no_grad():
        for batch in batches:
            fused = model.fuse_encoder(batch.states, "ser").states
            states = model.lm.teacher_forced(fused, batch.states.mask, None, None)
            heard.append(model.fuse_lm(states, "ser").states[:, 0])
    labels = torch.tensor([SER.labels.index(item.targets["ser"]) for batch in batches for item in batch.items])
    for _ in range(100):
        loss = nn.functional.cross_entropy(model.heads["ser"](torch.cat(heard)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
