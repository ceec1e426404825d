"""Loads the model of a run folder, of a run that has finished or of one that goes on.

Nothing in the folder is trusted. Files are compared with their manifests, the shapes of
all arrays with those of the model that the configuration describes, and only registered
plugins are built. No file is a pickle, and links are not followed.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import PRIVATE
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.build import make_model
from fedpeft_jax.experiment.checkpoint import load_variables
from fedpeft_jax.experiment.checkpoints import Checkpoints
from fedpeft_jax.experiment.config import RunConfig, restore
from fedpeft_jax.experiment.id_tables import read_id_tables, read_json
from fedpeft_jax.experiment.snapshot import packed_variables
from fedpeft_jax.experiment.summary import FORMAT
from fedpeft_jax.federated import init_private, init_server
from fedpeft_jax.serving.trained_model import TrainedModel


def load(path: str | os.PathLike[str]) -> TrainedModel:
    """Returns the model of a run folder.

    A run that has not finished gives the model of its newest checkpoint.

    Args:
      path: the folder of a run, as `out` names it.

    Raises:
      InputError: if the folder holds no run, or a file in it is damaged or does not
        belong to the run.

    Example:
      >>> import tempfile
      >>> from fedpeft_jax import configure, run
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     quick = {"rounds": 2, "warm_up_rounds": 0, "full_init": "random"}
      ...     quick |= {"max_buckets": 1, "baselines": "random"}
      ...     _ = run(configure(**quick, out=folder))
      ...     model = load(folder)
      >>> model.round, model.item_embeddings.shape
      (2, (600, 32))
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: name the folder of a run")
    config = _config(folder)
    tables = read_id_tables(folder)
    summary = None
    if (folder / "summary.json").exists():
        summary = read_json(folder / "summary.json")
        if summary.get("format") != FORMAT:
            raise InputError(
                f"{folder / 'summary.json'} is no summary of format {FORMAT}: load it "
                "with the version that wrote it"
            )
    variables, round_ = _variables(folder, summary)
    model = model_of(config, variables, tables.num_items, tables.num_users, str(folder))
    return TrainedModel(config, tables, model, variables, summary, round_)


def _config(folder: pathlib.Path) -> RunConfig:
    path = folder / "config.json"
    try:
        return restore(read_json(path))
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


def _variables(
    folder: pathlib.Path, summary: dict[str, Any] | None
) -> tuple[Mapping[str, PyTree], int | None]:
    """Returns the variables of the run, and after how many rounds they are."""
    path = folder / "checkpoints"
    if path.is_symlink():
        raise InputError(f"{path} is a link: copy the run folder with its files")
    if summary is not None:
        rounds = summary.get("rounds", {})
        evaluated = rounds.get("evaluated") if isinstance(rounds, dict) else None
        return load_variables(path / "final"), evaluated
    checkpoints, damaged = Checkpoints(path, keep=1), list[str]()
    try:
        for saved in checkpoints.newest(damaged.append):
            return packed_variables(saved.tree), saved.facts.get("round")
    finally:
        checkpoints.close()
    for name in ("final", "last_finite"):
        if (path / name).is_dir():
            return load_variables(path / name), None
    if damaged:
        raise InputError(
            f"no checkpoint of {folder} can be read ({damaged[0].partition(';')[0]}): "
            "continue the run, or make a new one"
        )
    raise InputError(
        f"{folder} has no checkpoint yet: wait until the run has saved one (every "
        "`checkpoint_every` rounds), or continue it"
    )


def model_of(
    config: RunConfig,
    variables: Mapping[str, PyTree],
    num_items: int,
    num_clients: int,
    where: str,
) -> Backbone:
    """Returns the model of the phase that variables belong to.

    Args:
      config: the configuration of the run.
      variables: the variables by collection.
      num_items: I, the number of items.
      num_clients: U, the number of clients.
      where: where the variables are from, for the message.

    Raises:
      InputError: if the variables belong to neither, or are not finite.
    """
    problem = ""
    for warm_up in (False, True):
        model = make_model(config.model, num_items, warm_up=warm_up)
        difference = _difference(model, variables, num_clients)
        if difference is None:
            break
        problem = problem or difference
    else:
        raise InputError(
            f"the variables of {where} are not those of its configuration: {problem}; "
            "load a run whose phases are the default ones"
        )
    for path, value in traverse_util.flatten_dict(dict(variables), sep="/").items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(f"{path} of {where} is not finite: load another run")
    return model


def _difference(
    model: Backbone, variables: Mapping[str, PyTree], num_clients: int
) -> str | None:
    """Returns what the model and the variables differ in, None for nothing."""

    def init() -> PyTree:
        server = init_server(model, jax.random.key(0))
        private = init_private(model, jax.random.key(0), num_clients, server)
        return {**server, PRIVATE: private}

    expected = traverse_util.flatten_dict(jax.eval_shape(init), sep="/")
    found = traverse_util.flatten_dict(
        {role: dict(tree) for role, tree in dict(variables).items()}, sep="/"
    )
    for name in sorted({*expected, *found}):
        if name not in found:
            return f"{name} is missing"
        if name not in expected:
            return f"there is no {name}"
        want, have = expected[name], found[name]
        if not hasattr(have, "dtype") or (have.shape, have.dtype) != (
            want.shape,
            want.dtype,
        ):
            return f"{name} is {_kind(have)}, not {_kind(want)}"
    return None


def _kind(array: Any) -> str:
    if not hasattr(array, "dtype"):
        return type(array).__name__
    return f"{array.dtype}{list(array.shape)}"
