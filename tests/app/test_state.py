"""Addresses: what is well-formed passes, what is not is named and dropped."""

from urllib.parse import parse_qs, urlsplit

import pytest

from app import state


def test_a_whole_link_passes():
    link = state.parse({"run": "default", "utt": "spk1/utt 2", "task": "ser", "layer": "12"})
    assert (link.run, link.utterance, link.task, link.layer, link.problems) == ("default", "spk1/utt 2", "ser", 12, ())


def test_nothing_is_nothing():
    assert state.parse({}) == state.Link() == state.parse({"run": "", "utt": "", "layer": "", "other": "x"})


@pytest.mark.parametrize(
    "value", ["../etc", "a/b", "a\\b", ".hidden", "..", " x", "x\x00y", "x\n", "a" * 201, "\u202eevil"]
)
def test_runs_that_are_no_plain_names_are_dropped(value):
    link = state.parse({"run": value})
    assert link.run is None
    assert len(link.problems) == 1 and "not a plain folder name" in link.problems[0]


@pytest.mark.parametrize("value", ["-1", "1e3", "1.5", "١٢", "1000", "99999999999999999999", "abc", "0x1"])
def test_layers_that_are_no_small_numbers_are_dropped(value):
    assert state.parse({"layer": value}).layer is None


@pytest.mark.parametrize("value", ["a b", "asr'--", "<img>", "1asr", "a" * 65, "ä"])
def test_tasks_that_are_no_names_are_dropped(value):
    assert state.parse({"task": value}).task is None


def test_hostile_utterances_pass_as_text_or_not_at_all(hostile):
    assert state.parse({"utt": hostile}).utterance == hostile  # compared with ids, shown as plain text
    assert state.parse({"utt": "a\x00b"}).utterance is None
    assert state.parse({"utt": "a" * 501}).utterance is None


def test_messages_show_bad_values_short_and_printable():
    message = state.parse({"run": "../" + "\x1b" + "x" * 500}).problems[0]
    assert "\x1b" not in message and len(message) < 120


@pytest.mark.parametrize("identifier", ["a b", "ü&utt=2#x", "100%", "<img src=x>", "a+b"])
def test_an_address_leads_back_to_the_same_values(identifier):
    query = parse_qs(urlsplit(state.address("run", run="default", utt=identifier, layer=None)).query)
    assert query == {"run": ["default"], "utt": [identifier]}
    assert state.parse({k: v[0] for k, v in query.items()}).utterance == identifier
