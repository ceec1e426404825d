"""A whole run: pretrain, warm up, freeze, train the compressed part, evaluate."""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.data import Dataset
from fedpeft_jax.evaluation.per_user import per_user_table
from fedpeft_jax.evaluation.ranking import Evaluator, ScoreFn
from fedpeft_jax.evaluation.scoring import model_scores
from fedpeft_jax.experiment.communication import PhaseTraffic
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.early_stopping import EarlyStopping
from fedpeft_jax.experiment.phases import Phase, enter_phase, make_phases
from fedpeft_jax.experiment.preparation import prepare
from fedpeft_jax.experiment.protocol import unsound_choices
from fedpeft_jax.experiment.reporting import Reporter
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.summary import rank_all, summarize_run, valid_ndcg
from fedpeft_jax.federated.cohorts import make_tiles, plan_cohorts
from fedpeft_jax.federated.round import RoundState, make_run_rounds
from fedpeft_jax.federated.sampler import make_store

# Rounds in one dispatch: enough to hide its cost, few enough for lively progress.
_CHUNK = 25


class DivergedError(RuntimeError):
    """Training gave a non-finite update; what was computed before is on disk."""


class Run:
    """One experiment, from its configuration to its summary.

    Args:
      config: all settings.
      folder: where results go; None keeps them in memory only.
      reporter: hears of progress; silent by default.
      dataset: in place of the one that the configuration names, e.g. of `from_frame`.

    Example:
      >>> config = RunConfig(full="none", rounds=4, eval_every=2)
      >>> summary = Run(config).execute()
      >>> sorted(summary["metrics"]["test"])
      ['full', 'sampled']
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder | None = None,
        reporter: Reporter | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.reporter = reporter or Reporter()
        stages = ("load_s", "pretrain_s", "compile_s", "rounds_s", "evaluate_s")
        self._clock = dict.fromkeys(stages, 0.0)
        self._history: list[dict[str, Any]] = []
        self._participants: set[int] = set()
        self._stopping = EarlyStopping(config.early_stopping_rounds)
        self._sent = 0

    def execute(self) -> dict[str, Any]:
        """Runs everything and returns the summary, also written to the folder.

        Raises:
          InputError: for data or settings that cannot be used.
          DivergedError: if an update is not finite.
        """
        config = self.config
        prepared = prepare(config, self.reporter, self.dataset)
        if self.folder is not None:
            # Not earlier: a run that could not start must not claim its folder.
            self.folder.write_config(config.settings())
        self._clock["load_s"] = prepared.load_s
        self._clock["pretrain_s"] = prepared.pretrain_s
        split = prepared.split
        self._counts = np.asarray(split.counts)
        self._cohort_size = config.cohort(split.num_clients)
        self._tiles = make_tiles(
            self._counts,
            self._cohort_size,
            tile_rows=config.tile_rows,
            client_chunk=config.client_chunk,
        )
        self._store = make_store(
            split, exclude_held_out=config.train_negatives == "unseen"
        )
        self._evaluator = Evaluator(split, prepared.candidates)
        for choice in unsound_choices(config):
            self.reporter.note(f"unsound protocol: {choice}")

        start = time.perf_counter()
        phases = make_phases(config, prepared)
        self._clock["pretrain_s"] += time.perf_counter() - start
        traffic: dict[str, tuple[PhaseTraffic, int]] = {}
        state: RoundState | None = None
        frozen: PyTree = {}
        for phase in phases:
            name = config.embedding.partition("(")[0]
            self.reporter.figures(name, phase.fitted.figures)
            state, frozen = enter_phase(config, phase, split.num_clients, state, frozen)
            first, sent = int(state.round), self._measure(state, split.num_items)
            state = self._train(phase, state, frozen, sent)
            traffic[phase.name] = (sent, int(state.round) - first)
        assert state is not None
        ran = int(state.round)
        if self._stopping.state is not None:
            state = self._stopping.state
        params = _parameters(state, frozen)
        if self.folder is not None:
            self.folder.save_parameters("final", params)
        start = time.perf_counter()
        ranks = rank_all(
            config, prepared, self._evaluator, model_scores(phase.model), params
        )
        self._clock["evaluate_s"] += time.perf_counter() - start
        summary = summarize_run(
            config=config,
            prepared=prepared,
            figures=phase.fitted.figures,
            ranks=ranks,
            params=params,
            rounds={"run": ran, "evaluated": int(state.round)},
            history=self._history,
            phases=traffic,
            participants=len(self._participants),
            clock=self._clock,
        )
        if self.folder is not None:
            clients = self._evaluator.clients("valid")
            table = per_user_table(prepared.dataset, split, ranks, clients)
            self.folder.write_per_user(table)
            self.folder.write_summary(summary)
        return summary

    def _measure(self, state: RoundState, num_items: int) -> PhaseTraffic:
        variables = {SHARED: state.shared, ROWS: state.rows}
        num_negatives = self.config.num_negatives
        return PhaseTraffic.of(variables, self._counts, num_items, num_negatives)

    def _train(
        self,
        phase: Phase,
        state: RoundState,
        frozen: PyTree,
        traffic: PhaseTraffic,
    ) -> RoundState:
        config, score = self.config, model_scores(phase.model)
        training = config.make_local_training(phase.model)
        run_rounds = make_run_rounds(training, config.make_aggregator(), self._tiles)
        chunk = min(config.eval_every, _CHUNK)
        compiled = None
        done = int(state.round)
        while done < phase.stop:
            due = (done // config.eval_every + 1) * config.eval_every
            until = min(phase.stop, done + chunk, due)
            plan = plan_cohorts(
                self._tiles,
                self._counts,
                cohort_size=self._cohort_size,
                seed=config.seed,
                first_round=done,
                num_rounds=chunk,
            )
            arguments = (
                state, frozen, self._store, jnp.asarray(plan.client_ids),
                jnp.asarray(plan.num_tiles), jnp.int32(until - done),
            )  # fmt: skip
            if compiled is None:
                start = time.perf_counter()
                compiled = run_rounds.lower(*arguments).compile()
                self._clock["compile_s"] += time.perf_counter() - start
            start = time.perf_counter()
            state, report = compiled(*arguments)
            losses, finite = np.asarray(report.losses), bool(report.finite)
            self._clock["rounds_s"] += time.perf_counter() - start
            if not finite:
                self._diverged(int(state.round), state, frozen)
            ran = until - done
            self._participants.update(plan.client_ids[:ran].ravel().tolist())
            self._sent += 2 * traffic.dense * self._cohort_size * ran
            done = until
            if done % config.eval_every and done != config.rounds:
                self._show(done, losses[ran - 1])
                continue
            value = self._validate(
                phase.name, done, losses[ran - 1], score, state, frozen
            )
            self._show(done, losses[ran - 1])
            # A warm-up is short by design, and its model is not the run's.
            if phase.name == "peft" and self._stopping.should_stop(done, value, state):
                self.reporter.note(
                    f"stopped after round {done}: validation NDCG@10 was best at "
                    f"round {self._stopping.round}"
                )
                break
        return state

    def _validate(
        self,
        phase: str,
        done: int,
        loss: float,
        score: ScoreFn,
        state: RoundState,
        frozen: PyTree,
    ) -> float:
        start = time.perf_counter()
        metrics = {}
        if self._evaluator.clients("valid").size:
            metrics["valid"] = self._evaluator(
                score, _parameters(state, frozen), "valid", ("sampled",)
            )
        self._clock["evaluate_s"] += time.perf_counter() - start
        entry = {
            "round": done,
            "phase": phase,
            "loss": float(loss),
            "metrics": metrics,
            "bytes": self._sent,
            "seconds": round(sum(self._clock.values()), 3),
        }
        self._history.append(entry)
        if self.folder is not None:
            self.folder.append_metrics(entry)
        return valid_ndcg(entry)

    def _show(self, done: int, loss: float) -> None:
        values = {"loss": float(loss)}
        if self._history and self._history[-1]["metrics"]:
            values["valid NDCG@10"] = valid_ndcg(self._history[-1])
        values["rounds/s"] = done / max(self._clock["rounds_s"], 1e-9)
        self.reporter.progress("rounds", done, self.config.rounds, **values)

    def _diverged(self, done: int, state: RoundState, frozen: PyTree) -> None:
        where = ""
        if self.folder is not None:
            self.folder.save_parameters("last_finite", _parameters(state, frozen))
            where = f"; {self.folder.path} holds everything up to the round before it"
        raise DivergedError(
            f"round {done + 1} gave a non-finite update: lower the learning rate of "
            f"--client_optimizer or --server_optimizer{where}"
        )


def _parameters(state: RoundState, frozen: PyTree) -> dict[str, PyTree]:
    return {
        SHARED: state.shared,
        ROWS: state.rows,
        FROZEN: frozen,
        PRIVATE: state.private,
    }
