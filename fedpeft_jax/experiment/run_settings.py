"""The settings of a run's length, its seed, its folder and its shapes."""

import dataclasses

from fedpeft_jax.core.bounds import MOST_INT
from fedpeft_jax.core.settings import setting

WARM_UP_ROUNDS = 20
"""Default warm-up of a frozen table with a compressed embedding (the paper's)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The length of a run, its seed, its folder, and the shapes of its computation."""

    rounds: int = setting(
        1000, "federated rounds, the warm-up included", least=1, most=MOST_INT
    )
    warm_up_rounds: int = setting(
        None,
        "rounds that train the full table before it is frozen; by default "
        f"{WARM_UP_ROUNDS} for a frozen table with a compressed embedding, else 0",
        least=0,
        most=MOST_INT,
    )
    merge_every: int = setting(
        None,
        "rounds of the main phase after which the compressed embedding is merged into "
        "the frozen table and starts anew, again and again; 0 for never (the paper's "
        "method); by default what the embedding suggests",
        least=0,
        most=MOST_INT,
    )
    client_chunk: int = setting(
        0,
        "most clients trained at once, to bound memory; 0 for no bound",
        least=0,
        most=MOST_INT,
    )
    tile_rows: int = setting(
        4096,
        "positives trained at once, padding included; use more on an accelerator",
        least=1,
        most=MOST_INT,
    )
    max_buckets: int = setting(
        6,
        "most length buckets; fewer compile faster and need more padding",
        least=1,
        most=256,
    )
    seed: int = setting(0, "seed of everything except the data", least=0, below=2**32)
    out: str | None = setting(None, "folder of the run; by default runs/NAME-N")
    resume: str = setting(
        "auto",
        "whether a run continues the one in its folder: if there is one, never, or in "
        "any case",
        choices=("auto", "never", "must"),
    )
    checkpoint_every: int = setting(
        50,
        "rounds between checkpoints; 0 for none except at the end, and when a signal "
        "stops the run",
        least=0,
        most=MOST_INT,
    )
    keep_checkpoints: int = setting(
        2,
        "how many of the last checkpoints are kept; the one of the best validation is "
        "kept, too",
        least=1,
        most=MOST_INT,
    )
    tensorboard: bool = setting(
        False, "whether to write events for TensorBoard to the folder of the run"
    )
