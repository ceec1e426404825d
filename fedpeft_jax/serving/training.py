"""Trains a model in one call."""

import os
from collections.abc import Iterable
from typing import Any

from fedpeft_jax.core.compilation_cache import use_compilation_cache
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Dataset
from fedpeft_jax.experiment import (
    Callback,
    ConsoleReporter,
    Phase,
    Prepared,
    RunConfig,
    configure,
    make_phases,
    run,
)
from fedpeft_jax.experiment.dataset_name import name_dataset
from fedpeft_jax.experiment.id_tables import id_tables
from fedpeft_jax.serving.loading import load, model_of
from fedpeft_jax.serving.trained_model import TrainedModel


def train(
    dataset: Dataset | str | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    callbacks: Iterable[Callback] = (),
    **settings: Any,
) -> TrainedModel:
    """Trains, evaluates and returns a model.

    Compiled programs are kept in the user's cache folder, so that the next call with
    the same shapes starts sooner.

    Args:
      dataset: a data set, for example from `from_frame`, or the name of one, such as
        `'ml-1m'`; None for the synthetic one.
      out: the folder of the run; None keeps everything in memory. If the folder holds
        the same run, the run continues, and a run that has finished is loaded.
      progress: whether to show notes and a progress bar, on standard error.
      callbacks: follow the run, see `Callback`.
      **settings: settings by name, as in `configure`.

    Returns:
      The model, with `summary`, `recommend`, `item_embeddings` and so on.

    Raises:
      InputError: for data or settings that cannot be used.
      DivergedError: if an update is not finite.

    Example:
      >>> quick = {"rounds": 2, "warm_up_rounds": 0, "full_init": "random"}
      >>> model = train(**quick, max_buckets=1, baselines="random", progress=False)
      >>> model
      TrainedModel('synthetic': 1000 users, 600 items, fedmf: frozen + lora(rank=4))
      >>> model.recommend([3, 5], k=2).select("user", "rank").rows()
      [(3, 1), (3, 2), (5, 1), (5, 2)]
    """
    given: Dataset | None = None
    if isinstance(dataset, str):
        settings = {"dataset": dataset, **settings}
    elif isinstance(dataset, Dataset):
        given = dataset
    elif dataset is not None:
        raise InputError(
            f"dataset is a {type(dataset).__name__}: use `from_frame` to make a data "
            "set of a table, or give the name of one"
        )
    config = configure(**settings, out=None if out is None else os.fspath(out))
    if given is not None:
        config = name_dataset(config, given.name)
    use_compilation_cache()
    shown = [ConsoleReporter()] if progress else []
    held: list[Prepared] = []

    def phases(config: RunConfig, prepared: Prepared) -> list[Phase]:
        held.append(prepared)
        return make_phases(config, prepared)

    result = run(config, dataset=given, callbacks=[*shown, *callbacks], phases=phases)
    if out is not None:
        return load(out)
    (prepared,) = held
    tables = id_tables(prepared.dataset, prepared.split)
    model = model_of(
        config, result.variables, tables.num_items, tables.num_users, "the run"
    )
    round_ = result.summary["rounds"]["evaluated"]
    return TrainedModel(config, tables, model, result.variables, result.summary, round_)
