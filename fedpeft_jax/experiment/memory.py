"""Predicts the memory that a run needs at least, and refuses one that cannot fit.

The prediction is computed from shapes, before the run allocates anything that depends
on its settings. It is a lower bound: it counts the arrays that must exist at the same
time and no temporary of the compiler, no library and no data set. A run is refused only
if this bound exceeds all memory of the machine, so that no run that fits is refused.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, ROWS, SENT, SHARED, select
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.data import Split
from fedpeft_jax.experiment.build import make_aggregator, make_model, make_training
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.plugins import factories_of
from fedpeft_jax.experiment.privacy_plan import client_chunk
from fedpeft_jax.experiment.reporting import format_bytes
from fedpeft_jax.federated import chain_uploads, init_private, init_server, make_tiles
from fedpeft_jax.federated.pipelines.checks import check_upload

_EVALUATED = 2**17  # scores per block, see `Evaluator`


class Part(NamedTuple):
    """Arrays that a run holds.

    Attributes:
      name: what they are.
      size: their bytes.
      remedy: the settings that make them smaller.
      device: whether they are on the device that trains.
      fused: whether the compiler of an accelerator may never build them.
    """

    name: str
    size: int
    remedy: str
    device: bool = True
    fused: bool = False


def predict(config: RunConfig, split: Split) -> list[Part]:
    """Returns what a run holds at the same time, in the phase that needs most.

    Args:
      config: the configuration.
      split: the clients' training and held-out items.
    """
    warm_up, rounds = config.run.warm_up_rounds, config.run.rounds
    phases = [True] * bool(warm_up) + [False] * (warm_up < rounds)
    common = _common(config, split)
    found = [common + _phase(config, split, warm_up=phase) for phase in phases]
    return max(found, key=lambda parts: sum(part.size for part in parts))


def check_memory(
    config: RunConfig, split: Split, *, host: int | None, device: int | None
) -> None:
    """Refuses a run that cannot fit.

    Args:
      config: the configuration.
      split: the clients' training and held-out items.
      host: bytes of the machine's memory; None if they are not known.
      device: bytes of the device's own memory; None if it uses the machine's.

    Raises:
      InputError: if the run needs more memory than there is. The message names the
        largest part, and the settings that make it smaller.
    """
    parts = predict(config, split)
    if device is None:
        places = [("the machine", host, parts)]
    else:
        places = [
            (
                "the device",
                device,
                [part for part in parts if part.device and not part.fused],
            ),
            ("the machine", host, [part for part in parts if not part.device]),
        ]
    for place, limit, held in places:
        needed = sum(part.size for part in held)
        if limit is None or needed <= limit:
            continue
        largest = max(held, key=lambda part: part.size)
        raise InputError(
            f"the run needs at least {format_bytes(needed)} of memory, and {place} has "
            f"{format_bytes(limit)}; the largest part is {largest.name}, "
            f"{format_bytes(largest.size)}: lower {largest.remedy}"
        )


def check_program(
    program: jax.stages.Compiled, *, host: int | None, device: int | None
) -> None:
    """Refuses rounds whose compiled program needs more memory than there is.

    Args:
      program: the compiled rounds. The compiler knows exactly what they allocate.
      host: bytes of the machine's memory; None if they are not known.
      device: bytes of the device's own memory; None if it uses the machine's.

    Raises:
      InputError: if the arguments and the temporary arrays do not fit.
    """
    limit, needs = host if device is None else device, program.memory_analysis()
    if limit is None or needs is None:
        return
    held, work = needs.argument_size_in_bytes, needs.temp_size_in_bytes
    if held + work > limit:
        raise InputError(
            f"a round needs {format_bytes(held + work)} of memory, "
            f"{format_bytes(work)} of it to train clients at once, and there are "
            f"{format_bytes(limit)}: lower `tile_rows`, `client_chunk`, `features` or "
            "the size of `embedding`"
        )


def _common(config: RunConfig, split: Split) -> list[Part]:
    """Returns what every phase holds."""
    model, items = config.model, split.num_items
    evaluated, width = len(split.evaluated), 1 + config.evaluation.num_candidates
    parts = [
        Part("the training items", 4 * len(split.train.values), "the size of the data"),
        Part("the candidates", 4 * evaluated * width, "`num_candidates`", device=False),
        Part(
            "the scores of a block in evaluation",
            4 * max(items, min(_EVALUATED, items * evaluated)),
            "the number of items",
        ),
    ]
    if model.full != "none":
        table = 4 * items * model.features
        parts.append(Part("the table before training", table, "`features`"))
        longest = int(np.max(split.counts, initial=1))
        ranked = min(evaluated, max(_EVALUATED // (width + longest), 1)) * width
        block = 4 * ranked * model.features
        name = "the items of a block in evaluation"
        parts.append(Part(name, block, "`features`", fused=True))
    return parts


def _phase(config: RunConfig, split: Split, *, warm_up: bool) -> list[Part]:
    """Returns what the rounds of a phase hold."""
    model = make_model(config.model, split.num_items, warm_up=warm_up)
    server, own = _shapes(model)
    clients = split.num_clients
    aggregator = make_aggregator(config.server)
    stages = (make() for make in factories_of("upload", config.training.upload))
    upload = chain_uploads(*stages)
    sent = select(server, SENT)
    moments = jax.eval_shape(aggregator.init, sent)
    kept = jax.eval_shape(upload.init, sent)
    check_upload(upload, sent, split.num_items)  # stages in a wrong order
    less = "what `upload` keeps"
    if "top_k" in config.training.upload:
        less += ", with `upload=top_k(error_feedback=False)`"
    size = "`features`, or the size of `embedding`"
    layers = "`features`, or the layers of `backbone`"
    table, private = _bytes(select(server, (SHARED, ROWS, FROZEN))), _bytes(own)
    rows = _bytes(server[ROWS])
    parts = [
        Part("the server's parameters", table, size),
        Part("the private parameters of all clients", clients * private, layers),
        Part("the state of `server_optimizer`", _bytes(moments), size),
        Part("the clients' state of `upload`", clients * _bytes(kept), less),
        Part(
            "the cohort's state of `upload`",
            config.places(clients) * _bytes(kept),
            less,
        ),
        Part("the sum of the clients' rows", rows, size),
    ]
    if config.run.out is not None:
        held = table + clients * (private + _bytes(kept)) + _bytes(moments)
        parts.append(Part("the copy in a checkpoint", held, size, device=False))
    return parts + _tile(config, split, model, (server, own))


def _tile(
    config: RunConfig,
    split: Split,
    model: Backbone,
    shapes: tuple[PyTree, PyTree],
) -> list[Part]:
    """Returns what the clients that train at once hold, for the largest tile.

    Every client gathers its rows, and its update holds a copy of the shared parameters.
    """
    (server, own), run, training = shapes, config.run, config.training
    size = config.places(split.num_clients)
    tiles = make_tiles(
        np.asarray(split.counts),
        size,
        max_buckets=run.max_buckets,
        tile_rows=run.tile_rows,
        client_chunk=client_chunk(config, split.num_items),
    )
    make_training(training, model)  # a spec that cannot be built is refused here
    shared, batch = _bytes(server[SHARED]), training.local_batch_size
    negatives = training.num_negatives
    sizes = list(zip(tiles.sizes, tiles.capacities, strict=True))
    pairs = max(n * capacity for n, capacity in sizes)
    clients = max(tiles.sizes)
    fewer = "`client_chunk` or `tile_rows`"
    gathered = pairs * (1 + negatives)
    rows, frozen = (
        gathered * (_bytes(server[role]) // split.num_items) for role in (ROWS, FROZEN)
    )
    parts = [
        Part("the clients' copies of shared parameters", clients * shared, fewer),
        Part("the cohort's private parameters", size * _bytes(own), "`cohort_size`"),
        Part("the clients' rows", 4 * gathered + rows, f"`num_negatives`, {fewer}"),
        Part(
            "the clients' rows of frozen tables",
            frozen,
            f"`num_negatives`, {fewer}",
            fused=True,
        ),
    ]
    if batch:
        padded = max(n * -(-capacity // batch) * batch for n, capacity in sizes)
        remedy = "`local_batch_size`"
        parts.append(Part("the clients' padded batches", 4 * padded, remedy))
    return parts


def _shapes(model: Backbone) -> tuple[PyTree, PyTree]:
    """Returns the shapes of the server's variables and of one client's parameters."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    server = jax.eval_shape(lambda k: init_server(model, k), key)
    own = jax.eval_shape(lambda k, s: init_private(model, k, 1, s), key, server)
    return server, own


def _bytes(tree: PyTree) -> int:
    """Returns the bytes of a tree of shapes, in Python's integers."""
    leaves: Sequence[jax.ShapeDtypeStruct] = jax.tree.leaves(tree)
    return sum(_elements(leaf.shape) * _width(leaf) for leaf in leaves)


def _width(leaf: jax.ShapeDtypeStruct) -> int:
    return int(getattr(leaf.dtype, "itemsize", 4))


def _elements(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= int(length)
    return product
