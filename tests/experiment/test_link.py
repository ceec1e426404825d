"""Seconds on a link, against sums by hand."""

import json

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import configure, run
from fedpeft_jax.experiment.link import LinkSettings, link_seconds
from tests.small_runs import FEATURES, NUM_ITEMS, SETTINGS, small_runs

PHASES = [
    {
        "name": name,
        "rounds": rounds,
        "uplink_bytes_per_client_round": up,
        "downlink_bytes_per_client_round": down,
    }
    for name, rounds, up, down in (
        ("warm_up", 2, 4e6, 8e6),
        ("peft", 10, 1e6, 2e6),
        ("peft", 1, 3e6, 2e6),
    )
]


def test_no_speed_is_no_figure():
    assert link_seconds(LinkSettings(), PHASES, 5) is None


def test_by_hand():
    found = link_seconds(LinkSettings(uplink_mbps=8, downlink_mbps=16), PHASES, 10**6)
    assert found["seconds_per_round"] == {"warm_up": 8.0, "peft": 2.0}
    assert found["total_s"] == 2 * 8.0 + 10 * 2.0 + 4.0 + 0.5


def test_one_direction_may_be_unlimited():
    found = link_seconds(LinkSettings(uplink_mbps=8), PHASES, 10**6)
    assert found["total_s"] == 2 * 4.0 + 10 * 1.0 + 3.0
    found = link_seconds(LinkSettings(downlink_mbps=8), PHASES, 10**6)
    assert found["total_s"] == 2 * 8.0 + 10 * 2.0 + 2.0 + 1.0


@pytest.mark.parametrize("speed", [0, -1.0, float("inf")])
def test_impossible_speeds(speed):
    with pytest.raises(InputError, match="uplink_mbps"):
        configure(uplink_mbps=speed)


def test_a_finished_run_can_be_asked_again(tmp_path):
    """The rounds are not run again, and the speeds of the last question are kept."""
    with small_runs():
        settings = {**SETTINGS, "full": "trained", "embedding": "none"}
        settings |= {"warm_up_rounds": None, "out": str(tmp_path / "run")}
        first = run(configure(**settings)).summary
        again = run(configure(**settings, downlink_mbps=1.0)).summary
    assert first["communication"]["link"] is None
    assert again["metrics"] == first["metrics"]
    link = again["communication"]["link"]
    megabits = 8 * 4 * NUM_ITEMS * FEATURES / 1e6
    assert link["seconds_per_round"] == {"peft": pytest.approx(megabits)}
    assert link["total_s"] == pytest.approx(first["rounds"]["run"] * megabits)
    held = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert held["communication"]["link"] == link
