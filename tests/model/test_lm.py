"""Both language models: the cache, causality, padding, what the FFN reads, and transformers alone as reference."""

import pytest
import torch
from factories import (
    LAYERS,
    LLAMA,
    WHISPER,
    bare_whisper,
    stir,
    tiny_model,
    tiny_whisper,
    tone,
)
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from harmonifuse_core.config import LMConfig
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.lm import answer_positions, pad_ids, pooled_positions
from harmonifuse_core.model.prefix_lm import build_prefix_lm
from harmonifuse_core.model.tokenizer import byte_tokenizer
from harmonifuse_core.model.whisper_lm import SpeechToken

KINDS = ["prefix", "whisper", "whisper-token", "gpt2", "llama"]
PROMPT = "Write it."
FRAMES = (37, 21, 30)


def checkpoint(folder, kind: str):
    """A tiny causal LM with its tokenizer, as the hub holds it."""
    tokenizer = byte_tokenizer()
    special = {f"{name}_token_id": tokenizer.end for name in ("pad", "bos", "eos")}
    torch.manual_seed(1)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=len(tokenizer) + 4, n_embd=16, n_layer=LAYERS, n_head=2, n_positions=128, initializer_range=0.25,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **special,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        fields = {**LLAMA, "num_key_value_heads": 1, "dtype": "bfloat16", **special}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 4, **fields))
    stir(model, seed=4)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model.float().eval()


@pytest.fixture
def build(tmp_path):
    def make(kind: str, stirred: bool = True, **changes) -> HarmoniFuse:
        if kind in ("gpt2", "llama"):
            checkpoint(tmp_path, kind)
            changes |= {"model__lm__name": str(tmp_path), "model__lm__architecture": {}}
            return tiny_model("prefix", stirred=stirred, **changes)
        changes |= {"model__lm__speech_token": kind == "whisper-token"}
        return tiny_model(kind.removesuffix("-token"), stirred=stirred, **changes)

    return make


def speech(seed: int = 0, frames: tuple[int, ...] = FRAMES):
    mask = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(len(frames), max(frames), 16, generator=noise) * mask[..., None], mask


def texts(model: HarmoniFuse, *words: str) -> list[list[int]]:
    return [model.tokenizer.encode(word) for word in words]


def close(a, b, **kwargs):
    torch.testing.assert_close(a, b, **{"atol": 2e-5, "rtol": 1e-4, **kwargs})


