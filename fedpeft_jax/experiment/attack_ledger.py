"""Adds up what every attack says of every victim, over observed rounds."""

from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.data import Split
from fedpeft_jax.experiment.attack_results import Case, Figures, evaluate_scores
from fedpeft_jax.experiment.attack_tools import Tools, read_server, score_items
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.privacy.attacks import standardised

_VICTIMS = 0x76  # apart from the seeds of cohorts


Found = dict[Case, list[Figures]]
"""The figures of every victim, or union of victims, by case."""


class Victims(NamedTuple):
    """The clients that are observed.

    Attributes:
      client_ids: int64[O], the victims, then others that fill the last secure sum.
      num_victims: V, the number of victims.
      positives: bool[O, I], the training items of each.
      popularity: int64[I], how many of all clients have each item.
    """

    client_ids: np.ndarray
    num_victims: int
    positives: np.ndarray
    popularity: np.ndarray


def choose_victims(split: Split, count: int, observed: int, seed: int) -> Victims:
    """Draws the clients that are observed, among those with training items.

    Args:
      split: the clients' training items.
      count: the number of victims.
      observed: O, the number of clients that are observed, at least `count`.
      seed: seed of the run.
    """
    some = np.flatnonzero(np.asarray(split.counts))
    generator = np.random.default_rng([seed, _VICTIMS])
    client_ids = generator.permutation(some)[:observed]
    positives = np.zeros((len(client_ids), split.num_items), bool)
    for place, client in enumerate(client_ids):
        positives[place, split.train.row(client)] = True
    popularity = np.bincount(split.train.values, minlength=split.num_items)
    return Victims(client_ids, count, positives, popularity)


class Ledger(NamedTuple):
    """What the attacks found so far.

    Attributes:
      victims: the clients that are observed.
      spread: the rounds that are observed, by their number T.
      totals: float32[V, I] by attack, T, and whether touched rows are known: sums of
        the standardised scores.
      seen: bool[V, I] by T, the items that the victims trained on in observed rounds.
      sums: the figures of secure sums.
    """

    victims: Victims
    spread: dict[int, list[int]]
    totals: dict[tuple[str, int, bool], np.ndarray]
    seen: dict[int, np.ndarray]
    sums: Found


def open_ledger(victims: Victims, spread: dict[int, list[int]]) -> Ledger:
    """Returns a ledger without observations.

    Args:
      victims: the clients that are observed.
      spread: the rounds that are observed, by their number T.
    """
    shape = (victims.num_victims, victims.positives.shape[1])
    seen = {t: np.zeros(shape, bool) for t in spread}
    return Ledger(victims, spread, {}, seen, {})


def add_updates(
    ledger: Ledger, tools: Tools, state: RunState, attacks: tuple[str, ...]
) -> Ledger:
    """Observes every victim alone, and adds the scores of its items.

    Args:
      ledger: what the attacks found in earlier rounds.
      tools: what the attacks need.
      state: the state before the observed round.
      attacks: the attacks that run.

    Returns:
      The ledger with this round.
    """
    now = [t for t, rounds in ledger.spread.items() if state.round in rounds]
    if not now:
        return ledger
    victims, server = ledger.victims, read_server(tools, state)
    shape = (victims.num_victims, victims.positives.shape[1])
    seen = {t: x.copy() if t in now else x for t, x in ledger.seen.items()}
    totals = {key: x.copy() for key, x in ledger.totals.items()}
    for place, client in enumerate(victims.client_ids[: victims.num_victims].tolist()):
        update = tools.observe[1](state, [client])
        touched = tools.touched(state, client)
        for t in now:
            seen[t][place] |= touched
        for knows, known in ((True, touched), (False, None)):
            scores = score_items(tools, server, update, known, attacks)
            for name, values in scores.items():
                add = standardised(values, known)
                for t in now:
                    zeros = np.zeros(shape, np.float32)
                    totals.setdefault((name, t, knows), zeros)[place] += add
    return ledger._replace(totals=totals, seen=seen)


def add_sums(
    ledger: Ledger,
    tools: Tools,
    state: RunState,
    attacks: tuple[str, ...],
    sizes: tuple[int, ...],
) -> Ledger:
    """Observes secure sums, and scores the items of members and of unions.

    Args:
      ledger: what the attacks found in earlier rounds.
      tools: what the attacks need.
      state: the state before the observed round.
      attacks: the attacks that run.
      sizes: numbers m of clients whose updates are summed.

    Returns:
      The ledger with these sums.
    """
    victims, server = ledger.victims, read_server(tools, state)
    found = [ledger.sums]
    for m in sizes:
        for first in range(0, victims.num_victims, m):
            group = np.arange(first, first + m)
            members = victims.client_ids[group].tolist()
            update = tools.observe[m](state, members)
            touched = np.any([tools.touched(state, c) for c in members], axis=0)
            for knows, known in ((True, touched), (False, None)):
                scores = score_items(tools, server, update, known, attacks)
                member = Case("", m, 1, knows, "member")
                found += [
                    _figures(victims, member, scores, [int(place)], known)
                    for place in group[group < victims.num_victims]
                ]
                union = member._replace(target="union")
                found.append(_figures(victims, union, scores, group.tolist(), known))
    return ledger._replace(sums=_join(found))


def figures_of(ledger: Ledger) -> Found:
    """Returns the figures of single updates, of several rounds, and of sums.

    Args:
      ledger: what the attacks found.
    """
    found = []
    for t in ledger.spread:
        for place in range(ledger.victims.num_victims):
            for knows in (True, False):
                known = ledger.seen[t][place] if knows else None
                scores = {
                    name: total[place]
                    for (name, rounds, who), total in ledger.totals.items()
                    if (rounds, who) == (t, knows)
                }
                case = Case("", 1, t, knows, "member")
                found.append(_figures(ledger.victims, case, scores, [place], known))
    return _join([*found, ledger.sums])


def _figures(
    victims: Victims,
    case: Case,
    scores: dict[str, np.ndarray],
    places: list[int],
    known: np.ndarray | None,
) -> Found:
    """Returns the figures of every attack, and of the popularity of the items."""
    own = victims.positives[places]
    wanted: Any = own.any(axis=0)
    client = -1 if case.target == "union" else int(victims.client_ids[places[0]])
    # Popularity among the others, or the victim's own items would be in it.
    others: Any = victims.popularity - own.sum(axis=0)
    return {
        case._replace(attack=name): [evaluate_scores(client, values, wanted, known)]
        for name, values in {**scores, "popularity": others}.items()
    }


def _join(parts: list[Found]) -> Found:
    """Returns the figures of several parts by case, in order."""
    found: Found = {}
    for part in parts:
        for case, figures in part.items():
            found[case] = found.get(case, []) + figures
    return found
