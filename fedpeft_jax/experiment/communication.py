"""The bytes that a run sends, measured on the payloads of its pipelines.

A client downloads the payload of the server's variables and uploads the payload of its
update; private parameters are never sent. The simulation gathers rows, but a real
client sends dense rows, unless a stage encodes them in another way. A client's weight
and loss, two numbers, are not counted. Frozen tables and codes are sent once to each
client that takes part. After merges, a client that takes part again also fetches the
factors that were merged since it took part before, in float32, or the whole table where
that is less. It computes new hash functions or codes from the merge's key. The size of
the rows that a client touches, with their ids, is reported as a separate figure.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.backbones import merged_factors
from fedpeft_jax.core.roles import FROZEN, SENT, num_bytes, select
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.federated import Algorithm
from fedpeft_jax.federated.pipelines.checks import check_download, check_upload

_ID_BYTES = 4


class PhaseTraffic(NamedTuple):
    """The bytes of one client in one round of a phase.

    Attributes:
      name: name of the phase.
      uplink: bytes of the upload's payload.
      downlink: bytes of the download's payload.
      touched: bytes of an upload that holds only the touched rows with their ids, mean
        over clients.
      factors: bytes of the factors that one merge adds to the frozen table.
      frozen: bytes of all frozen tables and codes.
    """

    name: str
    uplink: int
    downlink: int
    touched: float
    factors: int = 0
    frozen: int = 0


def measure_traffic(
    name: str, algorithm: Algorithm, server: Variables, counts: np.ndarray
) -> PhaseTraffic:
    """Measures the payloads of a phase by their shapes, without computing them.

    Args:
      name: name of the phase.
      algorithm: everything that decides what happens in a round.
      server: the server's variables (arrays or their shapes) by collection.
      counts: int[U], each client's number of positives.

    Returns:
      The bytes of one client in one round.

    Example:
      >>> import jax.numpy as jnp
      >>> from fedpeft_jax.experiment.build import make_algorithm, make_model
      >>> from fedpeft_jax.experiment.config import configure
      >>> config = configure(upload="bfloat16")
      >>> algorithm = make_algorithm(
      ...     config.training, config.server, make_model(config.model, num_items=9)
      ... )
      >>> lora = {"params": {"B": jnp.zeros((32, 4))}, "rows": {"A": jnp.zeros((9, 4))}}
      >>> measure_traffic("peft", algorithm, lora, np.array([1, 8]))
      PhaseTraffic(name='peft', uplink=328, downlink=656, touched=322.0, ...)
    """
    sampler = algorithm.training.sampler
    num_items, sent = sampler.num_items, select(server, SENT)
    upload, _ = check_upload(algorithm.upload, sent, num_items)
    download = check_download(algorithm.download, sent)
    rows_bytes = num_bytes(upload.rows)
    row = rows_bytes / num_items + _ID_BYTES if rows_bytes else 0
    negatives = np.minimum(counts * sampler.num_negatives, num_items - counts)
    touched = num_bytes(upload.shared) + float(np.mean(counts + negatives)) * row
    uplink = num_bytes((upload.shared, upload.rows))
    return PhaseTraffic(
        name,
        uplink,
        num_bytes(download),
        touched,
        factors=num_bytes(merged_factors(server)),
        frozen=num_bytes(select(server, (FROZEN,))),
    )


def moving_bytes(
    phases: Sequence[PhaseTraffic],
    participations: Sequence[int],
    answers: Sequence[int],
) -> int:
    """Returns the bytes that all clients sent and received in their rounds.

    Args:
      phases: the traffic of each phase.
      participations: how many clients took part in each phase, counted once per round.
      answers: how many of these answered. The others received, and sent nothing.

    Example:
      >>> moving_bytes([PhaseTraffic("peft", 20, 30, 5.0)], [8], [6])
      360
    """
    return sum(
        phase.uplink * int(sent) + phase.downlink * int(received)
        for phase, received, sent in zip(phases, participations, answers, strict=False)
    )


def catch_up_bytes(phase: PhaseTraffic, missed: Sequence[int]) -> int:
    """Returns the bytes that returning clients fetched after merges.

    Args:
      phase: the traffic of the last phase.
      missed: participations by the number of merges since the client's last one, from
        0.

    Example:
      >>> phase = PhaseTraffic("peft", 20, 20, 5.0, factors=20, frozen=50)
      >>> catch_up_bytes(phase, [7, 2, 1, 1])
      130
    """
    return sum(
        int(times) * min(merges * phase.factors, phase.frozen)
        for merges, times in enumerate(missed)
    )


def summarize_traffic(
    *,
    phases: Sequence[PhaseTraffic],
    rounds: Sequence[int],
    participations: Sequence[int],
    answers: Sequence[int],
    missed: Sequence[int],
    merges: int,
    participants: int,
    server: Variables,
    full_bytes: int,
) -> dict[str, Any]:
    """Returns the `communication` part of a run's summary.

    Args:
      phases: the traffic of each phase; names may repeat.
      rounds: the number of rounds of each phase.
      participations: how many clients took part in each phase, counted once per round.
      answers: how many of these answered.
      missed: participations by the number of merges since the client's last one.
      merges: the number of merges.
      participants: the number of clients that ever took part.
      server: variables whose `frozen` collection is sent once to each of these.
      full_bytes: bytes of one client in one round and one direction, for the same run
        with a trained table and no compressed embedding.

    Returns:
      Bytes by phase, totals, and their fraction of the totals with a trained table.

    Example:
      >>> phases = [PhaseTraffic("warm_up", 100, 100, 10.0),
      ...           PhaseTraffic("peft", 20, 20, 5.0)]
      >>> traffic = summarize_traffic(phases=phases, rounds=[1, 4],
      ...     participations=[2, 8], answers=[2, 8], missed=[10], merges=0,
      ...     participants=3, server={}, full_bytes=100)
      >>> traffic["total_bytes"], traffic["fraction_of_full"]
      (720, 0.36)
    """
    once = num_bytes(select(server, (FROZEN,))) * participants
    catch_up = catch_up_bytes(phases[-1], missed)
    total = moving_bytes(phases, participations, answers) + once + catch_up
    full = full_bytes * int(sum(participations) + sum(answers))
    return {
        "uplink_bytes_per_client_round": _by_name(phases, "uplink"),
        "downlink_bytes_per_client_round": _by_name(phases, "downlink"),
        "touched_rows_bytes_per_client_round": _by_name(phases, "touched"),
        "phases": _by_phase(phases, rounds),
        "one_time_bytes": once,
        "merges": merges,
        "catch_up_bytes": catch_up,
        "total_bytes": total,
        "full_total_bytes": full,
        "fraction_of_full": total / full,
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


def _by_name(phases: Sequence[PhaseTraffic], kind: str) -> dict[str, int]:
    """Returns one figure per name of a phase; if a name repeats, that of the first.

    The list of phases in the summary holds all of them.
    """
    figures: dict[str, int] = {}
    for phase in phases:
        figures.setdefault(phase.name, round(getattr(phase, kind)))
    return figures
