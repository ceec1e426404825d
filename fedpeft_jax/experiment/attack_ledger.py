"""Adds up what every attack says of every victim, over observed rounds."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.data import Split
from fedpeft_jax.experiment.attack_results import Case, Figures, evaluate_scores
from fedpeft_jax.experiment.attack_tools import Tools, read_server, score_items
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.privacy.attacks import standardised

_VICTIMS = 0x76  # apart from the seeds of cohorts


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


@dataclasses.dataclass
class Ledger:
    """What the attacks found so far.

    Attributes:
      victims: the clients that are observed.
      spread: the rounds that are observed, by their number T.
      totals: float32[V, I] by attack, T, and whether touched rows are known: sums of
        the standardised scores.
      seen: bool[V, I] by T, the items that the victims trained on in observed rounds.
      found: the figures of secure sums.
    """

    victims: Victims
    spread: dict[int, list[int]]
    totals: dict[tuple[str, int, bool], np.ndarray]
    seen: dict[int, np.ndarray]
    found: dict[Case, list[Figures]]

    def add_updates(
        self, tools: Tools, state: RunState, attacks: tuple[str, ...]
    ) -> None:
        """Observes every victim alone, and adds the scores of its items.

        Args:
          tools: what the attacks need.
          state: the state before the observed round.
          attacks: the attacks that run.
        """
        now = [t for t, rounds in self.spread.items() if state.round in rounds]
        count = self.victims.num_victims
        server = read_server(tools, state) if now else None
        for place, client in enumerate(self.victims.client_ids[:count].tolist()):
            if server is None:
                return
            update = tools.observe[1](state, [client])
            touched = tools.touched(state, client)
            for t in now:
                self.seen[t][place] |= touched
            for knows, known in ((True, touched), (False, None)):
                scores = score_items(tools, server, update, known, attacks)
                for name, values in scores.items():
                    add = standardised(values, known)
                    for t in now:
                        key = (name, t, knows)
                        zeros = np.zeros((count, len(add)), np.float32)
                        self.totals.setdefault(key, zeros)[place] += add

    def add_sums(
        self,
        tools: Tools,
        state: RunState,
        attacks: tuple[str, ...],
        sizes: tuple[int, ...],
    ) -> None:
        """Observes secure sums, and scores the items of members and of unions.

        Args:
          tools: what the attacks need.
          state: the state before the observed round.
          attacks: the attacks that run.
          sizes: numbers m of clients whose updates are summed.
        """
        victims, server = self.victims, read_server(tools, state)
        for m in sizes:
            for first in range(0, victims.num_victims, m):
                group = np.arange(first, first + m)
                members = victims.client_ids[group].tolist()
                update = tools.observe[m](state, members)
                touched = np.any([tools.touched(state, c) for c in members], axis=0)
                for knows, known in ((True, touched), (False, None)):
                    scores = score_items(tools, server, update, known, attacks)
                    for place in group[group < victims.num_victims]:
                        self._put(m, 1, knows, scores, [int(place)], known)
                    self._put(m, 1, knows, scores, group.tolist(), known, "union")

    def _put(
        self,
        m: int,
        t: int,
        knows: bool,
        scores: dict[str, np.ndarray],
        places: list[int],
        known: np.ndarray | None,
        target: str = "member",
    ) -> None:
        """Adds the figures of every attack, and of the popularity of the items."""
        own = self.victims.positives[places]
        wanted: Any = own.any(axis=0)
        client = -1 if target == "union" else int(self.victims.client_ids[places[0]])
        # Popularity among the others, or the victim's own items would be in it.
        others: Any = self.victims.popularity - own.sum(axis=0)
        for name, values in {**scores, "popularity": others}.items():
            figures = evaluate_scores(client, values, wanted, known)
            case = Case(name, m, t, knows, target)
            self.found.setdefault(case, []).append(figures)

    def figures(self) -> dict[Case, list[Figures]]:
        """Returns the figures of single updates, of several rounds, and of sums."""
        sums, self.found = self.found, {}
        for t in self.spread:
            for place in range(self.victims.num_victims):
                for knows in (True, False):
                    known = self.seen[t][place] if knows else None
                    scores = {
                        name: total[place]
                        for (name, rounds, who), total in self.totals.items()
                        if (rounds, who) == (t, knows)
                    }
                    self._put(1, t, knows, scores, [place], known)
        self.found |= sums
        return self.found


def open_ledger(victims: Victims, spread: dict[int, list[int]]) -> Ledger:
    """Returns a ledger without observations.

    Args:
      victims: the clients that are observed.
      spread: the rounds that are observed, by their number T.
    """
    shape = (victims.num_victims, victims.positives.shape[1])
    seen = {t: np.zeros(shape, bool) for t in spread}
    return Ledger(victims, spread, {}, seen, {})
