"""Configs: YAML and back, overrides, and refusals that name field, value and remedy."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from factories import tiny_config

from harmonifuse_core.config import (
    AugmentConfig,
    Config,
    CorpusConfig,
    DataConfig,
    EncoderConfig,
    GateConfig,
    LMConfig,
    ModelConfig,
    TrainingConfig,
    from_dict,
    load_yaml,
    save_yaml,
    to_dict,
)
from harmonifuse_core.tasks import ASR, SER, TaskConfig

DEFAULT = Path(__file__).resolve().parents[1] / "harmonifuse_core" / "configs" / "default.yaml"


def test_a_config_survives_yaml(tmp_path):
    corpus = CorpusConfig("m.jsonl", "ser", label_map={"anger": "angry"}, speakers=("a", "b"), weight=0.3)
    config = tiny_config("whisper", data__train=(corpus,), training__learning_rate=1e-5, data__augment={"speed": [0.9]})
    for value in (config, Config()):
        save_yaml(value, tmp_path / "config.yaml")
        assert load_yaml(tmp_path / "config.yaml") == value
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == to_dict(Config())


def test_plain_values_hold_no_tuple_and_no_dataclass():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(to_dict(tiny_config(data__train=(CorpusConfig("m", "asr"),))))


def test_the_bundled_config_is_readable():
    config = load_yaml(DEFAULT)
    assert [task.name for task in config.model.tasks] == ["asr", "ser"] and config.model.lm.kind == "whisper"
    assert len(config.model.task("ser").labels) == 8


def test_an_empty_file_is_the_default_config(tmp_path):
    (tmp_path / "c.yaml").write_text("")
    assert load_yaml(tmp_path / "c.yaml") == Config()


def test_defaults_are_the_papers_shape_with_the_open_points_as_documented():
    model = Config().model
    assert model.encoder.name == "microsoft/wavlm-large" and model.encoder.finetune == "frozen"
    assert (model.gate.mode, model.gate.include_input_state, model.gate.normalise) == ("per_task", True, True)
    assert not model.gate.input_score and model.lm.kind == "prefix"
    assert (model.lm.fusion, model.lm.ffn_input) == ("adaptive", "position")


def test_overrides_replace_single_fields(tmp_path):
    save_yaml(tiny_config(), tmp_path / "c.yaml")
    assignments = ["training.steps=7", "model.gate.mode=shared", "training.gate_rate=1e-3", "training.batch_size.asr=2"]
    config = load_yaml(tmp_path / "c.yaml", [*assignments, "model.tasks=[asr]", "title=a=b", "data.teacher="])
    assert (config.training.steps, config.model.gate.mode, config.training.gate_rate) == (7, "shared", 1e-3)
    assert config.training.batch_size == {"default": 4, "asr": 2}
    assert config.model.tasks == (ASR,) and config.title == "a=b" and config.data.teacher == ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", r"override 'training\.steps': write key=value"),
        ("training.stepz=3", r"training: unknown field 'stepz'; known: steps, batch_size"),
        ("model.gate.mode.deeper=3", "'mode' has no fields"),
        ("training.steps=many", r"training\.steps is 'many'; expected int"),
        ("training.steps=1.5", r"training\.steps is 1\.5; expected int"),
        ("training.steps=true", r"training\.steps is True; expected int"),
        ("training.steps=null", r"training\.steps is None; expected int"),
        ("training.gate_rate=fast", r"training\.gate_rate is 'fast'; expected a number"),
        ("training.gate_rate=[1]", r"training\.gate_rate is \[1\]; expected a number"),
        ("training.gate_rate=true", r"training\.gate_rate is True; expected a number"),
        ("model.gate.normalise=1", r"model\.gate\.normalise is 1; expected bool"),
        ("model.gate=shared", r"model\.gate is 'shared'; expected fields of GateConfig"),
        ("model.tasks=asr", r"model\.tasks is 'asr'; expected a list"),
        ("model.tasks=[xyz]", r"model\.tasks\[0\] is 'xyz'; built in are asr, ser"),
        ("data.augment.speed=[a]", r"data\.augment\.speed\[0\] is 'a'; expected a number"),
        ("data.augment.noise_snr_db=[5]", r"data\.augment\.noise_snr_db is \[5\]; expected 2 values"),
        ("data.train=[{task: asr}]", r"data\.train\[0\]: field 'manifest' is missing; CorpusConfig cannot do without"),
        ("title=[", r"override 'title=\[' is not YAML"),
        ("model.encoder.overrides=3", r"model\.encoder\.overrides is 3; expected dict"),
    ],
)
def test_wrong_fields_and_types_are_refused_by_name(tmp_path, override, message):
    save_yaml(tiny_config(), tmp_path / "c.yaml")
    with pytest.raises(ValueError, match=message):
        load_yaml(tmp_path / "c.yaml", [override])


def test_files_that_hold_no_config_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config '.*absent\.yaml' does not exist"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "c.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="holds list, not fields"):
        load_yaml(tmp_path / "c.yaml", ["title=x"])
    (tmp_path / "c.yaml").write_text("model: {gate: [")
    with pytest.raises(ValueError, match="is not YAML"):
        load_yaml(tmp_path / "c.yaml")


def config_with(**fields) -> Config:
    corpora = fields.pop("train", ())
    data = DataConfig(train=corpora, teacher=fields.pop("teacher", ""), **fields.pop("data", {}))
    return Config(data=data, **fields)


SLOW = AugmentConfig(speed=(0.9, 1.0))
REFUSALS = [
    (lambda: EncoderConfig(weights="half"), r"encoder\.weights is 'half'; choose one of pretrained, random"),
    (lambda: EncoderConfig(finetune="top-0"), "encoder.finetune is 'top-0'; choose frozen, all, top-K with K >= 1"),
    (lambda: EncoderConfig(finetune="some"), "encoder.finetune is 'some'"),
    (lambda: EncoderConfig(overrides={"a": 1}), "they need encoder.weights: random"),
    (lambda: EncoderConfig(tail_seconds=9), "encoder.tail_seconds is 9; use 0 to 5 seconds"),
    (lambda: GateConfig(mode="best"), "gate.mode is 'best'; choose one of per_task, shared, uniform, fixed:K"),
    (lambda: GateConfig(mode="fixed:x"), "write fixed:K with the layer's number"),
    (lambda: GateConfig(mode="uniform", input_score=True), "gate.input_score needs a learned gate"),
    (lambda: GateConfig(mode="fixed:1", input_score=True), "gate.input_score needs a learned gate"),
    (lambda: LMConfig(kind="rnn"), "lm.kind is 'rnn'; choose one of prefix, whisper"),
    (lambda: LMConfig(ffn_input="all"), "lm.ffn_input is 'all'; choose one of position, utterance"),
    (lambda: LMConfig(fusion="mean"), "lm.fusion is 'mean'; choose one of adaptive, bias, input, uniform, last"),
    (lambda: LMConfig(fusion="fixed:"), "write fixed:K"),
    (lambda: LMConfig(kind="whisper"), "a whisper LM needs a Whisper checkpoint, e.g. openai/whisper-tiny.en"),
    (lambda: LMConfig(speech_token=True), "lm.speech_token belongs to lm.kind: whisper"),
    (lambda: LMConfig(speech_token_layers=8), "lm.speech_token_layers is 8: give 1 or more with speech_token: true"),
    (lambda: LMConfig(subsample=0), "lm.subsample and lm.ffn_width must be at least 1"),
    (lambda: ModelConfig(tasks=()), "give at least one, each name once"),
    (lambda: ModelConfig(tasks=(ASR, ASR)), "give at least one, each name once"),
    (lambda: ModelConfig(gate=GateConfig(last_logit_tasks=("vad",))), "names 'vad', which is none of the tasks"),
    (lambda: ModelConfig(lm=LMConfig(last_logit_tasks=("vad",))), "names 'vad', which is none of the tasks"),
    (lambda: ModelConfig().task("vad"), "task 'vad' is unknown; this model has asr, ser"),
    (lambda: CorpusConfig("m", "asr", ids="["), r"ids '\[' is no regular expression"),
    (lambda: CorpusConfig("m", "asr", weight=0), "weight 0 must be positive; leave the corpus out instead"),
    (lambda: CorpusConfig("m", "asr", text_style="loud"), "corpus.text_style is 'loud'; choose one of asis, sentence"),
    (lambda: AugmentConfig(noise_probability=2), "augment.noise_probability is 2; use 0 to 1"),
    (lambda: AugmentConfig(babble_probability=-1), "augment.babble_probability is -1; use 0 to 1"),
    (lambda: AugmentConfig(babble_snr_db=(9, 5)), r"augment.babble_snr_db is \[9, 5\]; give the lower value first"),
    (lambda: CorpusConfig("m", "asr", augment={"time_masks": 1}), "augment names 'time_masks'; of one corpus can be"),
    (lambda: CorpusConfig("m", "asr", augment={"gain_db": "x"}), "m: augment.gain_db is 'x'; expected a number"),
    (
        lambda: DataConfig(train=(CorpusConfig("m", "asr", augment={"babble_probability": 1}),), state_cache="c"),
        "data.augment.babble_probability changes the sound",
    ),
    (lambda: AugmentConfig(speed=(0.0,)), r"augment.speed is \[0.0\]; use factors from 0.5 to 2"),
    (lambda: AugmentConfig(noise_snr_db=(30, 5)), r"augment.noise_snr_db is \[30, 5\]; give the lower value first"),
    (lambda: DataConfig(min_seconds=3, max_seconds=2), "data.min_seconds 3 must be below data.max_seconds 2"),
    (lambda: DataConfig(dev=(CorpusConfig("m", "asr", teacher=True),)), "write data.teacher with `prepare teacher`"),
    (lambda: TrainingConfig(steps=0), "training.steps, log_every and checkpoint_every must be at least 1"),
    (lambda: TrainingConfig(average_decay=1), "training.average_decay is 1; use 0"),
    (lambda: TrainingConfig(keep_checkpoints=0), "--resume needs at least 1"),
    (lambda: TrainingConfig(batch_size={"asr": 0}), "training.batch_size.asr is 0; give a whole number of at least 1"),
    (lambda: TrainingConfig(batch_size={"asr": "x"}), "training.batch_size.asr is 'x'"),
    (lambda: config_with(train=(CorpusConfig("m.jsonl", "vad"),)), "corpus m.jsonl teaches task 'vad', but"),
    (
        lambda: config_with(train=(CorpusConfig("m", "ser", teacher=True),), teacher="t"),
        "a teacher needs a transcription task, not ser",
    ),
    (
        lambda: config_with(training=TrainingConfig(batch_size={"asd": 3})),
        "training.batch_size names 'asd'; known are asr, ser and default",
    ),
    (
        lambda: config_with(train=(CorpusConfig("m", "asr"),), data={"max_seconds": 27, "augment": SLOW}),
        "training clips last up to 30.0 s .* more than model.max_seconds 28.0: lower data.max_seconds",
    ),
    (lambda: TaskConfig("my task", prompts=("a",), labels=("a", "b")), "task name 'my task': use letters"),
    (lambda: TaskConfig("t", kind="guess", prompts=("a",)), "kind 'guess' is unknown; use transcription, class"),
    (lambda: TaskConfig("t", labels=("a", "b")), "give at least one non-empty prompt"),
    (lambda: TaskConfig("t", prompts=("a", " "), labels=("a", "b")), "give at least one non-empty prompt"),
    (lambda: TaskConfig("t", prompts=("a",), labels=("a",)), "needs at least two distinct labels"),
    (lambda: TaskConfig("t", prompts=("a",), labels=("a", "b", "a")), "a label stands twice"),
    (lambda: TaskConfig("t", prompts=("a",), labels=("a", "b"), label_smoothing=1), "is outside"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[message[:40] for _, message in REFUSALS])
def test_every_check_names_the_value_and_a_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tasks_are_found_by_name_and_keep_their_order():
    model = ModelConfig(tasks=(SER, ASR))
    assert model.task("asr") is ASR and [model.task_index(n) for n in ("ser", "asr")] == [0, 1]
    assert ASR.is_transcription and not SER.is_transcription and SER.default_prompt == SER.prompts[0]


def test_a_third_task_needs_no_code(tmp_path):
    text = "model:\n  tasks: [asr, {name: gender, field: gender, labels: [f, m], prompts: ['Who speaks?']}]\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_yaml(tmp_path / "c.yaml")
    assert config.model.tasks == (
        ASR,
        TaskConfig("gender", prompts=("Who speaks?",), labels=("f", "m"), field="gender"),
    )


def test_batch_sizes_fall_back_to_the_default():
    config = TrainingConfig(batch_size={"asr": 3, "default": 5})
    assert (config.batch_size_of("asr"), config.batch_size_of("ser")) == (3, 5)
    assert TrainingConfig(batch_size={"asr": 3}).batch_size_of("ser") == 16


def test_configs_are_values():
    assert Config() == Config() and replace(Config(), title="x") != Config()
    with pytest.raises(AttributeError):
        Config().title = "x"
    assert from_dict(Config, to_dict(Config())) == Config()


def test_a_trained_encoder_needs_a_task_that_trains_it():
    tasks = (replace(ASR, trains_encoder=False), replace(SER, trains_encoder=False))
    with pytest.raises(ValueError, match="finetune is 'all', but no task has trains_encoder"):
        tiny_config(model__encoder__finetune="all", model__tasks=tasks)
    frozen = tiny_config(model__encoder__finetune="frozen", model__tasks=tasks)
    assert not any(task.trains_encoder for task in frozen.model.tasks)
