"""The time that a run's bytes take on a stated link between the server and a client.

All clients of a round send and receive at the same time, each on its own link, and a
round waits for the slowest of them. If clients send only the rows that they touch, the
mean upload counts. Computation and latency are not included.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedpeft_jax.core.settings import setting

_BITS = 8 / 1e6  # a byte in megabits


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """The link between the server and every client."""

    uplink_mbps: float | None = setting(
        None,
        "speed of a client's uplink in Mbit/s, for the seconds of a round; unlimited "
        "if only `downlink_mbps` is given",
        above=0,
        most=1e9,
    )
    downlink_mbps: float | None = setting(
        None,
        "speed of a client's downlink in Mbit/s, for the seconds of a round; unlimited "
        "if only `uplink_mbps` is given",
        above=0,
        most=1e9,
    )


def link_seconds(
    link: LinkSettings, phases: list[dict[str, Any]], slowest_fetch_bytes: int
) -> dict[str, Any] | None:
    """Returns the seconds that a run takes on a link.

    Args:
      link: the speeds.
      phases: the entries of `phases` in the `communication` part of a summary.
      slowest_fetch_bytes: in each round, the most that one client fetches before the
        round (the frozen tables at its first participation, what was merged later at
        others), summed over the rounds.

    Returns:
      The seconds of a round by phase (without what is fetched before the round), and
      those of the run; None if no speed is given.

    Example:
      >>> phases = [{"name": "peft", "rounds": 10, "uplink_bytes_per_client_round": 5e5,
      ...            "downlink_bytes_per_client_round": 1e6}]
      >>> link = LinkSettings(uplink_mbps=1.0, downlink_mbps=8.0)
      >>> link_seconds(link, phases, 3_000_000)
      {'seconds_per_round': {'peft': 5.0}, 'total_s': 53.0}
    """
    if link.uplink_mbps is None and link.downlink_mbps is None:
        return None
    up, down = (
        _seconds_per_byte(link.uplink_mbps),
        _seconds_per_byte(link.downlink_mbps),
    )
    by_name: dict[str, float] = {}
    total = down * slowest_fetch_bytes
    for phase in phases:
        seconds = (
            up * phase["uplink_bytes_per_client_round"]
            + down * phase["downlink_bytes_per_client_round"]
        )
        by_name.setdefault(phase["name"], seconds)
        total += phase["rounds"] * seconds
    return {"seconds_per_round": by_name, "total_s": total}


def link_line(link: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Returns the seconds on a link as one line.

    Args:
      link: the result of `link_seconds`.
      config: the settings of the run by name.

    Example:
      >>> link = {"seconds_per_round": {"warm_up": 9.5, "peft": 5.0}, "total_s": 5400.0}
      >>> link_line(link, {"uplink_mbps": 1.0, "downlink_mbps": None})
      'on links of 1 Mbit/s up: warm-up 9.5 s, peft 5 s a round, 1.5 h for the run'
    """
    speeds = " and ".join(
        f"{config[f'{way}link_mbps']:g} Mbit/s {way}"
        for way in ("up", "down")
        if config[f"{way}link_mbps"] is not None
    )
    rounds = ", ".join(
        f"{name.replace('_', '-')} {seconds:.3g} s"
        for name, seconds in link["seconds_per_round"].items()
    )
    total = link["total_s"]
    size, unit = (total, "s") if total < 600 else (total / 60, "min")
    if total >= 3600:
        size, unit = total / 3600, "h"
    return f"on links of {speeds}: {rounds} a round, {size:.3g} {unit} for the run"


def _seconds_per_byte(mbps: float | None) -> float:
    return 0.0 if mbps is None else _BITS / mbps
