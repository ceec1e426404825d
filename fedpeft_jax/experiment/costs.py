r"""What a strategy costs and what it can represent, measured without training.

FedPEFT (arXiv 2512.13734) compares item embeddings in four dimensions: communication,
storage, computation and representational capacity. `measure_costs` measures them for
the model of a run's last phase:

- communication, in bytes, on the payloads of the pipelines (`communication.py`);
- storage, in bytes that a client keeps between two rounds;
- computation, as the FLOPs and the milliseconds of one client's local training;
- capacity, as the number of item vectors and of dimensions (`capacity.py`).
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.keys import RunPurpose, client_key, run_key
from fedpeft_jax.core.roles import (
    FROZEN,
    ROWS,
    SENT,
    SHARED,
    gather_rows,
    num_bytes,
    select,
)
from fedpeft_jax.core.typing import PyTree, Variables
from fedpeft_jax.data import Split
from fedpeft_jax.experiment.capacity import Capacity, measure_capacity
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.phases import make_phases
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.traffic import measure_traffic
from fedpeft_jax.federated import (
    ClientStore,
    LocalTraining,
    init_private,
    init_server,
)
from fedpeft_jax.federated.client import train_client

_CALLS = 30  # the fewest timed calls of the compiled local training


class Costs(NamedTuple):
    """The four dimensions of one strategy.

    Attributes:
      uplink: bytes that a client sends in one round.
      downlink: bytes that it receives in one round.
      once: bytes of frozen tables and codes, which it receives once.
      held: bytes of all variables that it keeps: those of the server, frozen tables
        and codes included, its private parameters, and what error feedback keeps. The
        optimizer's state is not counted: it exists only while the client trains.
      items: bytes of its training items as int32 ids, mean over the clients.
      flops: floating-point operations of its local training in one round; None if JAX
        does not report them.
      milliseconds: median time of this local training, compiled, for one client.
      capacity: what the item embedding can represent.
      client_items: the number of training items of the client that was measured.
    """

    uplink: int
    downlink: int
    once: int
    held: int
    items: float
    flops: float | None
    milliseconds: float
    capacity: Capacity
    client_items: int

    def flat(self) -> dict[str, Any]:
        """Returns all figures by name, as JSON can hold them."""
        return {**self._asdict(), "capacity": self.capacity._asdict()}


def measure_costs(config: RunConfig, prepared: Prepared, seconds: float = 1.0) -> Costs:
    """Measures the four dimensions for the model of a run's last phase.

    Args:
      config: the configuration.
      prepared: data and pretraining of the same configuration.
      seconds: how long the local training is called to time it.

    Raises:
      InputError: if the model cannot be fitted to the items.

    Example:
      >>> from fedpeft_jax import configure, prepare
      >>> config = configure(full="none", embedding="lora(rank=2)", features=8)
      >>> prepared = prepare(config)
      >>> costs = measure_costs(config, prepared, seconds=0.0)
      >>> costs.uplink == 4 * 2 * (prepared.split.num_items + 8), costs.capacity.rank
      (True, 2)
    """
    phase = make_phases(config, prepared)[-1]
    seed, model, counts = config.run.seed, phase.model, prepared.split.counts
    server = init_server(model, run_key(seed, RunPurpose.SERVER), phase.fitted.values)
    private = init_private(model, run_key(seed, RunPurpose.PRIVATE), 1, server)
    traffic = measure_traffic(phase.name, phase.algorithm, server, np.asarray(counts))
    client = median_client(counts)
    feedback = jax.eval_shape(phase.algorithm.upload.init, select(server, SENT))
    train, arguments = client_round(
        phase.algorithm.training, server, private, prepared.split, client, seed
    )
    return Costs(
        uplink=round(traffic.touched) if traffic.row else traffic.uplink,
        downlink=traffic.downlink,
        once=traffic.frozen,
        held=num_bytes((server, private, feedback)),
        items=4.0 * float(np.mean(counts)),
        flops=count_flops(train, arguments),
        milliseconds=time_calls(train, arguments, seconds),
        capacity=measure_capacity(model, server),
        client_items=int(counts[client]),
    )


def median_client(counts: np.ndarray) -> int:
    """Returns the first client with the (lower) median number of training items.

    Args:
      counts: int[U], each client's number of training items.

    Example:
      >>> median_client(np.array([9, 2, 5, 5]))
      2
    """
    median = np.sort(counts)[(len(counts) - 1) // 2]
    return int(np.argmax(counts == median))


def client_round(
    training: LocalTraining,
    server: Variables,
    private: PyTree,
    split: Split,
    client: int,
    seed: int,
) -> tuple[Callable[..., Any], tuple[PyTree, ...]]:
    """Returns the local training of one client in the first round, and its arguments.

    The client's data are not padded. Encoding, decoding and the choice of negatives are
    no part of the local training.

    Args:
      training: how clients train.
      server: the server's variables by collection.
      private: the private parameters of one client, arrays [1, ...].
      split: the clients' training items.
      client: id of the client.
      seed: seed of the run.
    """
    sampler = training.sampler
    capacity = max(int(split.counts[client]), 1)

    @jax.jit
    def gather(server: Variables, private: PyTree, store: ClientStore) -> Any:
        key = run_key(seed, RunPurpose.ROUNDS)
        data = sampler.draw(key, jnp.int32(0), jnp.int32(client), store, capacity)
        received = {
            SHARED: server[SHARED],
            ROWS: gather_rows(server[ROWS], data.item_ids),
        }
        frozen = gather_rows(server[FROZEN], data.item_ids)
        own = jax.tree.map(lambda x: x[0], private)
        return received, own, frozen, data, client_key(key, 0, client)

    arguments = gather(server, private, sampler.make_store(split))
    return functools.partial(train_client, training), arguments


def count_flops(
    function: Callable[..., Any], arguments: tuple[PyTree, ...]
) -> float | None:
    """Returns the floating-point operations of a function, or None if not reported.

    XLA counts the body of a loop once, however often it runs. Loops of a fixed length
    are therefore written out before the program is counted; a loop whose length depends
    on values counts as one iteration. The program is counted before the compiler
    changes it, so that the number does not depend on the machine.

    Args:
      function: a function of arrays.
      arguments: its arguments.

    Example:
      >>> def five_products(x):
      ...     return jax.lax.scan(lambda c, _: (c @ x, None), x, length=5)[0]
      >>> count_flops(five_products, (jnp.ones((10, 10)),))
      10000.0
    """
    with jax.disable_jit():  # loops run in Python, and leave their steps
        program = jax.make_jaxpr(function)(*arguments)
    written_out = jax.jit(jax.extend.core.jaxpr_as_fun(program))
    found = written_out.lower(*jax.tree.leaves(arguments)).cost_analysis()
    flops = (found or {}).get("flops")
    return None if flops is None else float(flops)


def time_calls(
    function: Callable[..., Any], arguments: tuple[PyTree, ...], seconds: float
) -> float:
    """Returns the median milliseconds of a call of the compiled function.

    The first half of the calls warms up and is not timed.

    Args:
      function: a function of arrays.
      arguments: its arguments.
      seconds: how long it is called; at least 30 calls are timed.
    """
    compiled = jax.jit(function).lower(*arguments).compile()
    times = [time.perf_counter()]
    while len(times) <= 2 * _CALLS or times[-1] - times[0] < seconds:
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter())
    return 1000 * float(np.median(np.diff(times)[len(times) // 2 :]))