@pytest.mark.parametrize("ffn_input", ["position", "utterance"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_states_step_by_step_with_a_cache_equal_teacher_forced_ones(build, kind, ffn_input):
    model = build(kind, model__lm__ffn_input=ffn_input)
    (features, mask), prompt = speech(), model.tokenizer.prompt_ids(PROMPT)
    ids = texts(model, "abcdef", "uvwxyz", "123456")
    forced = model.lm.teacher_forced(features, mask, [prompt] * 3, ids)
    output, cache = model.lm.start(features, mask, prompt)
    rows = torch.arange(3)
    for position in range(len(ids[0]) + 1):
        for state, reference in zip(output.states, forced.states, strict=True):
            assert state.shape == (len(rows), 1, 16)
            close(state[:, 0], reference[rows, position])
        for state, reference in zip(output.pooled or (), forced.pooled or (), strict=True):
            close(state, reference[rows])
        if position == 3:  # utterance 1 has finished
            rows = torch.tensor([0, 2])
            cache.select(rows)
        if position < len(ids[0]):
            output = model.lm.step(torch.tensor([ids[row][position] for row in rows]), cache)
    assert (output.pooled is not None) == (ffn_input == "utterance")


@pytest.mark.parametrize("ffn_input", ["position", "utterance"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_future_tokens_never_reach_alpha_or_logits(build, kind, ffn_input):
    model = build(kind, model__lm__ffn_input=ffn_input)
    (features, mask), prompt = speech(), model.tokenizer.prompt_ids(PROMPT)
    results = []
    for ending in ("xyz", "!?."):
        answer = model.lm.teacher_forced(features, mask, [prompt] * 3, texts(model, *(["same" + ending] * 3)))
        fused = model.fuse_lm(answer, "asr")
        results.append((fused.alpha, fused.share, model.lm.logits(fused.states)))
    same = len(texts(model, "same")[0]) + 1  # positions that have read no more than the common start
    for a, b in zip(*results, strict=True):
        assert torch.equal(a[:, :same], b[:, :same])
        assert not torch.equal(a[:, same:], b[:, same:]) or (ffn_input == "utterance" and a is results[0][0])
    alpha = results[0][0]
    if ffn_input == "position":
        assert (alpha[:, 0] - alpha[:, 1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_in_utterance_mode_the_ffn_reads_speech_and_prompt_only(build, kind):
    model = build(kind, model__lm__ffn_input="utterance")
    (features, mask), other = speech(), speech(seed=9)[0]
    prompt, longer = (model.tokenizer.prompt_ids(p) for p in (PROMPT, "Say what you hear."))

    def pooled(features, prompt, *words):
        return torch.stack(model.lm.teacher_forced(features, mask, [prompt] * 3, texts(model, *words)).pooled)

    base = pooled(features, prompt, "a", "b", "c")
    close(pooled(features, prompt, "quite", "another", "text"), base)
    assert (pooled(other, prompt, "a", "b", "c") - base).abs().max() > 1e-2 or kind == "whisper"
    assert (pooled(features, longer, "a", "b", "c") - base).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_other_members_of_the_batch_change_nothing(build, kind):
    model = build(kind, model__lm__ffn_input="utterance")
    features, mask = speech()
    prompts = [model.tokenizer.prompt_ids(p) for p in (PROMPT, "Hm?", "A rather long instruction.")]
    ids = texts(model, "abc", "a much longer text", "")
    for words in (ids, None):
        together = model.lm.teacher_forced(features, mask, prompts, words)
        for row, frames in enumerate(FRAMES):
            clip = slice(row, row + 1)
            own = words and words[clip]
            alone = model.lm.teacher_forced(features[clip, :frames], mask[clip, :frames], prompts[clip], own)
            for a, b in zip(alone.states, together.states, strict=True):
                close(a[0], b[row, : a.shape[1]])
            for a, b in zip(alone.pooled, together.pooled, strict=True):
                close(a[0], b[row])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_another_prompt_gives_another_alpha_once_the_ffn_has_learnt(build, kind):
    features, mask = speech()
    for stirred in (True, False):
        model = build(kind, stirred=stirred)
        alphas = []
        for prompt in (PROMPT, "How does the speaker feel?"):
            output = model.lm.teacher_forced(features, mask, [model.tokenizer.prompt_ids(prompt)] * 3, None)
            assert output.states[0].shape == (3, 1, 16)
            alphas.append(model.fuse_lm(output, "ser").alpha)
        difference = float((alphas[0] - alphas[1]).abs().max())
        assert difference > 1e-4 if stirred else difference == 0


@torch.no_grad()
def test_task_and_prompt_can_be_set_apart(build):
    model = build("prefix")
    features, mask = speech()
    by_prompt = {p: model.lm.start(features, mask, model.tokenizer.prompt_ids(p))[0] for p in (PROMPT, "Feel it.")}
    fused = {(task, p): model.fuse_lm(o, task) for task in ("asr", "ser") for p, o in by_prompt.items()}
    a, b, c = fused["asr", PROMPT], fused["ser", PROMPT], fused["asr", "Feel it."]
    assert torch.equal(a.score, b.score) and not torch.equal(a.bias, b.bias)
    assert torch.equal(a.bias, c.bias) and not torch.equal(a.score, c.score)
    for item in fused.values():
        close(item.alpha, torch.softmax(item.bias + item.score, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_reaches_every_part(build, kind):
    model = build(kind).train()
    (features, mask), prompt = speech(frames=(36, 20, 28)), model.tokenizer.prompt_ids(PROMPT)
    features.requires_grad_(True)
    for task, words in (("asr", texts(model, "ab", "c", "def")), ("ser", None)):
        features.grad = None
        answer = model.fuse_lm(model.lm.teacher_forced(features, mask, [prompt] * 3, words), task)
        output = model.lm.logits(answer.states) if words else model.heads[task](answer.states[:, 0])
        output.logsumexp(-1).sum().backward()
        assert bool(features.grad[mask].any()) and not features.grad[~mask].any()
    assert {
        n for n, p in model.named_parameters() if p.grad is None and not n.startswith(("encoder.", "gate."))
    } == set()


@pytest.mark.parametrize("kind", ["gpt2", "whisper", "prefix"])
def test_embeddings_can_be_kept_as_they_are(build, kind):
    model = build(kind, model__lm__train_embeddings=False)
    frozen = [n for n, p in model.lm.named_parameters() if not p.requires_grad]
    assert len(frozen) == 1 and frozen[0].endswith(("embed_tokens.weight", "wte.weight"))


@torch.no_grad()
def test_gpt2_behind_the_last_layer_is_gpt2(tmp_path):
    reference = checkpoint(tmp_path, "gpt2")
    model = tiny_model("prefix", stirred=False, model__lm__name=str(tmp_path), model__lm__fusion="last")
    (features, mask), prompt = speech(frames=(36,)), model.tokenizer.prompt_ids(PROMPT)
    ids = texts(model, "hello")
    fused = model.fuse_lm(model.lm.teacher_forced(features, mask, [prompt], ids), "asr")
    stacked = model.lm.bridge(features.reshape(1, 9, 64))
    inputs = torch.cat([stacked, reference.transformer.wte(torch.tensor([prompt + ids[0]]))], 1)
    expected = reference(inputs_embeds=inputs).logits[:, 8 + len(prompt) :]
    close(model.lm.logits(fused.states), expected, atol=1e-4)


@torch.no_grad()
def test_whisper_behind_its_last_layers_is_whisper(tmp_path):
    """30 s of input, both fusions on their last state, Whisper's own start as the prompt: the same logits."""
    reference, model = tiny_whisper(tmp_path), bare_whisper(tmp_path)
    waveforms, lengths = pad_waveforms([torch.from_numpy(tone(1.0)).repeat(30).numpy()])
    states = model.encode(waveforms, lengths)
    prompt, ids = model.tokenizer.prompt_ids("Go."), texts(model, "hello")
    fused = model.fuse_encoder(states, "asr").states
    mine = model.lm.logits(model.fuse_lm(model.lm.teacher_forced(fused, states.mask, [prompt], ids), "asr").states)
    mel, _ = model.encoder.log_mel(waveforms, lengths)
    theirs = reference(input_features=mel, decoder_input_ids=torch.tensor([prompt + ids[0]])).logits
    close(mine, theirs[:, len(prompt) - 1 :], atol=1e-3, rtol=1e-3)


def test_a_stored_config_in_half_precision_still_builds_a_float32_model(tmp_path):
    checkpoint(tmp_path, "llama")
    fetched = build_prefix_lm(LMConfig(name=str(tmp_path)), 16, None, None)
    assert {p.dtype for p in fetched.parameters()} == {torch.float32}
    config = LlamaConfig(**LLAMA, vocab_size=300, dtype=torch.bfloat16)
    stored = build_prefix_lm(LMConfig(), 16, byte_tokenizer(), config)
    assert {p.dtype for p in stored.parameters()} == {torch.float32}


def test_too_many_positions_are_refused_with_a_remedy(build):
    for kind, limit, remedy in (("whisper", 256, "shorten the prompt"), ("gpt2", 128, "raise lm.subsample")):
        model = build(kind)
        with pytest.raises(ValueError, match=f"the LM has {limit}: .*{remedy}"):
            model.lm.start(*speech(), model.tokenizer.prompt_ids("a" * 300))


def test_lms_that_cannot_be_built_say_why(tmp_path):
    with pytest.raises(ValueError, match=r"lm\.tokenizer 'nowhere/at-all' is neither"):
        tiny_model("prefix", model__lm__tokenizer="nowhere/at-all")
    byte_tokenizer().save(tmp_path)
    with pytest.raises(ValueError, match="is neither a local folder with a config.json"):
        tiny_model("prefix", model__lm__name=str(tmp_path))
    checkpoint(tmp_path, "gpt2")
    with pytest.raises(ValueError, match="is a gpt2 model; lm.kind whisper needs a Whisper one"):
        tiny_model("whisper", model__lm__name=str(tmp_path), model__lm__tokenizer=str(tmp_path))
    with pytest.raises(ValueError, match="tokenizer has 260 tokens, the LM 100"):
        tiny_model("whisper", model__lm__architecture={**WHISPER, "vocab_size": 100, "pad_token_id": 1})


def test_padding_gathering_and_pooling_by_hand():
    assert pad_ids([[1], [2, 3, 4], []], 9, "cpu").tolist() == [[1, 9, 9], [2, 3, 4], [9, 9, 9]]
    state = torch.arange(8.0).view(2, 4, 1)  # 0 1 2 3 and 4 5 6 7
    (gathered,) = answer_positions((state,), [0, 2], 3)
    assert gathered[..., 0].tolist() == [[0, 1, 2], [6, 7, 7]]
    (pooled,) = pooled_positions((state,), [2, 3])
    assert pooled[:, 0].tolist() == [0.5, 5.0]


def test_frames_are_stacked_into_positions(build):
    model = build("prefix", model__lm__subsample=4)
    features, mask = speech(frames=(9, 4))
    stacked, keep = model.lm._speech(features, mask)
    assert stacked.shape == (2, 3, 16) and keep.tolist() == [[True, True, True], [True, False, False]]
    expected = model.lm.bridge(torch.cat([features[0, 8], torch.zeros(48)]))
    close(stacked[0, 2], expected)


@torch.no_grad()
def test_the_speech_token_is_the_standardised_mean_and_deviation_of_the_speech(build):
    token = build("whisper-token").lm.speech_token
    features, mask = speech(frames=(30, 12))
    features = (4 * features + 3) * mask[..., None]
    token.standardise.mean.fill_(0.5)
    token.standardise.variance.fill_(4.0)
    own = features[1, :12]
    pooled = torch.cat([own.mean(0), (own.var(0, correction=0) + 1e-5).sqrt()])
    close(token(features, mask)[1], token.project((pooled - 0.5) / (4 + 1e-4) ** 0.5), atol=1e-4)


@torch.no_grad()
def test_attention_heads_of_the_speech_token_start_without_effect_and_average_the_frames_they_choose(build):
    plain, token = build("whisper-token").lm.speech_token, SpeechToken(16, torch.randn(9, 16), heads=2)
    features, mask = speech(frames=(30, 12))
    features = features * mask[..., None]
    missing = token.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all("heads" in name or "attention" in name for name in missing)
    token.eval()
    close(token(features, mask), plain(features, mask), atol=1e-5)
    token.attention[2].weight.zero_()
    token.attention[2].bias.zero_()  # all frames alike: both heads give the plain mean
    token.project_heads.weight.copy_(torch.eye(16).repeat(1, 2))
    mean = torch.stack([features[0, :30].mean(0), features[1, :12].mean(0)])
    close(token(features, mask) - plain(features, mask), 2 * mean / (1 + 1e-4) ** 0.5, atol=1e-4)


@torch.no_grad()
def test_the_speech_token_moves_the_answer_of_a_classification_and_no_text(build):
    model, (features, mask) = build("whisper-token"), speech()
    prompts, words = [model.tokenizer.prompt_ids(PROMPT)] * 3, texts(model, "ab", "c", "d")
    answers = []
    for _ in range(2):
        answers.append([model.lm.teacher_forced(features, mask, prompts, w).states[-1] for w in (words, None)])
        model.lm.speech_token.project.bias.add_(1.0)
    assert torch.equal(answers[0][0], answers[1][0])
    assert (answers[0][1] - answers[1][1]).abs().max() > 1e-2
