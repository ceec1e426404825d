"""One case of the benchmark: it prepares, compiles, and times chunk after chunk."""

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax import (
    BACKBONES,
    FROZEN,
    ROWS,
    SHARED,
    RunConfig,
    configure,
    fresh_negatives,
    generate_long_tailed,
    init_private,
    init_server,
    leave_one_out,
    load_dataset,
    make_algorithm,
    make_model,
    make_run_rounds,
    make_state,
    make_tiles,
    merge_adapter,
    plan_cohorts,
    plan_privacy,
    with_privacy,
)


class Setting(NamedTuple):
    """What is trained: specs of a backbone and an embedding, and the full table."""

    backbone: str
    full: str
    embedding: str


_COMPRESSED = {
    "lora": "lora(rank=4)",
    "hash": "hash(num_buckets=512, num_hashes=2)",
    "senet": "hash(pooling='senet')",
    "rq": "rq(num_codebooks=4, codebook_size=256)",
}
_ITEMS: dict[str, tuple[str, str]] = {
    "full": ("trained", "none"),
    "frozen": ("frozen", "none"),
    **{name: ("frozen", spec) for name, spec in _COMPRESSED.items()},
    **{f"{name}_alone": ("none", spec) for name, spec in _COMPRESSED.items()},
}

SETTINGS = {name: Setting("fedmf", *items) for name, items in _ITEMS.items()} | {
    f"{backbone}_{name}": Setting(backbone, *items)
    for backbone in BACKBONES
    for name, items in _ITEMS.items()
}
"""FedMF by the name of its item embedding, and all as `BACKBONE_EMBEDDING`."""

_REPORTED = (
    *("cohort_size", "aggregator", "upload", "download", "server_optimizer"),
    *("features", "privacy", "privacy_model"),
)

Case = dict[str, Any]
"""The name of a setting and the value of every flag."""


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """Prepares, compiles and warms up; then every `next` times one chunk.

    Args:
      case: the name of a setting and the value of every flag.

    Yields:
      First the facts of the case, without a time; then `{'ms': milliseconds per round}`
      with the peak of memory so far, for each of `rounds / chunk_rounds` chunks. With a
      compressed embedding beside a frozen table, `merge_ms` is the time of one merge.
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
    sampler = fresh_negatives(split.num_items)
    store = jax.block_until_ready(sampler.make_store(split))
    lap("store")
    shape = {n: case[n] for n in ("tile_rows", "max_buckets", "client_chunk")}
    tiles = make_tiles(split.counts, cohort_size, **shape)
    config = _config(case)
    sampling = config.sampling(split.num_clients)
    firsts = range(0, case["rounds"] + rounds, rounds)
    plans = [
        plan_cohorts(
            tiles, split.counts, sampling=sampling, seed=seed, first_round=first,
            num_rounds=rounds, width=sampling.most(seed, firsts[-1] + rounds),
        )
        for first in firsts
    ]  # fmt: skip
    lap("plan")
    model = make_model(config.model, split.num_items)
    algorithm = make_algorithm(config.training, config.server, model)
    if (privacy := plan_privacy(config, split.num_clients)) is not None:
        algorithm = with_privacy(algorithm, privacy)
    keys = jax.random.split(jax.random.key(seed), 3)
    server = init_server(model, keys[0])
    private = init_private(model, keys[1], split.num_clients, server)
    num_clients = split.num_clients
    state = make_state(server, private, algorithm, keys[2], num_clients=num_clients)
    fixed = jax.block_until_ready((server[FROZEN], store))
    del server, private  # the state is donated
    lap("init")
    run = make_run_rounds(algorithm, tiles)
    arrays = [jnp.asarray(x) for x in plans[0]]
    num_rounds = jnp.int32(rounds)
    compiled = run.lower(state, *fixed, *arrays, num_rounds).compile()
    lap("compile")
    compile_s = seconds.pop("compile")
    merge_ms = _merge_timer(model, algorithm, fixed[0], num_clients)
    for chunk, plan in enumerate(plans):
        arrays = jax.block_until_ready([jnp.asarray(x) for x in plan])
        start = time.perf_counter()
        state, report = compiled(state, *fixed, *arrays, num_rounds)
        jax.block_until_ready(state)
        milliseconds = 1e3 * (time.perf_counter() - start) / rounds
        if not report.finite:
            raise FloatingPointError(f"{case['setting']} gave a non-finite update")
        if chunk:
            yield {"ms": milliseconds, **merge_ms(state), **_peaks()}
            continue
        yield {
            "setting": case["setting"],
            "dataset": data.name,
            "users": split.num_clients,
            "items": split.num_items,
            "train_pairs": len(split.train.values),
            **{n: case[n] for n in _REPORTED},
            "tiles": tiles._asdict(),
            "device": jax.devices()[0].device_kind,
            "prepare_s": {**seconds, "total": sum(seconds.values())},
            "compile_s": compile_s,
        }


def _config(case: Case) -> RunConfig:
    """Returns a configuration with the same optimizers for every setting."""
    setting = SETTINGS[case["setting"]]
    return configure(
        **setting._asdict(),
        features=case["features"],
        cohort_size=case["cohort_size"],
        rounds=max(case["rounds"], 100),
        privacy=case["privacy"],
        privacy_model=case["privacy_model"],
        aggregator=case["aggregator"],
        upload=case["upload"],
        download=case["download"],
        client_optimizer="adam(learning_rate=0.01)",
        private_optimizer="adam(learning_rate=0.01)",
        server_optimizer=case["server_optimizer"],
        shared_server_optimizer=case["server_optimizer"],
    )


def _merge_timer(
    model: Any, algorithm: Any, frozen: Any, num_clients: int
) -> Callable[[Any], dict[str, float]]:
    """Returns a function that times one merge of a state, if there can be one."""
    embedding = model.item_embedding
    if embedding.full != "frozen" or embedding.compressed is None:
        return lambda state: {}
    if not hasattr(embedding.adapter_alone(), "restart"):
        return lambda state: {}

    def merge(server: Any, key: Any) -> Any:
        return merge_adapter(model, server, key)

    compiled, draws = jax.jit(merge), itertools.count()

    def timed(state: Any) -> dict[str, float]:
        keys = (jax.random.key(next(draws)) for _ in range(2))
        server = {SHARED: state.shared, ROWS: state.rows, FROZEN: frozen}
        jax.block_until_ready(compiled(server, next(keys)))  # compiles the first time
        start = time.perf_counter()
        merged = compiled(server, next(keys))
        new = make_state(
            merged, state.private, algorithm, state.key, num_clients=num_clients
        )
        jax.block_until_ready((new.rows, merged))
        return {"merge_ms": 1e3 * (time.perf_counter() - start)}

    return timed


def _peaks() -> dict[str, int | None]:
    unit = 1 if sys.platform == "darwin" else 1024
    device = jax.devices()[0].memory_stats() or {}
    return {
        "peak_rss_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "peak_device_bytes": device.get("peak_bytes_in_use"),
    }
