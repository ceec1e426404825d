"""Tests of protocol.py and of the presets that are named after it."""

import shlex

import pytest

from fedpeft_jax.experiment.config import FIELDS, configure
from fedpeft_jax.experiment.protocol import describe_protocol, unsound_choices
from tests.helpers import ROOT

PRESETS = ROOT / "experiments" / "presets"


def preset(name):
    lines = (PRESETS / f"{name}.flags").read_text().splitlines()
    words = [w for line in lines if line.startswith("--") for w in shlex.split(line)]
    return dict(word.removeprefix("--").split("=", 1) for word in words)


def config(name):
    given = {
        key: int(value) if FIELDS[key].type is int else value
        for key, value in preset(name).items()
    }
    return configure(**given)


def test_the_sound_preset_is_the_default_and_complete():
    assert config("protocol_sound") == configure()
    assert set(preset("protocol_paper")) <= set(preset("protocol_sound"))
    assert unsound_choices(configure()) == []


def test_the_published_protocol_says_that_it_is_unsound():
    first = (PRESETS / "protocol_paper.flags").read_text().splitlines()[0]
    assert first.startswith("# UNSOUND")
    said = " ".join(unsound_choices(config("protocol_paper")))
    for name in ("split", "train_negatives", "valid_items", "catalogue"):
        assert f"{name}=" in said
    assert "negative_slots=3706" in said


@pytest.mark.parametrize(
    "changed",
    [{"split": "file"}, {"train_negatives": "unseen"}, {"valid_items": 0},
     {"catalogue": "slots"}, {"negative_slots": 9}],
)  # fmt: skip
def test_every_unsound_choice_is_named(changed):
    [name] = changed
    [said] = unsound_choices(configure(**changed))
    assert said.startswith(f"{name}={changed[name]}: ")
    protocol = describe_protocol(configure(**changed), None)
    assert protocol == {"unsound": [said], "log_odds_over_popularity": None}
