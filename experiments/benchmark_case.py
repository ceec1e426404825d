"""One case of the benchmark: prepares, compiles, and times chunk after chunk."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.backbones import BACKBONES
from fedpeft_jax.core import specs
from fedpeft_jax.core.roles import FROZEN
from fedpeft_jax.data import generate_long_tailed, leave_one_out, load_dataset
from fedpeft_jax.embeddings import EMBEDDINGS, ItemEmbedding
from fedpeft_jax.embeddings.base import FullTable
from fedpeft_jax.federated.aggregators import AGGREGATORS, with_server_optimizer
from fedpeft_jax.federated.client import LocalTraining
from fedpeft_jax.federated.cohorts import make_tiles, plan_cohorts
from fedpeft_jax.federated.losses import bpr
from fedpeft_jax.federated.optimizers import OPTIMIZERS
from fedpeft_jax.federated.round import make_run_rounds
from fedpeft_jax.federated.sampler import make_store
from fedpeft_jax.federated.state import init_private, init_server, make_state


class Setting(NamedTuple):
    """What is trained: specs of a backbone and an embedding around a full table."""

    backbone: str
    full: FullTable
    embedding: str | None


_COMPRESSED = {
    "lora": "lora(rank=4)",
    "hash": "hash(num_buckets=512, num_hashes=2)",
    "senet": "hash(pooling='senet')",
    "rq": "rq(num_codebooks=4, codebook_size=256)",
}
_ITEMS: dict[str, tuple[FullTable, str | None]] = {
    "full": ("trained", None),
    "frozen": ("frozen", None),
    **{name: ("frozen", spec) for name, spec in _COMPRESSED.items()},
    **{f"{name}_alone": (None, spec) for name, spec in _COMPRESSED.items()},
}

SETTINGS = {name: Setting("fedmf", *items) for name, items in _ITEMS.items()} | {
    f"{backbone}_{name}": Setting(backbone, *items)
    for backbone in BACKBONES
    for name, items in _ITEMS.items()
}
"""FedMF by the name of its item embedding, the others as `backbone_embedding`."""

_REPORTED = ("cohort_size", "aggregator", "server_optimizer", "features")

Case = dict[str, Any]
"""The name of a setting and the value of every flag."""


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """Prepares, compiles and warms up; then every `next` times one chunk.

    Args:
      case: as `main` makes it.

    Yields:
      The facts of the case first, without a time; then `{'ms': milliseconds a round}`
      with the peak of memory so far, for each of `rounds / chunk_rounds` chunks.
    """
    seconds, start = dict[str, float](), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name] = time.perf_counter() - start
        start = time.perf_counter()

    seed, rounds, cohort_size = case["seed"], case["chunk_rounds"], case["cohort_size"]
    if case["data_dir"] is None:
        size = case["users"], case["items"], case["mean_length"]
        data = generate_long_tailed(seed, *size)
    else:
        data = load_dataset("ml-1m", case["data_dir"])
    lap("data")
    split = leave_one_out(data)
    lap("split")
    store = jax.block_until_ready(make_store(split))
    lap("store")
    shape = {n: case[n] for n in ("tile_rows", "max_buckets", "client_chunk")}
    tiles = make_tiles(split.counts, cohort_size, **shape)
    plans = [
        plan_cohorts(
            tiles, split.counts, cohort_size=cohort_size, seed=seed,
            first_round=first, num_rounds=rounds,
        )
        for first in range(0, case["rounds"] + rounds, rounds)
    ]  # fmt: skip
    lap("plan")
    setting = SETTINGS[case["setting"]]
    compressed = setting.embedding and specs.resolve(
        setting.embedding, EMBEDDINGS, "embedding"
    )
    item_embedding = ItemEmbedding(
        split.num_items, case["features"], setting.full, compressed or None
    )
    make_model = specs.resolve(setting.backbone, BACKBONES, "backbone")
    model = make_model(item_embedding=item_embedding)
    inner = specs.resolve(case["aggregator"], AGGREGATORS, "aggregator")()
    server_optimizer = specs.resolve(
        case["server_optimizer"], OPTIMIZERS, "server optimizer"
    )
    aggregator = with_server_optimizer(inner, server_optimizer())
    keys = jax.random.split(jax.random.key(seed), 3)
    server = init_server(model, keys[0])
    private = init_private(model, keys[1], split.num_clients, server)
    state = make_state(server, private, aggregator, keys[2])
    fixed = jax.block_until_ready((server[FROZEN], store))
    del server, private  # the state is donated
    lap("init")
    training = LocalTraining(model, bpr, optax.adam(1e-2), split.num_items)
    run = make_run_rounds(training, aggregator, tiles)
    arrays = [jnp.asarray(x) for x in plans[0]]
    num_rounds = jnp.int32(rounds)
    compiled = run.lower(state, *fixed, *arrays, num_rounds).compile()
    lap("compile")
    compile_s = seconds.pop("compile")
    for chunk, plan in enumerate(plans):
        arrays = jax.block_until_ready([jnp.asarray(x) for x in plan])
        start = time.perf_counter()
        state, report = compiled(state, *fixed, *arrays, num_rounds)
        jax.block_until_ready(state)
        milliseconds = 1e3 * (time.perf_counter() - start) / rounds
        if not report.finite:
            raise FloatingPointError(f"{case['setting']}: a non-finite update")
        if chunk:
            yield {"ms": milliseconds, **_peaks()}
            continue
        yield {
            "setting": case["setting"],
            "dataset": data.name,
            "users": split.num_clients,
            "items": split.num_items,
            "train_pairs": len(split.train),
            **{n: case[n] for n in _REPORTED},
            "tiles": tiles._asdict(),
            "device": jax.devices()[0].device_kind,
            "prepare_s": {**seconds, "total": sum(seconds.values())},
            "compile_s": compile_s,
        }


def _peaks() -> dict[str, int | None]:
    unit = 1 if sys.platform == "darwin" else 1024
    device = jax.devices()[0].memory_stats() or {}
    return {
        "peak_rss_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "peak_device_bytes": device.get("peak_bytes_in_use"),
    }
