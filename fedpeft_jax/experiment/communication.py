"""The bytes that a run sends, from the traffic of its phases and who took part.

A client downloads the payload of the server's variables and uploads the payload of its
update; private parameters are never sent. The simulation gathers rows, but a real
client sends dense rows, unless a stage encodes them in another way. A client's weight
and loss, two numbers, are not counted. Frozen tables and codes are sent once to each
client that takes part. After merges, a client that takes part again also fetches the
factors that were merged since it took part before, in float32, or the whole table where
that is less. It computes new hash functions or codes from the merge's key.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from fedpeft_jax.core.roles import FROZEN, num_bytes, select
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.experiment.link import LinkSettings, link_seconds
from fedpeft_jax.experiment.traffic import PhaseTraffic


def moving_bytes(
    phases: Sequence[PhaseTraffic],
    participations: Sequence[int],
    answers: Sequence[int],
    touched: Sequence[int] | None = None,
) -> int:
    """Returns the bytes that all clients sent and received in their rounds.

    Args:
      phases: the traffic of each phase.
      participations: how many clients took part in each phase, counted once per round.
      answers: how many of these answered. The others received, and sent nothing.
      touched: how many rows those that answered touched; None if they send dense rows.

    Example:
      >>> moving_bytes([PhaseTraffic("peft", 20, 30, 5.0)], [8], [6])
      360
      >>> moving_bytes([PhaseTraffic("peft", 20, 30, 5.0, row=8)], [8], [6], [100])
      1160
    """
    counts = zip(participations, answers, touched or [0] * len(answers), strict=True)
    return sum(
        phase.uplink * int(sent)
        + phase.row * int(rows)
        + phase.downlink * int(received)
        for phase, (received, sent, rows) in zip(phases, counts, strict=False)
    )


def catch_up_bytes(phase: PhaseTraffic, missed: Sequence[int]) -> int:
    """Returns the bytes that returning clients fetched after merges.

    Args:
      phase: the traffic of the last phase.
      missed: participations by the number of merges since the client's last one, from
        0.

    Example:
      >>> phase = PhaseTraffic("peft", 20, 20, 5.0, factors=20, table=50)
      >>> catch_up_bytes(phase, [7, 2, 1, 1])
      130
    """
    return sum(
        int(times) * min(merges * phase.factors, phase.table)
        for merges, times in enumerate(missed)
    )


def slowest_fetch_bytes(phase: PhaseTraffic, slowest: Sequence[int]) -> int:
    """Returns the most that one client of a round fetches, summed over the rounds.

    Args:
      phase: the traffic of the last phase.
      slowest: rounds by the most that one client of the cohort fetched: at 0 the frozen
        tables, at m + 1 what m merges added.

    Example:
      >>> phase = PhaseTraffic("peft", 20, 20, 5.0, factors=20, table=50, frozen=60)
      >>> slowest_fetch_bytes(phase, [3, 5, 2])
      220
    """
    new, *returning = slowest
    return int(new) * phase.frozen + catch_up_bytes(phase, returning)


def summarize_traffic(
    *,
    phases: Sequence[PhaseTraffic],
    rounds: Sequence[int],
    participations: Sequence[int],
    answers: Sequence[int],
    missed: Sequence[int],
    slowest: Sequence[int],
    merges: int,
    participants: int,
    server: Variables,
    full_bytes: int,
    touched: Sequence[int] | None = None,
    link: LinkSettings | None = None,
) -> dict[str, Any]:
    """Returns the `communication` part of a run's summary.

    Args:
      phases: the traffic of each phase; names may repeat.
      rounds: the number of rounds of each phase.
      participations: how many clients took part in each phase, counted once per round.
      answers: how many of these answered.
      missed: participations by the number of merges since the client's last one.
      slowest: rounds by the most that one client fetched, see `slowest_fetch_bytes`.
      merges: the number of merges.
      participants: the number of clients that ever took part.
      server: variables whose `frozen` collection is sent once to each of these.
      full_bytes: bytes of one client in one round and one direction, for the same run
        with a trained table and no compressed embedding.
      touched: how many rows the clients that answered touched in each phase; None if
        they send dense rows.
      link: the speed of the clients' links.

    Returns:
      Bytes by phase, totals, and their fraction of the totals with a trained table.

    Example:
      >>> phases = [PhaseTraffic("warm_up", 100, 100, 10.0),
      ...           PhaseTraffic("peft", 20, 20, 5.0)]
      >>> traffic = summarize_traffic(phases=phases, rounds=[1, 4],
      ...     participations=[2, 8], answers=[2, 8], missed=[10], slowest=[4], merges=0,
      ...     participants=3, server={}, full_bytes=100)
      >>> traffic["total_bytes"], traffic["fraction_of_full"]
      (720, 0.36)
    """
    once = num_bytes(select(server, (FROZEN,))) * participants
    catch_up = catch_up_bytes(phases[-1], missed)
    total = moving_bytes(phases, participations, answers, touched) + once + catch_up
    full = full_bytes * int(sum(participations) + sum(answers))
    fetched = slowest_fetch_bytes(phases[-1], slowest)
    phases = _with_mean_uplink(phases, answers, touched or [0] * len(answers))
    entries = _by_phase(phases, rounds)
    return {
        "uplink_bytes_per_client_round": _by_name(phases, "uplink"),
        "downlink_bytes_per_client_round": _by_name(phases, "downlink"),
        "touched_rows_bytes_per_client_round": _by_name(phases, "touched"),
        "phases": entries,
        "one_time_bytes": once,
        "merges": merges,
        "catch_up_bytes": catch_up,
        "slowest_fetch_bytes": fetched,
        "link": link and link_seconds(link, entries, fetched),
        "total_bytes": total,
        "full_total_bytes": full,
        "fraction_of_full": total / full,
        "reveals": sorted({text for phase in phases for text in phase.reveals}),
    }


def _by_phase(
    phases: Sequence[PhaseTraffic], rounds: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns one entry for all phases in a row that send the same."""
    pairs = zip(phases, map(int, rounds), strict=True)
    return [
        {
            "name": phase.name,
            "rounds": sum(number for _, number in group),
            "uplink_bytes_per_client_round": phase.uplink,
            "downlink_bytes_per_client_round": phase.downlink,
        }
        for phase, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


def _with_mean_uplink(
    phases: Sequence[PhaseTraffic], answers: Sequence[int], rows: Sequence[int]
) -> list[PhaseTraffic]:
    """Returns phases whose `uplink` includes touched rows, as a mean over the answers.

    Phases of equal traffic have the same mean.
    """

    def mean(phase: PhaseTraffic) -> PhaseTraffic:
        same = [place for place, other in enumerate(phases) if other == phase]
        times = sum(answers[place] for place in same)
        touched = sum(rows[place] for place in same)
        size = phase.uplink + phase.row * touched / times if times else phase.touched
        return phase._replace(uplink=round(size))

    return [mean(phase) if phase.row else phase for phase in phases]


def _by_name(phases: Sequence[PhaseTraffic], kind: str) -> dict[str, int]:
    """Returns one figure per name of a phase; if a name repeats, that of the first.

    The list of phases in the summary holds all of them.
    """
    figures: dict[str, int] = {}
    for phase in phases:
        figures.setdefault(phase.name, round(getattr(phase, kind)))
    return figures
